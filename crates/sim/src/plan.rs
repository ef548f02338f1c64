//! What is done to a cluster, and when: a pure function of the seed, drawn up before the
//! history begins.

use std::time::Duration;

use bellwether::env::planted::Bug;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The founding is cut at its steps on this many nodes; other plans draw the number.
pub const NODES: usize = 3;
/// Of how many nodes a cluster is.
const SIZES: [usize; 3] = [3, 3, 5];

/// Keeps the plan's draws apart from all others made from the same seed.
const PLAN_SALT: u64 = 0x000f_a017;
/// A campaign's cluster is left alone this long: founding has plans of its own.
const QUIET_START: Duration = Duration::from_millis(2500);
/// What clients let a server try: an election, and a little more.
const PATIENCE: Duration = Duration::from_millis(1500);
/// From the last healing to a whole cluster. A wiped node is filled and promoted in
/// here; everything else needs a second or two.
const SETTLING: Duration = Duration::from_secs(60);
/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 150..2500;
/// Enough for the founding to be struck at several of its steps.
const STORM_CRASHES: usize = 8;
/// A node sleeps for so long: some elections' worth, or less than one.
const SLEEP_MS: std::ops::Range<u64> = 50..4000;
/// Chances of a message on a spoilt link, in percent.
const MAX_SPOILT_PERCENT: u8 = 30;
/// How much later entries may come over it.
const MAX_SPOILT_DELAY_MS: u64 = 150;
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
    /// No message between them and one other node, which the number picks: a partial cut,
    /// for both see the rest.
    Cut(Whom, usize),
    /// What they send is lost; what they are sent arrives.
    Mute(Whom),
    /// What they are sent is lost; what they send arrives.
    Deaf(Whom),
    /// Messages to and from them wait until [`Fault::Heal`].
    Hold(Whom),
    /// Single messages between them and all others are lost, doubled, late or overtaken.
    Spoil(Whom, Spoilt),
    Heal,
    /// It is given no turn for a while; messages to it wait.
    Pause(Whom, Sleep),
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

/// What befalls the messages of a spoilt link, in percent and milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoilt {
    pub loss: u8,
    pub duplicate: u8,
    pub reorder: u8,
    pub delay_ms: u64,
}

/// How a node sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    pub ms: u64,
    /// SIGSTOP; otherwise its clock stands still as well, as when a virtual machine is
    /// suspended.
    pub clock_goes_on: bool,
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
    pub starts: Vec<Duration>,
    pub election: &'static str,
    pub clients: u32,
    /// How long clients let a server try.
    pub deadline: Duration,
    /// The nodes can be given a spoilt network.
    pub lab: bool,
    /// A bug that all nodes have.
    pub bug: Option<Bug>,
    /// Whatever strikes, some write must be acknowledged between this moment and the end.
    pub serves_from: Option<Duration>,
    pub faults: Vec<(Duration, Fault)>,
    pub power_cut: Option<PowerCut>,
    /// When everything is healed and the clients end.
    pub ends: Duration,
    /// Then the cluster must be whole within this time.
    pub settling: Duration,
    /// Real time that is wasted in each simulated millisecond: a slower machine, on which
    /// the history must be the same.
    pub waste: Duration,
}

impl Plan {
    pub fn nodes(&self) -> usize {
        self.starts.len()
    }
}

pub(crate) fn plan_rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ PLAN_SALT)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Random faults under a random workload.
pub fn campaign(seed: u64, length: Duration) -> Plan {
    let mut rng = plan_rng(seed);
    let nodes = SIZES[rng.random_range(0..SIZES.len())];
    let mut plan = Plan {
        seed,
        scenario: "campaign".to_owned(),
        starts: vec![Duration::ZERO; nodes],
        lab: rng.random_bool(0.5),
        election: ["raft", "raft", "lowest-id", "highest-id"][rng.random_range(0..4)],
        clients: 4,
        deadline: PATIENCE,
        settling: SETTLING,
        ends: length,
        ..Plan::default()
    };
    for node in 0..nodes {
        let skew = rng.random_range(-MAX_SKEW_MS..MAX_SKEW_MS);
        plan.faults.push((ms(1), Fault::Skew(Whom::Node(node), skew)));
    }
    let mut may_wipe = rng.random_bool(0.5);
    let mut at = QUIET_START;
    while at < length {
        let fault = random_fault(&mut rng, nodes, plan.lab, &mut may_wipe);
        plan.faults.push((at, fault));
        at += ms(rng.random_range(PAUSE_MS));
    }
    plan
}

