//! Simulated machines with the real node on each, and what can be done to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bellwether::config::{Config, Settings};
use bellwether::env::fake_disk::{DiskStats, FakeDisk};
use bellwether::env::{Workers, World};
use clap::Parser;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use turmoil::Sim;

use crate::lab::Lab;
use crate::plan::{Fault, Plan, PowerCut, Sleep, Whom};
use crate::trace;
use crate::world::{SimClock, SimNet, sync_delay};

const PORT: u16 = 4000;
/// Small, so that a history rotates, purges and sends snapshots.
const LOG_SEGMENT_BYTES: u64 = 64 * 1024;
const SNAPSHOT_EVERY_ENTRIES: u64 = 150;
const LOG_KEEP_ENTRIES: u64 = 50;
/// What a disk still does after its crash was decided: several batches' worth.
const MAX_LAST_OPERATIONS: u64 = 24;
/// Of a machine that is started again before its power has gone.
const SHORTEST_OUTAGE: Duration = Duration::from_millis(20);
/// An idle disk does nothing; the power goes after this time all the same.
const MAX_AGONY: Duration = Duration::from_millis(300);
/// Keeps the disks' draws apart from all others made from the same seed.
const DISK_SALT: u64 = 0xd15c;

/// The simulated host of a node; also its `NODE_ID`.
pub fn host(node: usize) -> String {
    format!("n{}", node + 1)
}

pub fn authority(node: usize) -> String {
    format!("{}:{PORT}", host(node))
}

/// One machine. What survives the process is here.
struct Machine {
    disk: RefCell<FakeDisk>,
    clock: SimClock,
    /// SIGTERM for the process that runs now.
    terminate: RefCell<Arc<Notify>>,
    starts_at: Duration,
    config: Config,
    failures: Failures,
}

/// What went wrong, in words.
pub type Failures = Rc<RefCell<Vec<String>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
    /// Told to stop: it ends by itself.
    Stopping,
}

/// A machine whose power goes as soon as its disk has done what is granted to it.
#[derive(Clone, Copy)]
struct Doom {
    /// The moment at which it goes in any case.
    at_latest: Duration,
    /// The disk is lost, too.
    wipe: bool,
    /// Started again that long afterwards, rather than by the plan.
    down_for: Option<Duration>,
}

pub struct Cluster<'a> {
    pub sim: Sim<'a>,
    machines: Vec<Rc<Machine>>,
    power: Vec<Power>,
    rng: SmallRng,
    dooms: Vec<Option<Doom>>,
    /// When a node that sleeps goes on, and whether its clock went on.
    sleepers: Vec<Option<(Duration, bool)>>,
    lab: Rc<Lab>,
    restart_at: Option<Duration>,
    /// Statistics of disks that were wiped.
    lost_disks: Vec<DiskStats>,
    /// Faults that struck somebody, by kind.
    pub fired: BTreeMap<&'static str, u64>,
}

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// The settings of a real server, through its own parser.
fn config(node: usize, plan: &Plan) -> Config {
    let peers: Vec<String> = (0..plan.nodes())
        .filter(|peer| *peer != node)
        .map(|peer| format!("http://{}", authority(peer)))
        .collect();
    let settings = [
        ("node-id", host(node)),
        ("port", PORT.to_string()),
        ("peers", peers.join(",")),
        ("election", plan.election.to_owned()),
        ("log-segment-bytes", LOG_SEGMENT_BYTES.to_string()),
        ("snapshot-every-entries", SNAPSHOT_EVERY_ENTRIES.to_string()),
        ("log-keep-entries", LOG_KEEP_ENTRIES.to_string()),
    ];
    let flags = settings.iter().map(|(name, value)| format!("--{name}={value}"));
    let lab = plan.lab.then(|| "--lab".to_owned());
    let parsed = Serve::try_parse_from(std::iter::once("serve".to_owned()).chain(flags).chain(lab));
    parsed.expect("flags that the server knows").settings.validate().expect("settings that it takes")
}

impl<'a> Cluster<'a> {
    pub fn new(mut sim: Sim<'a>, plan: &Plan, failures: &Failures, lab: Rc<Lab>) -> Self {
        let nodes = plan.nodes();
        let machine = |node: usize| {
            Rc::new(Machine {
                disk: RefCell::default(),
                clock: SimClock::default(),
                terminate: RefCell::default(),
                starts_at: plan.starts[node],
                config: config(node, plan),
                failures: failures.clone(),
            })
        };
        let machines: Vec<Rc<Machine>> = (0..nodes).map(machine).collect();
        for (node, machine) in machines.iter().enumerate() {
            let machine = machine.clone();
            sim.host(host(node), move || machine.clone().run());
        }
        let mut cluster = Self {
            sim,
            machines,
            power: vec![Power::On; nodes],
            rng: SmallRng::seed_from_u64(plan.seed ^ DISK_SALT),
            dooms: vec![None; nodes],
            sleepers: vec![None; nodes],
            lab,
            restart_at: None,
            lost_disks: Vec::new(),
            fired: BTreeMap::new(),
        };
        if let Some(PowerCut { node, after_operations, wipe, down_for }) = plan.power_cut {
            let doom = Doom { at_latest: Duration::MAX, wipe, down_for: Some(down_for) };
            cluster.doom(node, after_operations, doom);
        }
        cluster
    }

