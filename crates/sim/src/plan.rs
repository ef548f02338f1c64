//! What is done to a cluster, and when: a pure function of the seed, drawn up before the
//! history begins.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub const NODES: usize = 3;

/// Keeps the plan's draws apart from all others made from the same seed.
const PLAN_SALT: u64 = 0x000f_a017;
/// A campaign's cluster is left alone this long: founding has plans of its own.
const QUIET_START: Duration = Duration::from_millis(2500);
/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 150..2500;
/// Enough for the founding to be struck at several of its steps.
const STORM_CRASHES: usize = 8;
/// How far a node's wall clock may be off.
const MAX_SKEW_MS: i64 = 3_600_000;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Node(usize),
    /// Whoever last said that it leads.
    Leader,
    /// A node that is not the leader: the `usize` picks among them.
    Follower(usize),
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No message between them and the rest, in both directions.
    Partition(Whom),
    /// What they send is lost; what they are sent arrives.
    Mute(Whom),
    /// Messages to and from them wait until [`Fault::Heal`].
    Hold(Whom),
    Heal,
    /// The power goes, at once or in the middle of the next writes.
    Crash(Whom),
    /// A crash, and an empty disk for the next start.
    Wipe(Whom),
    /// SIGTERM: drain, hand over, end.
    Stop(Whom),
    /// Everything that is down starts again.
    Restart,
    /// Wall clocks jump; nothing may depend on them.
    Skew(Whom, i64),
    /// From now on disks report syncs that they do not make. No history survives that:
    /// it is there to see whether the verdict notices.
    Lie(Whom),
}

/// The power of one node goes at an exact step of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut {
    pub node: usize,
    /// Calls that change its disk and still succeed.
    pub after_operations: u64,
    /// The disk is lost, too.
    pub wipe: bool,
    pub down_for: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    /// What the history is called in reports and in the line that replays it.
    pub scenario: String,
    /// When each node starts for the first time.
    pub starts: [Duration; NODES],
    pub election: &'static str,
    pub clients: u32,
    pub faults: Vec<(Duration, Fault)>,
    pub power_cut: Option<PowerCut>,
    /// When everything is healed and the clients end.
    pub ends: Duration,
}

fn plan_rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ PLAN_SALT)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Random faults under a random workload.
pub fn campaign(seed: u64, length: Duration) -> Plan {
    let mut rng = plan_rng(seed);
    let mut plan = Plan {
        seed,
        scenario: "campaign".to_owned(),
        election: ["raft", "raft", "lowest-id", "highest-id"][rng.random_range(0..4)],
        clients: 4,
        ends: length,
        ..Plan::default()
    };
    for node in 0..NODES {
        let skew = rng.random_range(-MAX_SKEW_MS..MAX_SKEW_MS);
        plan.faults.push((ms(1), Fault::Skew(Whom::Node(node), skew)));
    }
    let mut may_wipe = rng.random_bool(0.5);
    let mut at = QUIET_START;
    while at < length {
        let fault = random_fault(&mut rng, &mut may_wipe);
        plan.faults.push((at, fault));
        at += ms(rng.random_range(PAUSE_MS));
    }
    plan
}

/// A campaign on disks that begin to lie when the cluster is founded.
pub fn lying_campaign(seed: u64, length: Duration) -> Plan {
    let mut plan = campaign(seed, length);
    plan.scenario = "lying-disks".to_owned();
    plan.faults.insert(NODES, (QUIET_START, Fault::Lie(Whom::All)));
    plan
}

fn random_fault(rng: &mut SmallRng, may_wipe: &mut bool) -> Fault {
    match rng.random_range(0..100) {
        0..16 => Fault::Partition(one(rng)),
        16..26 => Fault::Mute(one(rng)),
        26..32 => Fault::Hold(one(rng)),
        32..54 => Fault::Heal,
        54..58 => Fault::Crash(Whom::All),
        58..68 => Fault::Crash(one(rng)),
        68..72 => Fault::Stop(one(rng)),
        // Once a history: two of three that lost their disks are beyond mending.
        72..76 if *may_wipe => {
            *may_wipe = false;
            Fault::Wipe(one(rng))
        }
        72..78 => Fault::Skew(one(rng), rng.random_range(-MAX_SKEW_MS..MAX_SKEW_MS)),
        _ => Fault::Restart,
    }
}

