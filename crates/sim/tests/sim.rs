//! A few histories of each kind. The command line runs as many as one has time for.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether::env::planted::Bug;
use bellwether_sim::drills;
use bellwether_sim::history::{self, Report};
use bellwether_sim::plan::{self, Founding, Plan};

/// Simulated seconds of a campaign's faults: about fifteen of them.
const CAMPAIGN: Duration = Duration::from_secs(20);
/// Enough for every fault to strike, and a small part of what two cores do in two minutes.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=16;
/// In which a planted bug must be noticed.
const DRILL_SEEDS: std::ops::RangeInclusive<u64> = 1..=20;

#[track_caller]
fn pass(plan: Plan) -> Report {
    let report = history::run(plan, None);
    println!("{report}");
    assert!(report.failures.is_empty(), "{report}");
    report
}

/// How often each kind struck, over all of them.
fn fired(reports: &[Report]) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (kind, times) in reports.iter().flat_map(|report| &report.fired) {
        *sum.entry(*kind).or_default() += times;
    }
    sum
}

/// Also on a machine that is slower by several times: nothing may go by real time.
#[test]
fn one_seed_is_one_history() {
    for seed in [1, 11] {
        let once = pass(plan::campaign(seed, CAMPAIGN));
        let again = pass(Plan { waste: Duration::from_micros(200), ..plan::campaign(seed, CAMPAIGN) });
        assert_eq!(once.fingerprint, again.fingerprint, "{}", once.reproduce());
        let other = pass(plan::campaign(seed + 100, CAMPAIGN));
        assert_ne!(once.fingerprint.hash, other.fingerprint.hash, "the seed must matter");
    }
}

#[test]
fn random_faults_leave_a_linearizable_history_and_a_whole_cluster() {
    let reports: Vec<Report> = SEEDS.map(|seed| pass(plan::campaign(seed, CAMPAIGN))).collect();
    let fired = fired(&reports);
    for kind in [
        "partition",
        "cut",
        "mute",
        "deaf",
        "hold",
        "spoil",
        "message lost",
        "message doubled",
        "message overtaken",
        "message delayed",
        "heal",
        "pause",
        "suspend",
        "crash",
        "wipe",
        "power cut at a step",
        "stop",
        "restart",
        "skew",
    ] {
        assert!(fired.get(kind).is_some_and(|times| *times > 0), "no {kind} ever struck: {fired:?}");
    }
    for nodes in [3, 5] {
        assert!(reports.iter().any(|report| report.nodes == nodes), "no cluster had {nodes} nodes");
    }
    let lost: u64 = reports.iter().map(|report| report.disk.lost_writes).sum();
    let torn: u64 = reports.iter().map(|report| report.disk.torn_writes).sum();
    assert!(lost > 0 && torn > 0, "the crashes cost nothing: {lost} writes lost, {torn} torn");
}

/// The twin: without durable syncs the same histories must not pass.
#[test]
fn disks_that_lie_are_noticed() {
    let noticed = (1..=10).any(|seed| {
        let report = history::run(plan::lying_campaign(seed, CAMPAIGN), None);
        !report.failures.is_empty()
    });
    assert!(noticed, "lost writes went unnoticed");
}

#[test]
fn a_disturbed_first_start_ends_in_one_cluster() {
    for kind in Founding::ALL {
        let reports: Vec<Report> = (1..=6).map(|seed| pass(plan::founding(seed, kind))).collect();
        let fired = fired(&reports);
        let expected = match kind {
            Founding::Order => continue,
            Founding::Kill => "crash",
            Founding::Wipe | Founding::Storm | Founding::LateFollower | Founding::LateLeader => "wipe",
        };
        assert!(fired.get(expected).is_some_and(|times| *times > 0), "no {expected}: {fired:?}");
    }
}

/// A step of the disk at a time would take minutes; the command line does that.
#[test]
fn the_power_may_go_at_any_step_of_the_founding() {
    for (seed, after) in (0..40).step_by(4).enumerate() {
        let wipe = seed % 2 == 1;
        let report = pass(plan::founding_power_cut(seed as u64, seed % plan::NODES, after, wipe));
        assert_eq!(report.fired.get("power cut at a step"), Some(&1), "{}", report.reproduce());
    }
}

/// The judgement itself on trial: every planted bug fails some seed, which passes without it.
#[test]
fn every_planted_bug_is_noticed() {
    let missed: Vec<String> = Bug::ALL
        .into_iter()
        .filter_map(|bug| match drills::is_noticed(bug, DRILL_SEEDS) {
            Ok(report) => {
                println!("{bug:?}, seed {}: {}", report.seed, report.failures[0]);
                None
            }
            Err(why) => Some(why),
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