    pub fn strike(&mut self, fault: Fault) {
        trace::event(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Partition(whom) => self.cut_off(whom, "partition", |sim, a, b| sim.partition(a, b)),
            Fault::Mute(whom) => self.cut_off(whom, "mute", |sim, a, b| sim.partition_oneway(a, b)),
            Fault::Hold(whom) => self.cut_off(whom, "hold", |sim, a, b| sim.hold(a, b)),
            Fault::Deaf(whom) => self.cut_off(whom, "deaf", |sim, a, b| sim.partition_oneway(b, a)),
            Fault::Cut(whom, other) => self.cut_pair(whom, other),
            Fault::Spoil(whom, spoilt) => self.each_running(whom, "spoil", |me, node| {
                me.lab.spoil(node, spoilt);
            }),
            Fault::Heal => self.heal(),
            Fault::Pause(whom, sleep) => {
                let kind = if sleep.clock_goes_on { "pause" } else { "suspend" };
                self.each_running(whom, kind, |me, node| me.pause(node, sleep));
            }
            Fault::Crash(whom) => self.each_running(whom, "crash", |me, node| me.crash_soon(node, false)),
            Fault::Wipe(whom) => self.each_running(whom, "wipe", |me, node| me.crash_soon(node, true)),
            Fault::Stop(whom) => self.each_running(whom, "stop", Self::terminate),
            Fault::Restart => self.restart(),
            Fault::Lie(whom) => self.each_running(whom, "lie", |me, node| {
                me.machines[node].disk.borrow().ignore_syncs(true);
            }),
            Fault::Skew(whom, ms) => {
                self.each_running(whom, "skew", |me, node| me.machines[node].clock.set_skew_ms(ms));
            }
        }
    }

    fn nodes(&self) -> usize {
        self.machines.len()
    }

    fn count(&mut self, kind: &'static str) {
        *self.fired.entry(kind).or_default() += 1;
    }

    fn targets(&self, whom: Whom) -> Vec<usize> {
        let leader =
            trace::leaders().last.and_then(|name| (0..self.nodes()).find(|node| host(*node) == name));
        match whom {
            Whom::Node(node) => vec![node],
            Whom::Leader => leader.into_iter().collect(),
            Whom::Follower(pick) => {
                let others: Vec<usize> = (0..self.nodes()).filter(|node| Some(*node) != leader).collect();
                vec![others[pick % others.len()]]
            }
            Whom::All => (0..self.nodes()).collect(),
        }
    }

    fn each_running(&mut self, whom: Whom, kind: &'static str, strike: impl Fn(&mut Self, usize)) {
        for node in self.targets(whom) {
            if self.power[node] != Power::Off {
                self.count(kind);
                strike(self, node);
            }
        }
    }

