//! Who is right: a pure function of what the nodes hold at one entry.
//!
//! Every node judges itself alone, by the same rule. A majority of the voters that holds
//! the same is right, whoever leads. Where no majority holds the same, or not enough of
//! them can be asked, the leader who proposed the mark is believed: whoever differs from
//! it cannot both be right, and one of the two must stop serving.

use std::collections::BTreeMap;

use crate::storage::mvcc::StateHash;
use crate::types::{MemberId, MemberName};

/// What one member holds at the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub id: MemberId,
    pub name: MemberName,
    pub voter: bool,
    pub holds: Holds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Hash(StateHash),
    /// It has not said yet.
    NotYet,
    /// It will never say: it came later, or does not compare.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A majority holds what this node holds, and nobody is known to hold anything else.
    Agrees,
    /// A majority holds what this node holds; these do not.
    OthersDiffer(Vec<MemberName>),
    /// These, a majority, hold something else.
    Differs(Vec<MemberName>),
    /// There is no majority, and the leader holds something else.
    DiffersFromLeader(MemberName),
    /// There is no majority, and these do not hold what this node and, as far as it is
    /// known, the leader hold.
    Disputed(Vec<MemberName>),
    /// There is no majority, and nobody contradicts.
    NoAnswer,
}

impl Verdict {
    /// The metric's label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::OthersDiffer(_) => "others_differ",
            Verdict::Differs(_) => "differs",
            Verdict::DiffersFromLeader(_) => "differs_from_leader",
            Verdict::Disputed(_) => "disputed",
            Verdict::NoAnswer => "no_answer",
        }
    }

    /// Further answers can't change it, only name more nodes.
    pub fn is_settled(&self) -> bool {
        matches!(self, Verdict::Agrees | Verdict::OthersDiffer(_) | Verdict::Differs(_))
    }
}

/// Judges the member that holds `mine`. `reports` are all members', its own included;
/// `leader` proposed the mark.
pub fn judge(mine: StateHash, leader: MemberId, reports: &[Report]) -> Verdict {
    let holding = |wanted: &dyn Fn(StateHash) -> bool| -> Vec<MemberName> {
        let holders =
            reports.iter().filter(|report| matches!(report.holds, Holds::Hash(hash) if wanted(hash)));
        holders.map(|report| report.name.clone()).collect()
    };
    let others = holding(&|hash| hash != mine);
    let leader = reports.iter().find(|report| report.id == leader);
    match majority(reports) {
        Some(right) if right != mine => Verdict::Differs(holding(&|hash| hash == right)),
        Some(_) if others.is_empty() => Verdict::Agrees,
        Some(_) => Verdict::OthersDiffer(others),
        None if others.is_empty() => Verdict::NoAnswer,
        None => match leader {
            Some(leader) if others.contains(&leader.name) => Verdict::DiffersFromLeader(leader.name.clone()),
            _ => Verdict::Disputed(others),
        },
    }
}

/// What more than half of the voters hold.
fn majority(reports: &[Report]) -> Option<StateHash> {
    let voters = reports.iter().filter(|report| report.voter);
    let mut counts: BTreeMap<StateHash, usize> = BTreeMap::new();
    for report in voters.clone() {
        if let Holds::Hash(hash) = report.holds {
            *counts.entry(hash).or_default() += 1;
        }
    }
    let needed = voters.count() / 2 + 1;
    counts.into_iter().find(|(_, count)| *count >= needed).map(|(hash, _)| hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Holds = Holds::Hash([1; 32]);
    const BAD: Holds = Holds::Hash([2; 32]);
    const OTHER: Holds = Holds::Hash([3; 32]);

    fn name(id: usize) -> MemberName {
        MemberName::parse(&format!("node-{id}")).expect("a name")
    }

    /// The verdict of each node that has a hash, where node 1 proposed the mark.
    fn verdicts(holds: &[Holds], learners: &[usize]) -> Vec<Verdict> {
        let report = |(i, holds): (usize, &Holds)| Report {
            id: MemberId(i as u64 + 1),
            name: name(i + 1),
            voter: !learners.contains(&(i + 1)),
            holds: *holds,
        };
        let reports: Vec<Report> = holds.iter().enumerate().map(report).collect();
        let own = holds.iter().filter_map(|holds| match holds {
            Holds::Hash(hash) => Some(*hash),
            _ => None,
        });
        own.map(|mine| judge(mine, MemberId(1), &reports)).collect()
    }

    #[test]
    fn the_minority_is_wrong_whoever_leads() {
        assert_eq!(verdicts(&[GOOD; 3], &[]), [Verdict::Agrees, Verdict::Agrees, Verdict::Agrees]);
        let told = Verdict::OthersDiffer(vec![name(2)]);
        let alarm = Verdict::Differs(vec![name(1), name(3)]);
        assert_eq!(verdicts(&[GOOD, BAD, GOOD], &[]), [told.clone(), alarm, told]);
        let told = Verdict::OthersDiffer(vec![name(1)]);
        let alarm = Verdict::Differs(vec![name(2), name(3)]);
        assert_eq!(verdicts(&[BAD, GOOD, GOOD], &[]), [alarm, told.clone(), told]);
    }

    #[test]
    fn a_majority_needs_nobody_else() {
        for missing in [Holds::NotYet, Holds::Nothing] {
            assert_eq!(verdicts(&[GOOD, missing, GOOD], &[]), [Verdict::Agrees, Verdict::Agrees]);
        }
        assert!(Verdict::Agrees.is_settled() && !Verdict::NoAnswer.is_settled());
    }

    #[test]
    fn without_a_majority_the_leader_is_believed() {
        let two = verdicts(&[GOOD, BAD], &[]);
        assert_eq!(two, [Verdict::Disputed(vec![name(2)]), Verdict::DiffersFromLeader(name(1))]);
        let one_down = verdicts(&[GOOD, BAD, Holds::NotYet], &[]);
        assert_eq!(one_down, two);
        // Nobody is like another.
        let all = verdicts(&[GOOD, BAD, OTHER], &[]);
        assert_eq!(all[0], Verdict::Disputed(vec![name(2), name(3)]));
        assert_eq!(all[1..], [Verdict::DiffersFromLeader(name(1)), Verdict::DiffersFromLeader(name(1))]);
        // The leader is gone: nobody is believed, nobody stops.
        let leaderless = verdicts(&[Holds::NotYet, GOOD, BAD], &[]);
        assert_eq!(leaderless, [Verdict::Disputed(vec![name(3)]), Verdict::Disputed(vec![name(2)])]);
    }

    #[test]
    fn nobody_contradicts_and_nobody_confirms() {
        assert_eq!(verdicts(&[GOOD, Holds::NotYet, Holds::NotYet], &[]), [Verdict::NoAnswer]);
        assert_eq!(verdicts(&[GOOD], &[]), [Verdict::Agrees], "alone it is the majority");
    }

    #[test]
    fn learners_are_judged_and_judge_nobody() {
        let judged = verdicts(&[GOOD, GOOD, GOOD, BAD], &[4]);
        assert_eq!(judged[3], Verdict::Differs(vec![name(1), name(2), name(3)]));
        assert_eq!(verdicts(&[GOOD, BAD, BAD], &[2, 3])[0], Verdict::OthersDiffer(vec![name(2), name(3)]));
    }
}
