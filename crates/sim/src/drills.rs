//! The mutation check: for each bug that can be planted in a node, a plan that provokes it.
//!
//! A judgement that never fails proves nothing. So every bug of
//! [`bellwether::env::planted`] is run under a short plan that does what the bug needs, and
//! some seed of a bounded search must fail; the same seed without the bug must pass.

use std::time::Duration;

use bellwether::env::planted::Bug;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::history::{self, Report};
use crate::plan::{Fault, Plan, Sleep, Spoilt, Whom, ms, plan_rng};

/// The cluster is left alone until here, unless its founding is what matters.
const FOUNDED: u64 = 2500;
/// More than a campaign has, and as many as the checker is comfortable with.
const CLIENTS: u32 = 8;
/// Short: who waits for a leader asks nobody else meanwhile.
const PATIENCE: Duration = Duration::from_millis(400);
/// Enough for a sound cluster, and not much, for many a planted bug keeps it from being whole.
const SETTLING: Duration = Duration::from_secs(20);

/// The bug's name on the command line.
pub fn name(bug: Bug) -> String {
    let mut name = String::new();
    for letter in format!("{bug:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// The bug of that name.
pub fn find(wanted: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.map(name).join(", ");
    Bug::ALL
        .into_iter()
        .find(|bug| name(*bug) == wanted)
        .ok_or_else(|| format!("there is no such bug; there are {}", names()))
}

/// A plan that provokes `bug`, which is planted unless the plan is to be run `sound`.
pub fn plan(seed: u64, bug: Bug, sound: bool) -> Plan {
    let mut rng = plan_rng(seed);
    let mut plan = Plan {
        seed,
        scenario: format!("drill {}{}", name(bug), if sound { " --sound" } else { "" }),
        starts: vec![Duration::ZERO; 3],
        election: "raft",
        clients: CLIENTS,
        deadline: PATIENCE,
        settling: SETTLING,
        bug: (!sound).then_some(bug),
        ends: ms(12_000),
        ..Plan::default()
    };
    let faults = &mut plan.faults;
    match bug {
        Bug::VoteNotSaved | Bug::LogNotSynced | Bug::AppliedTwice | Bug::LocalReadBeforeRecovery => {
            blackouts(&mut rng, faults, FOUNDED);
        }
        Bug::DirectoryNotSynced => blackouts(&mut rng, faults, 100),
        Bug::TailNotTruncated | Bug::AcknowledgedBeforeCommit => {
            again_and_again(&mut rng, faults, 500..1500, |_| vec![Fault::Partition(Whom::Leader)]);
        }
        Bug::ForwardedTwice => {
            again_and_again(&mut rng, faults, 300..900, |_| vec![Fault::Mute(Whom::Leader)]);
        }
        Bug::ReadIndexWithoutRound | Bug::StaleLease => {
            // It sleeps while another is elected, and wakes where it cannot hear of it.
            again_and_again(&mut rng, faults, 1500..1800, |rng| {
                let sleep = Sleep { ms: rng.random_range(900..1200), clock_goes_on: false };
                vec![Fault::Partition(Whom::Leader), Fault::Pause(Whom::Leader, sleep)]
            });
        }
        Bug::AskerIsEnough => {
            // The leader keeps one follower; the other three elect another. The lowest id leads
            // as soon as it can, so it is always the same two.
            (plan.starts, plan.election) = (vec![Duration::ZERO; 5], "lowest-id");
            again_and_again(&mut rng, faults, 1500..2500, |_| {
                let apart = |node| (1..4).map(move |other| Fault::Cut(Whom::Node(node), other));
                (0..2).flat_map(apart).collect()
            });
        }
        Bug::ConditionJudgedEarly => {}
        Bug::ReadJoinsEarlierRound => {
            // Late messages make rounds long, and followers late.
            plan.lab = true;
            let late = Spoilt { loss: 0, duplicate: 0, reorder: 100, delay_ms: 0 };
            faults.push((ms(FOUNDED), Fault::Spoil(Whom::Leader, late)));
        }
        Bug::SnapshotLacksTheLast => {
            plan.ends = ms(20_000);
            let at = rng.random_range(12_000..15_000);
            faults.push((ms(at), Fault::Wipe(Whom::Follower(0))));
            faults.push((ms(at + 500), Fault::Restart));
        }
        Bug::WipedComesBackAsItself => {
            let at = rng.random_range(FOUNDED..6000);
            faults.push((ms(at), Fault::Partition(Whom::Follower(0))));
            faults.push((ms(at + 1500), Fault::Wipe(Whom::Follower(1))));
            faults.push((ms(at + 1900), Fault::Heal));
            faults.push((ms(at + 1910), Fault::Crash(Whom::Leader)));
            faults.push((ms(at + 2300), Fault::Restart));
        }
        Bug::LeaderNeverSilent => {
            faults.push((ms(FOUNDED), Fault::Deaf(Whom::Leader)));
            // Lease, silence and election together take less than half of it.
            plan.serves_from = Some(ms(FOUNDED + 5000));
        }
    }
    plan
}

/// The power of all nodes goes, again and again.
fn blackouts(rng: &mut SmallRng, faults: &mut Vec<(Duration, Fault)>, mut at: u64) {
    while at < 10_000 {
        at += rng.random_range(200..2000);
        faults.push((ms(at), Fault::Crash(Whom::All)));
        at += rng.random_range(300..500);
        faults.push((ms(at), Fault::Restart));
    }
}

/// Faults that strike together, and are healed after a while.
fn again_and_again(
    rng: &mut SmallRng,
    faults: &mut Vec<(Duration, Fault)>,
    lasting: std::ops::Range<u64>,
    strike: impl Fn(&mut SmallRng) -> Vec<Fault>,
) {
    let mut at = FOUNDED;
    while at < 10_000 {
        faults.extend(strike(rng).into_iter().map(|fault| (ms(at), fault)));
        at += rng.random_range(lasting.clone());
        faults.push((ms(at), Fault::Heal));
        at += rng.random_range(400..1200);
    }
}

/// Looks for a seed that notices the bug; the error says what was found instead.
pub fn is_noticed(bug: Bug, seeds: std::ops::RangeInclusive<u64>) -> Result<Report, String> {
    let tried = seeds.clone().count();
    for seed in seeds {
        let planted = history::run(plan(seed, bug, false), None);
        if planted.failures.is_empty() {
            continue;
        }
        let sound = history::run(plan(seed, bug, true), None);
        return match sound.failures.is_empty() {
            true => Ok(planted),
            false => Err(format!("without the bug the history fails as well: {sound}")),
        };
    }
    Err(format!("{bug:?} was not noticed within {tried} seeds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        assert_eq!(name(Bug::VoteNotSaved), "vote-not-saved");
        for bug in Bug::ALL {
            assert_eq!(find(&name(bug)), Ok(bug));
        }
        assert!(find("none").is_err());
    }
}