fn one(rng: &mut SmallRng) -> Whom {
    match rng.random_range(0..10) {
        0..5 => Whom::Leader,
        5..7 => Whom::Follower(rng.random_range(0..NODES)),
        _ => Whom::Node(rng.random_range(0..NODES)),
    }
}

/// The ways in which a first start is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Founding {
    /// Any order, one node up to half a minute late.
    Order,
    /// A node is killed at a random moment.
    Kill,
    /// A node is killed and its disk wiped at a random moment.
    Wipe,
    /// Crash after crash of random nodes, and one wipe among them.
    Storm,
    /// A follower of a working cluster is wiped.
    LateFollower,
    /// The leader of a working cluster is wiped.
    LateLeader,
}

impl Founding {
    pub const ALL: [Founding; 6] = [
        Founding::Order,
        Founding::Kill,
        Founding::Wipe,
        Founding::Storm,
        Founding::LateFollower,
        Founding::LateLeader,
    ];
}

/// One disturbed first start.
pub fn founding(seed: u64, kind: Founding) -> Plan {
    let mut rng = plan_rng(seed);
    let mut plan = Plan {
        seed,
        scenario: format!("founding --kind {}", kind_name(kind)),
        election: ["raft", "lowest-id", "highest-id"][rng.random_range(0..3)],
        clients: 1,
        ends: ms(12_000),
        ..Plan::default()
    };
    let spread = [1, 300, 3000][rng.random_range(0..3)];
    plan.starts = std::array::from_fn(|_| ms(rng.random_range(0..spread)));
    let someone = rng.random_range(0..NODES);
    let moment = ms(rng.random_range(0..1500 + spread));
    let down_for = ms(rng.random_range(1..3000));
    match kind {
        Founding::Order => {
            if rng.random_bool(0.5) {
                plan.starts[someone] = ms(30_000);
                plan.ends = ms(40_000);
            }
        }
        Founding::Kill => {
            plan.faults =
                vec![(moment, Fault::Crash(Whom::Node(someone))), (moment + down_for, Fault::Restart)];
            if rng.random_bool(0.5) {
                let again = moment + ms(rng.random_range(0..3000));
                plan.faults.push((again, Fault::Crash(Whom::Node(rng.random_range(0..NODES)))));
                plan.faults.push((again + down_for, Fault::Restart));
                plan.faults.sort_by_key(|(at, _)| *at);
            }
        }
        Founding::Wipe => {
            plan.faults =
                vec![(moment, Fault::Wipe(Whom::Node(someone))), (moment + down_for, Fault::Restart)];
        }
        Founding::Storm => {
            let wiped = rng.random_range(0..STORM_CRASHES);
            let mut at = Duration::ZERO;
            for crash in 0..STORM_CRASHES {
                at += ms(rng.random_range(0..600));
                let whom = Whom::Node(rng.random_range(0..NODES));
                let fault = if crash == wiped { Fault::Wipe(whom) } else { Fault::Crash(whom) };
                plan.faults.push((at, fault));
                at += ms(rng.random_range(0..200));
                plan.faults.push((at, Fault::Restart));
            }
        }
        Founding::LateFollower | Founding::LateLeader => {
            let whom = if kind == Founding::LateLeader {
                Whom::Leader
            } else {
                Whom::Follower(rng.random_range(0..2))
            };
            let moment = ms(6000) + moment;
            plan.faults = vec![(moment, Fault::Wipe(whom)), (moment + down_for, Fault::Restart)];
            plan.ends = ms(20_000);
        }
    }
    plan
}

/// A first start during which one node's power goes after exactly that many calls that
/// change its disk.
pub fn founding_power_cut(seed: u64, node: usize, after_operations: u64, wipe: bool) -> Plan {
    let mut rng = plan_rng(seed);
    let wiped = if wipe { " --wipe" } else { "" };
    Plan {
        seed,
        scenario: format!("power-cut --node {node} --after {after_operations}{wiped}"),
        starts: std::array::from_fn(|_| ms(rng.random_range(0..300))),
        election: "raft",
        clients: 1,
        power_cut: Some(PowerCut { node, after_operations, wipe, down_for: ms(rng.random_range(1..2000)) }),
        ends: ms(12_000),
        ..Plan::default()
    }
}

fn kind_name(kind: Founding) -> String {
    use clap::ValueEnum;
    kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