    fn cut_off(&mut self, whom: Whom, kind: &'static str, cut: impl Fn(&Sim<'a>, &str, &str)) {
        let struck = self.targets(whom);
        for node in &struck {
            self.count(kind);
            for other in (0..self.nodes()).filter(|other| other != node) {
                cut(&self.sim, &host(*node), &host(other));
            }
        }
    }

    /// Between two: `other` picks among those that are not struck.
    fn cut_pair(&mut self, whom: Whom, other: usize) {
        for node in self.targets(whom) {
            let others: Vec<usize> = (0..self.nodes()).filter(|other| *other != node).collect();
            self.count("cut");
            self.sim.partition(host(node), host(others[other % others.len()]));
        }
    }

    /// One that sleeps already sleeps on as it was told first.
    fn pause(&mut self, node: usize, sleep: Sleep) {
        let until = self.sim.elapsed() + Duration::from_millis(sleep.ms);
        self.sim.pause(host(node));
        self.sleepers[node].get_or_insert((until, sleep.clock_goes_on));
    }

    fn wake_if_due(&mut self) {
        for node in 0..self.nodes() {
            let Some((until, clock_went_on)) = self.sleepers[node] else { continue };
            if until <= self.sim.elapsed() {
                trace::event(|| format!("{} goes on", host(node)));
                self.sim.resume(host(node), clock_went_on);
                self.sleepers[node] = None;
            }
        }
    }

    pub fn heal(&mut self) {
        self.lab.heal();
        for node in 0..self.nodes() {
            for other in 0..node {
                self.sim.release(host(node), host(other));
                self.sim.repair(host(node), host(other));
            }
        }
        self.count("heal");
    }

    /// Between two turns of the hosts every batch is written and synced; so that the
    /// power also goes in the middle of one, the disk may do a few things more.
    fn crash_soon(&mut self, node: usize, wipe: bool) {
        let operations = self.rng.random_range(0..MAX_LAST_OPERATIONS);
        let at_latest = self.sim.elapsed() + MAX_AGONY;
        match operations {
            0 => self.crash(node, wipe),
            _ => self.doom(node, operations, Doom { at_latest, wipe, down_for: None }),
        }
    }

    fn doom(&mut self, node: usize, operations: u64, doom: Doom) {
        self.machines[node].disk.borrow().stop_after(operations);
        self.dooms[node] = Some(doom);
    }

    /// The disk first: nothing may be written while the process is dropped.
    fn crash(&mut self, node: usize, wipe: bool) {
        let machine = self.machines[node].clone();
        machine.disk.borrow().crash(&mut self.rng);
        self.sim.crash(host(node));
        self.sleepers[node] = None;
        self.power[node] = Power::Off;
        if wipe {
            let lost = machine.disk.replace(FakeDisk::new());
            self.lost_disks.push(lost.stats());
        }
    }

    fn terminate(&mut self, node: usize) {
        self.machines[node].terminate.borrow().notify_one();
        self.power[node] = Power::Stopping;
    }

    /// Starts what is down, and what has ended because it was told to.
    pub fn restart(&mut self) {
        for node in 0..self.nodes() {
            if let Some(doom) = &mut self.dooms[node] {
                // Its crash was decided earlier than this.
                doom.down_for.get_or_insert(SHORTEST_OUTAGE);
            }
            let ended = self.power[node] == Power::Stopping && !self.sim.is_host_running(host(node));
            if ended || self.power[node] == Power::Off {
                trace::event(|| format!("restart {}", host(node)));
                self.count("restart");
                self.sim.bounce(host(node));
                self.power[node] = Power::On;
            }
        }
    }

    /// Lets a millisecond pass; true when all clients have ended.
    pub fn step(&mut self) -> Result<bool, String> {
        let ended = self.sim.step().map_err(|error| error.to_string())?;
        self.cut_power_if_due();
        self.wake_if_due();
        if self.restart_at.is_some_and(|at| at <= self.sim.elapsed()) {
            self.restart_at = None;
            self.restart();
        }
        Ok(ended)
    }

    fn cut_power_if_due(&mut self) {
        let now = self.sim.elapsed();
        for node in 0..self.nodes() {
            let Some(doom) = self.dooms[node] else { continue };
            let stopped = self.machines[node].disk.borrow().stopped();
            if stopped || doom.at_latest <= now {
                trace::event(|| format!("the power of {} goes", host(node)));
                self.count(if stopped { "power cut at a step" } else { "power cut between steps" });
                self.dooms[node] = None;
                self.crash(node, doom.wipe);
                self.restart_at = doom.down_for.map(|down_for| now + down_for).or(self.restart_at);
            }
        }
    }

    /// Over all disks, those that were wiped included.
    pub fn disk_stats(&self) -> DiskStats {
        let disks = self.machines.iter().map(|machine| machine.disk.borrow().stats());
        disks.chain(self.lost_disks.iter().copied()).fold(DiskStats::default(), |sum, disk| DiskStats {
            operations: sum.operations + disk.operations,
            writes: sum.writes + disk.writes,
            written_bytes: sum.written_bytes + disk.written_bytes,
            syncs: sum.syncs + disk.syncs,
            crashes: sum.crashes + disk.crashes,
            lost_writes: sum.lost_writes + disk.lost_writes,
            torn_writes: sum.torn_writes + disk.torn_writes,
            refused: sum.refused + disk.refused,
        })
    }
}

impl Machine {
    /// One process of this machine, from start to end.
    async fn run(self: Rc<Self>) -> turmoil::Result {
        let asleep = self.starts_at.saturating_sub(turmoil::sim_elapsed().unwrap_or_default());
        tokio::time::sleep(asleep).await;
        let terminate = Arc::new(Notify::new());
        self.terminate.replace(terminate.clone());
        let disk = self.disk.borrow().clone();
        let world = World {
            net: Arc::new(SimNet),
            disk: Arc::new(disk.clone()),
            clock: Arc::new(self.clock.clone()),
            workers: Workers::Tasks { delay: sync_delay },
        };
        let ended = bellwether::serve::run_in(self.config.clone(), world, terminate.notified()).await;
        let Err(why) = ended else {
            trace::event(|| "the node stopped".to_owned());
            return Ok(());
        };
        trace::event(|| format!("the node ended: {why:#}"));
        // Once the power is gone, what the process says does not count.
        if !disk.stopped() {
            self.failures.borrow_mut().push(format!("{} ended: {why:#}", self.config.name));
        }
        std::future::pending().await
    }
}
