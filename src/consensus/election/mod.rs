//! Who campaigns when: policies are pure functions of a view; one driver acts.
//!
//! A policy never decides an election, votes do (Raft, section 5.2). It decides whose
//! turn it is to ask for them, and whether a leader should hand over. A leader is lost when
//! its lease has run out, or when its process has ended (`detector`), never by pings.
//!
//! - `raft`: the engine's random timeouts with pre-vote. Here are only campaigns without a
//!   timeout: the very first one of a fresh cluster is the lowest name's, and when the
//!   leader's process has ended there are turns by rank.
//! - `lowest-id`, `highest-id`: turns by rank (`ranked`).

mod driver;
mod ranked;
#[cfg(test)]
#[path = "tests/traces.rs"]
mod traces;

use std::time::Duration;

use crate::types::{ElectionPolicy, MemberId, MemberName};

pub use driver::{drive, driver_view};

/// What a policy may look at.
#[derive(Clone, Debug)]
pub struct ElectionView {
    pub me: MemberId,
    pub voters: Vec<Voter>,
    /// This node's state is not sound: it should not lead.
    pub unsound: bool,
    /// This node leads, and a quorum acknowledges it.
    pub leads: bool,
    /// A leader is alive as far as this node knows.
    pub leader_alive: bool,
    /// Who led last, if this node has heard anybody since it started.
    pub last_leader: Option<MemberId>,
    /// The leader's process has ended: there is no lease to wait for.
    pub leader_gone: bool,
    /// Since the last word of a leader, the last change of our vote, or the start,
    /// whichever came last; or since the leader was found to be gone.
    pub quiet_for: Duration,
    /// Nobody has voted yet: the cluster is new.
    pub fresh: bool,
    pub lease: Duration,
    /// The distance between two ranks' turns: longer than a pre-vote round.
    pub step: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: MemberId,
    pub name: MemberName,
    /// It is about to stop, or its state is not sound: no leadership should go to it.
    pub draining: bool,
    /// On the leader: it answers, and its log is as long as ours.
    pub caught_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Wait,
    /// Ask for votes, with a pre-vote round first.
    Campaign,
    /// Hand the leadership to this voter.
    TransferTo(MemberId),
}

/// The policy's decision.
pub fn decide(policy: ElectionPolicy, view: &ElectionView) -> Decision {
    match policy {
        _ if view.unsound => last_resort(view),
        ElectionPolicy::Raft if view.leader_gone => ranked::decide(view, ranked::Order::LowestFirst),
        ElectionPolicy::Raft => first_campaign(view),
        ElectionPolicy::LowestId => ranked::decide(view, ranked::Order::LowestFirst),
        ElectionPolicy::HighestId => ranked::decide(view, ranked::Order::HighestFirst),
    }
}

/// Silence after which even a node whose state is not sound asks for votes, in leases.
/// Its log may be the only one that has everything: it then leads for as long as it takes
/// to fill another one's.
const LAST_RESORT_LEASES: u32 = 20;

fn last_resort(view: &ElectionView) -> Decision {
    match !view.leader_alive && view.quiet_for > view.lease * LAST_RESORT_LEASES {
        true => Decision::Campaign,
        false => Decision::Wait,
    }
}

/// Who should take over from a leader that should not lead: the policy's favourite
/// among those that could lead at once.
pub fn successor(policy: ElectionPolicy, view: &ElectionView) -> Option<MemberId> {
    let able = view.voters.iter().filter(|voter| voter.id != view.me && voter.caught_up && !voter.draining);
    match policy {
        ElectionPolicy::HighestId => able.max_by(|a, b| a.name.cmp(&b.name)),
        ElectionPolicy::Raft | ElectionPolicy::LowestId => able.min_by(|a, b| a.name.cmp(&b.name)),
    }
    .map(|voter| voter.id)
}

/// A new cluster elects at once instead of waiting for a timeout: its lowest name asks.
fn first_campaign(view: &ElectionView) -> Decision {
    let lowest = view.voters.iter().min_by(|a, b| a.name.cmp(&b.name));
    match view.fresh && !view.leader_alive && lowest.is_some_and(|voter| voter.id == view.me) {
        true => Decision::Campaign,
        false => Decision::Wait,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const LEASE: Duration = Duration::from_millis(300);
    pub(crate) const STEP: Duration = Duration::from_millis(100);

    /// A view of three voters, node-1 to node-3 with ids 1 to 3, by `me`.
    pub(crate) fn view(me: u64) -> ElectionView {
        let voter = |id: u64| Voter {
            id: MemberId(id),
            name: MemberName::parse(&format!("node-{id}")).expect("name"),
            draining: false,
            caught_up: false,
        };
        ElectionView {
            me: MemberId(me),
            voters: vec![voter(1), voter(2), voter(3)],
            unsound: false,
            leads: false,
            leader_alive: false,
            last_leader: None,
            leader_gone: false,
            quiet_for: Duration::ZERO,
            fresh: false,
            lease: LEASE,
            step: STEP,
        }
    }

    #[test]
    fn a_new_cluster_is_led_by_its_lowest_name() {
        let fresh = |me| ElectionView { fresh: true, ..view(me) };
        assert_eq!(decide(ElectionPolicy::Raft, &fresh(1)), Decision::Campaign);
        assert_eq!(decide(ElectionPolicy::Raft, &fresh(2)), Decision::Wait);
        assert_eq!(decide(ElectionPolicy::Raft, &view(1)), Decision::Wait);
    }

    #[test]
    fn a_node_whose_state_is_not_sound_asks_for_votes_only_as_a_last_resort() {
        for policy in [ElectionPolicy::Raft, ElectionPolicy::LowestId, ElectionPolicy::HighestId] {
            let turn = ElectionView { unsound: true, quiet_for: LEASE * 5, ..view(1) };
            let turns =
                (0..30).map(|step| ElectionView { quiet_for: LEASE * 2 + STEP * step, ..turn.clone() });
            assert!(turns.into_iter().all(|view| decide(policy, &view) == Decision::Wait), "{policy:?}");
            let long = ElectionView { quiet_for: LEASE * (LAST_RESORT_LEASES + 1), ..turn };
            assert_eq!(decide(policy, &long), Decision::Campaign, "{policy:?}");
            let led = ElectionView { leader_alive: true, ..long };
            assert_eq!(decide(policy, &led), Decision::Wait, "{policy:?}");
        }
    }

    #[test]
    fn a_successor_answers_is_caught_up_and_stays() {
        let mut leading = ElectionView { leads: true, ..view(1) };
        assert_eq!(successor(ElectionPolicy::Raft, &leading), None);
        leading.voters[1].caught_up = true;
        leading.voters[2].caught_up = true;
        assert_eq!(successor(ElectionPolicy::LowestId, &leading), Some(MemberId(2)));
        assert_eq!(successor(ElectionPolicy::HighestId, &leading), Some(MemberId(3)));
        leading.voters[1].draining = true;
        assert_eq!(successor(ElectionPolicy::Raft, &leading), Some(MemberId(3)));
    }
}
