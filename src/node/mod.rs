//! The only door to a node: write, read, look, and the life of the node itself.
//!
//! # The life of a PUT
//!
//! 1. `api/http/key.rs` parses the request and calls [`Node::write`].
//! 2. `node/write.rs` checks role, limits and deadline, and queues the command; one task
//!    gathers what waits into one batch and encodes it once.
//! 3. `consensus` proposes the batch; openraft appends it to the log and streams it to
//!    the followers (`consensus/network/client.rs`, `server.rs`).
//! 4. `storage/log` writes and syncs it, here and there, each with one fdatasync for
//!    everything that waited.
//! 5. When a majority has it, `consensus/state_machine.rs` applies it.
//! 6. `storage/mvcc` records the revision; readers see it from now on.
//! 7. `node/write.rs` gives each command its own reply; `api` maps it.
//!
//! # The life of a node
//!
//! [`Node::open`] reads the directory; [`Node::run`] finds or founds the cluster
//! (`bootstrap`), starts consensus, and returns only when the node must end; in between
//! [`Node::drain`] hands over before a stop. A node is one restartable function of its
//! configuration and its `World`: no statics, no process-wide state.

mod batch;
pub mod bootstrap;
mod drain;
mod forward;
mod hello;
mod history;
mod identity;
mod leaderless;
mod leases;
mod narrate;
mod patience;
pub mod peer_service;
mod read;
mod rejoin;
mod runs;
mod state_check;
mod status;
mod waiting;
pub mod watch;
mod wire;
mod write;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::consensus::{Consensus, Options, election};
use crate::env::World;
use crate::env::failing_disk::{DiskFaults, FailingDisk};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::storage::log::{Log, LogOptions};
use crate::storage::mvcc::{KeysHash, ReadError, Store};
use crate::types::{ClusterId, ElectionPolicy, LogId, MemberId, Revision, Term};

use self::bootstrap::decide::Acquaintance;
use self::identity::{Identity, Membership};
use self::runs::Runs;

pub use self::state_check::Alarm;
pub use self::status::{MemberStatus, Standing, Status};
pub use self::write::{WriteRequest, Written};

pub use crate::consensus::network::faults;

/// Entries kept in memory for apply and replication.
const LOG_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// How often the disk is looked after.
const DISK_CHECK: Duration = Duration::from_secs(1);
/// How often its room is asked for: what is written meanwhile, log and table together,
/// must fit into the reserve.
const ROOM_CHECK: Duration = Duration::from_millis(100);

/// Why a node ended by itself.
#[derive(Debug)]
pub enum Exit {
    /// It cannot go on; the text says why and how to mend it.
    Failed(String),
    /// Its founding set was given up: start it again, with what the directory now says.
    StartAfresh,
}

impl Exit {
    fn failed(error: impl std::fmt::Display) -> Self {
        Exit::Failed(error.to_string())
    }
}

/// A running node; clones share it.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    config: Config,
    world: World,
    metrics: Arc<Metrics>,
    identity: Mutex<Identity>,
    log: Log,
    store: Store,
    runs: Runs,
    checks: state_check::Checks,
    watching: watch::Hub,
    leaderless: leaderless::Leaderless,
    /// Whom this node found behind its peer URLs.
    acquaintances: Mutex<Vec<Acquaintance>>,
    phase: RwLock<Phase>,
    draining: AtomicBool,
    /// The disk is nearly full: growth is refused.
    disk_low: AtomicBool,
    faults: faults::Faults,
    disk_faults: DiskFaults,
    /// What ended this node, once something has.
    failure: Mutex<Option<String>>,
}

enum Phase {
    /// No cluster yet; the text says what is waited for.
    Founding(String),
    Running(Arc<Running>),
}

/// What exists once the node is a member of a cluster.
pub(crate) struct Running {
    consensus: Consensus,
    cluster: ClusterId,
    writes: write::WriteQueue,
    reads: read::ReadIndexes,
    clocks: batch::Clocks,
    /// Everything applied before the last stop is applied again.
    recovered: AtomicBool,
    /// When local reads stop waiting for that.
    recovery_deadline: tokio::time::Instant,
    rejoining: rejoin::Guard,
}

