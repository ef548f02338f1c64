//! Turns by rank: the chapter's "lowest id leads" and the bully algorithm's order, made
//! safe by votes.
//!
//! Voters are ranked by name, without the leader that was just lost and without those
//! about to stop. When the lease has run out, or is void, rank 0 campaigns first, rank 1 a step
//! later, and so on, and then round again until a leader is heard: a first rank whose
//! log is behind is refused by the voters, and the next one gets its turn.

use std::time::Duration;

use super::{Decision, ElectionView, Voter};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    LowestFirst,
    /// The bully: the highest leads, and takes over when it returns.
    HighestFirst,
}

pub fn decide(view: &ElectionView, order: Order) -> Decision {
    if view.leads {
        return match order {
            // A lower node that returns is no reason to interrupt a leader.
            Order::LowestFirst => Decision::Wait,
            Order::HighestFirst => give_way(view),
        };
    }
    match !view.leader_alive && my_turn(view, order) {
        true => Decision::Campaign,
        false => Decision::Wait,
    }
}

/// The highest voter above us that could lead at once.
fn give_way(view: &ElectionView) -> Decision {
    let Some(me) = view.voters.iter().find(|voter| voter.id == view.me) else { return Decision::Wait };
    let higher =
        view.voters.iter().filter(|voter| voter.name > me.name && voter.caught_up && !voter.draining);
    match higher.max_by(|a, b| a.name.cmp(&b.name)) {
        Some(voter) => Decision::TransferTo(voter.id),
        None => Decision::Wait,
    }
}

/// The candidates in the order of their turns.
pub fn ranking(view: &ElectionView, order: Order) -> Vec<&Voter> {
    let lost = |voter: &&Voter| view.last_leader == Some(voter.id) && voter.id != view.me;
    let mut ranked: Vec<&Voter> =
        view.voters.iter().filter(|voter| !lost(voter) && !voter.draining).collect();
    ranked.sort_by(|a, b| a.name.cmp(&b.name));
    if order == Order::HighestFirst {
        ranked.reverse();
    }
    ranked
}

fn my_turn(view: &ElectionView, order: Order) -> bool {
    let ranked = ranking(view, order);
    let Some(rank) = ranked.iter().position(|voter| voter.id == view.me) else { return false };
    let void = view.fresh || view.leader_gone;
    let lease = if void { Duration::ZERO } else { view.lease };
    let Some(quiet) = view.quiet_for.checked_sub(lease) else { return false };
    let turn = (quiet.as_nanos() / view.step.as_nanos().max(1)) as usize;
    turn % ranked.len() == rank
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEASE, STEP, view};
    use super::*;
    use crate::types::MemberId;

    /// Who campaigns in each step after the lease has run out, node by node.
    fn turns(order: Order, lost: Option<u64>, steps: u32) -> Vec<Vec<u64>> {
        let campaigns = |step: u32, me: u64| {
            let quiet_for = LEASE + STEP * step + STEP / 2;
            let view = ElectionView { last_leader: lost.map(MemberId), quiet_for, ..view(me) };
            (Some(me) != lost && decide(&view, order) == Decision::Campaign).then_some(me)
        };
        (0..steps).map(|step| (1..=3).filter_map(|me| campaigns(step, me)).collect()).collect()
    }

    #[test]
    fn one_candidate_a_step_and_round_again() {
        assert_eq!(turns(Order::LowestFirst, None, 4), [[1], [2], [3], [1]]);
        assert_eq!(turns(Order::HighestFirst, None, 4), [[3], [2], [1], [3]]);
    }

    #[test]
    fn the_lost_leader_has_no_turn() {
        assert_eq!(turns(Order::LowestFirst, Some(1), 3), [[2], [3], [2]]);
        assert_eq!(turns(Order::HighestFirst, Some(3), 3), [[2], [1], [2]]);
    }

    #[test]
    fn nobody_campaigns_within_the_lease_or_under_a_living_leader() {
        let within = ElectionView { quiet_for: LEASE - Duration::from_millis(1), ..view(1) };
        assert_eq!(decide(&within, Order::LowestFirst), Decision::Wait);
        let led = ElectionView { leader_alive: true, quiet_for: LEASE * 9, ..view(1) };
        assert_eq!(decide(&led, Order::LowestFirst), Decision::Wait);
    }

    #[test]
    fn a_returning_lower_node_deposes_nobody_a_higher_one_takes_over() {
        let mut leading = ElectionView { leads: true, leader_alive: true, ..view(2) };
        leading.voters[0].caught_up = true;
        assert_eq!(decide(&leading, Order::LowestFirst), Decision::Wait);
        assert_eq!(decide(&leading, Order::HighestFirst), Decision::Wait);
        leading.voters[2].caught_up = true;
        assert_eq!(decide(&leading, Order::HighestFirst), Decision::TransferTo(MemberId(3)));
        leading.voters[2].draining = true;
        assert_eq!(decide(&leading, Order::HighestFirst), Decision::Wait);
    }
}