/// A campaign on disks that begin to lie when the cluster is founded.
pub fn lying_campaign(seed: u64, length: Duration) -> Plan {
    let mut plan = campaign(seed, length);
    plan.scenario = "lying-disks".to_owned();
    plan.faults.insert(plan.nodes(), (QUIET_START, Fault::Lie(Whom::All)));
    plan
}

fn random_fault(rng: &mut SmallRng, nodes: usize, lab: bool, may_wipe: &mut bool) -> Fault {
    let whom = one(rng, nodes);
    match rng.random_range(0..110) {
        0..10 => Fault::Partition(whom),
        10..16 => Fault::Cut(whom, rng.random_range(0..nodes)),
        16..22 => Fault::Mute(whom),
        22..28 => Fault::Deaf(whom),
        28..34 => Fault::Hold(whom),
        34..40 if lab => Fault::Spoil(whom, spoilt(rng)),
        34..56 => Fault::Heal,
        56..66 => Fault::Pause(whom, sleep(rng)),
        66..70 => Fault::Crash(Whom::All),
        70..79 => Fault::Crash(whom),
        79..83 => Fault::Stop(whom),
        // Once a history: two of three that lost their disks are beyond mending.
        83..87 if *may_wipe => {
            *may_wipe = false;
            Fault::Wipe(whom)
        }
        83..88 => Fault::Skew(whom, rng.random_range(-MAX_SKEW_MS..MAX_SKEW_MS)),
        _ => Fault::Restart,
    }
}

fn spoilt(rng: &mut SmallRng) -> Spoilt {
    Spoilt {
        loss: rng.random_range(0..MAX_SPOILT_PERCENT),
        duplicate: rng.random_range(0..MAX_SPOILT_PERCENT),
        reorder: rng.random_range(0..MAX_SPOILT_PERCENT),
        delay_ms: rng.random_range(0..MAX_SPOILT_DELAY_MS),
    }
}

fn sleep(rng: &mut SmallRng) -> Sleep {
    Sleep { ms: rng.random_range(SLEEP_MS), clock_goes_on: rng.random_bool(0.5) }
}

fn one(rng: &mut SmallRng, nodes: usize) -> Whom {
    match rng.random_range(0..10) {
        0..5 => Whom::Leader,
        5..7 => Whom::Follower(rng.random_range(0..nodes)),
        _ => Whom::Node(rng.random_range(0..nodes)),
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
        deadline: PATIENCE,
        settling: SETTLING,
        ends: ms(12_000),
        ..Plan::default()
    };
    let spread = [1, 300, 3000][rng.random_range(0..3)];
    let nodes = SIZES[rng.random_range(0..SIZES.len())];
    plan.starts = (0..nodes).map(|_| ms(rng.random_range(0..spread))).collect();
    let someone = rng.random_range(0..nodes);
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
                plan.faults.push((again, Fault::Crash(Whom::Node(rng.random_range(0..nodes)))));
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
                let whom = Whom::Node(rng.random_range(0..nodes));
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
        starts: (0..NODES).map(|_| ms(rng.random_range(0..300))).collect(),
        election: "raft",
        clients: 1,
        deadline: PATIENCE,
        settling: SETTLING,
        power_cut: Some(PowerCut { node, after_operations, wipe, down_for: ms(rng.random_range(1..2000)) }),
        ends: ms(12_000),
        ..Plan::default()
    }
}

fn kind_name(kind: Founding) -> String {
    use clap::ValueEnum;
    kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