impl Node {
    /// Reads the directory: identity, log and store. Starts nothing.
    pub fn open(config: Config, mut world: World) -> io::Result<Self> {
        let disk_faults = DiskFaults::default();
        if config.lab {
            world.disk = Arc::new(FailingDisk::new(world.disk, disk_faults.clone()));
        }
        let disk = world.disk.clone();
        let identity = Identity::load(disk.as_ref(), &config.name)?;
        let metrics = Arc::new(Metrics::default());
        if identity.begun().is_none() {
            // A seed that was never begun, or a set that was given up: nothing was done
            // under it.
            forget_log_and_store(&world)?;
        }
        let options = LogOptions {
            segment_bytes: config.log_segment_bytes,
            cache_bytes: LOG_CACHE_BYTES,
            reserve_bytes: config.min_free_bytes,
        };
        // Either reads all that it has, and neither needs the other for it.
        let (log, store) = world.workers.both(
            "log-open",
            || Log::open(disk.clone(), &world.workers, options, metrics.clone()),
            || Store::open(disk.clone(), &world.workers, config.read_cache_bytes, metrics.clone()),
        )?;
        let (log, store) = (log?, store?);
        if identity.begun().is_some() && log.last_id().is_none() && log.vote().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this data directory belongs to a cluster, but its log is gone: a node must not vote from a memory it lost. Empty the whole directory; the node then comes back by itself as a learner",
            ));
        }
        let faults = match config.lab || !config.replication_delay.is_zero() {
            true => faults::Faults::possible(config.replication_delay),
            false => faults::Faults::default(),
        };
        let checks = state_check::Checks::new(config.hash_check_interval, identity.alarm.clone());
        let watching = watch::Hub::new(store.clone(), metrics.clone(), watch::limits::Limits::default());
        let shared = Shared {
            faults,
            watching,
            leaderless: leaderless::Leaderless::default(),
            disk_faults,
            checks,
            config,
            world,
            metrics,
            identity: Mutex::new(identity),
            log,
            store,
            runs: Runs::load(disk)?,
            acquaintances: Mutex::default(),
            phase: RwLock::new(Phase::Founding("starting".to_owned())),
            draining: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs until something ends the node. Everything it started ends with it.
    pub async fn run(&self) -> Exit {
        let mut tasks = JoinSet::new();
        let exit = match self.shared.clone().join_cluster(&mut tasks).await {
            Ok(running) => self.shared.watch(&running).await,
            Err(exit) => exit,
        };
        if let Exit::Failed(why) = &exit {
            *self.shared.failure.lock() = Some(why.clone());
        }
        tasks.shutdown().await;
        self.stop().await;
        exit
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// A hash over the whole state at an applied entry, equal on every replica there.
    pub async fn state_hash(&self) -> Result<(Option<LogId>, [u8; 32])> {
        let store = self.shared.store.clone();
        let hashed = self.shared.world.workers.run("state-hash", move || store.state_hash()).await;
        hashed.and_then(|hashed| hashed).map_err(|error| Error::Failed { why: error.to_string() })
    }

    /// A hash over keys and history up to a revision, equal on every replica.
    pub async fn hash_of_keys(
        &self,
        at: Option<Revision>,
    ) -> Result<std::result::Result<KeysHash, ReadError>> {
        let store = self.shared.store.clone();
        let hashed = self.shared.world.workers.run("keys-hash", move || store.hash_of_keys(at)).await;
        hashed.map_err(|error| Error::Failed { why: error.to_string() })
    }

    /// The disk has less room left than the reserve: what grows the store is refused.
    pub fn disk_is_low(&self) -> bool {
        self.shared.disk_low.load(Ordering::Relaxed)
    }

    /// Bytes that the log takes on disk.
    pub fn log_disk_bytes(&self) -> u64 {
        self.shared.log.disk_bytes()
    }

    /// Why this node serves nobody, when its state is known to differ from the others'.
    pub fn alarm(&self) -> Option<Alarm> {
        self.shared.checks.alarm()
    }

    /// How the network between this node and others may be spoilt.
    pub fn faults(&self) -> &faults::Faults {
        &self.shared.faults
    }

    /// How this node's disk may be made to fail; without `--lab` it cannot.
    pub fn disk_faults(&self) -> &DiskFaults {
        &self.shared.disk_faults
    }

    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The cluster, and who this node is in it; `None` before it has one.
    pub fn ids(&self) -> Option<(ClusterId, MemberId)> {
        self.shared.running().map(|running| (running.cluster, running.me()))
    }

    /// The newest term that this node has seen; 0 before it has a cluster.
    pub fn term(&self) -> Term {
        self.shared.running().map_or(0, |running| running.consensus.term())
    }

    /// Role, term and leader alone: cheap enough for every reply.
    pub fn standing(&self) -> Standing {
        self.shared.standing()
    }

    /// Stops consensus after [`Node::drain`]; what is applied goes to disk, and what makes the
    /// next start short.
    pub async fn stop(&self) {
        let Some(running) = self.shared.running() else { return };
        running.consensus.shutdown().await;
        if let Err(error) = self.shared.store.checkpoint().await {
            tracing::warn!(%error, "no checkpoint of the index; the next start takes longer");
        }
    }

    /// Health of the process itself: an error says what failed.
    pub fn alive(&self) -> Result<()> {
        match self.shared.failure.lock().clone() {
            Some(why) => Err(Error::Failed { why }),
            None => Ok(()),
        }
    }
}

/// Removes what a founding set that never began has left.
fn forget_log_and_store(world: &World) -> io::Result<()> {
    for dir in ["log", ""] {
        for name in world.disk.list(dir)? {
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            if dir == "log" || name.starts_with("state.") {
                world.disk.remove(&path)?;
            }
        }
    }
    if !world.disk.list("log")?.is_empty() {
        world.disk.sync_dir("log")?;
    }
    world.disk.sync_dir("")
}

impl Shared {
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        match &*self.phase.read() {
            Phase::Running(running) => Some(running.clone()),
            Phase::Founding(_) => None,
        }
    }

    /// The running part, or the error that a client gets instead.
    pub(crate) fn require_running(&self) -> Result<Arc<Running>> {
        match &*self.phase.read() {
            Phase::Running(running) => Ok(running.clone()),
            Phase::Founding(why) => Err(Error::NotReady { why: why.clone() }),
        }
    }

    fn set_waiting(&self, why: String) {
        *self.phase.write() = Phase::Founding(why);
    }

    /// The address of this node as itself knows it.
    fn own_url(&self) -> String {
        if let Some(url) = &self.config.advertise_url {
            return url.clone();
        }
        let host = match self.config.listen.as_str() {
            "0.0.0.0" | "::" => "127.0.0.1",
            host => host,
        };
        format!("http://{host}:{}", self.config.port)
    }

    /// Finds or founds the cluster, then starts the engine and the tasks around it.
    async fn join_cluster(
        self: Arc<Self>,
        tasks: &mut JoinSet<()>,
    ) -> std::result::Result<Arc<Running>, Exit> {
        let (cluster, me) = bootstrap::run::find_cluster(&self).await?;
        let config = &self.config;
        let options = Options {
            cluster,
            me,
            run: self.identity.lock().run,
            heartbeat: config.heartbeat,
            election_timeout: config.election_timeout,
            engine_elects: config.election == ElectionPolicy::Raft,
            early_election: config.early_election,
            snapshot_every: config.snapshot_every_entries,
            log_keep: config.log_keep_entries,
        };
        let started =
            Consensus::start(options, &self.world, self.log.clone(), self.store.clone(), self.faults.clone());
        let started = started.await;
        let (consensus, refusals) = started.map_err(Exit::failed)?;
        let lease = leases::LeaseClock::new(consensus.clone(), self.store.clone());
        let clocks = batch::Clocks { wall: self.world.clock.clone(), lease: lease.clone() };
        let (writes, batcher) = write::WriteQueue::new(consensus.clone(), clocks.clone());
        let (reads, confirmer) = read::ReadIndexes::new(consensus.clone(), lease);
        let running = Arc::new(Running {
            cluster,
            writes,
            reads,
            clocks,
            recovered: AtomicBool::new(false),
            recovery_deadline: tokio::time::Instant::now() + read::RECOVERY_WAIT,
            rejoining: rejoin::Guard::default(),
            consensus,
        });
        if let Some(alarm) = self.checks.alarm() {
            tracing::error!("ALARM, from before the start: {alarm}");
            running.consensus.set_unsound(true);
        }
        if !config.hash_check_interval.is_zero() {
            let marks = self.store.follow_marks();
            tasks.spawn(state_check::compare(self.clone(), running.clone(), marks));
        }
        tasks.spawn(state_check::propose_marks(self.clone(), running.clone()));
        tasks.spawn(state_check::give_way(self.clone(), running.clone()));
        tasks.spawn(history::compact(self.clone(), running.clone()));
        tasks.spawn(batcher);
        tasks.spawn(confirmer);
        tasks.spawn(leases::look_after(self.clone(), running.clone()));
        tasks.spawn(election::drive(running.consensus.clone(), config.election, self.metrics.clone()));
        tasks.spawn(narrate::narrate(running.consensus.clone(), config.election));
        tasks.spawn(self.clone().feed_watchers(running.clone()));
        tasks.spawn(self.clone().look_for_leader());
        tasks.spawn(recover(running.clone()));
        tasks.spawn(rejoin::stay_a_voter(self.clone(), running.clone()));
        tasks.spawn(rejoin::finish_half_done_changes(running.clone()));
        tasks.spawn(self.clone().look_after_disk());
        tasks.spawn(self.clone().watch_the_room());
        tasks.spawn(peer_service::watch_refusals(self.clone(), refusals));
        *self.phase.write() = Phase::Running(running.clone());
        Ok(running)
    }

    /// Returns when the node must end.
    async fn watch(&self, running: &Running) -> Exit {
        tokio::select! { biased;
            why = running.consensus.stopped() => Exit::Failed(format!("this node stopped: {why}")),
            exit = bootstrap::run::watch_over(self) => exit,
            why = self.failed() => Exit::Failed(why),
        }
    }

    /// Returns with the reason once some part of the node has reported a failure.
    async fn failed(&self) -> String {
        let mut ticks = tokio::time::interval(DISK_CHECK / 5);
        loop {
            ticks.tick().await;
            if let Some(why) = self.failure.lock().clone() {
                return why;
            }
        }
    }

    /// What must happen now and then: the log's size, and the last entries' way into the
    /// table when nothing is written any more.
    async fn look_after_disk(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(DISK_CHECK);
        loop {
            ticks.tick().await;
            if let Some(running) = self.running() {
                running.consensus.tell_durable();
                let most = self.config.log_max_bytes.max(3 * self.config.log_segment_bytes);
                if self.log.disk_bytes() > most {
                    running.consensus.trim_log().await;
                }
            }
        }
    }

    async fn feed_watchers(self: Arc<Self>, running: Arc<Running>) {
        let applied = running.consensus.watch_applied();
        self.watching.feed(applied, || self.checks.alarm().is_none()).await;
    }

    async fn watch_the_room(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(ROOM_CHECK);
        loop {
            ticks.tick().await;
            let low = self.world.disk.free_bytes().is_some_and(|free| free < self.config.min_free_bytes);
            if low != self.disk_low.swap(low, Ordering::Relaxed) {
                match low {
                    true => tracing::error!(
                        "the disk is nearly full: refusing writes that grow the store. Free some space"
                    ),
                    false => tracing::info!("the disk has room again"),
                }
            }
        }
    }
}

/// Notes when everything applied before the last stop is applied again.
async fn recover(running: Arc<Running>) {
    running.consensus.recovered().await;
    running.recovered.store(true, Ordering::Relaxed);
}

impl Running {
    fn me(&self) -> MemberId {
        self.consensus.me()
    }
}

impl Membership {
    fn rejoined(&self) -> bool {
        matches!(self, Membership::Begun { origin: identity::Origin::Rejoined, .. })
    }
}
