//! Replication and leadership: openraft, wrapped so that nothing outside names it.
//!
//! [`Consensus`] is the handle: propose a batch, confirm leadership for a read, look at
//! the [`view::View`], change the membership, hand over. Underneath, `log_store` and
//! `state_machine` adapt our storage, `network` carries the messages, `election`
//! decides who campaigns when. The engine alone decides votes and commits.
//!
//! Left to others: batching writes, deadlines, who may join (`node`); bytes on disk
//! (`storage`).

mod conformance;
mod detector;
pub mod election;
mod heard;
mod log_store;
pub mod network;
mod read_index;
mod runtime;
pub mod standing;
mod state_machine;
pub mod types;
pub mod view;
mod voice;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::{ChangeMembers, Instant as _, ServerState, SnapshotPolicy};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::env::{Workers, World};
use crate::proto::log as log_pb;
use crate::proto::peer::Run;
use crate::storage::log::{Entry, EntryKind, Log};
use crate::storage::mvcc::{Reply, Store};
use crate::types::{ClusterId, LogId, LogIndex, MemberId, MemberName, Role, Term};

use self::detector::Detector;
use self::heard::Heard;
use self::log_store::LogStore;
use self::network::client::NetworkFactory;
use self::network::faults::Faults;
use self::network::pool::{Peer, PeerPool, PeerRefusal};
use self::network::server::RaftServer;
pub use self::read_index::ConfirmError;
use self::standing::{Facts, Standing};
use self::state_machine::StateMachine;
use self::types::{
    Batch, Member, PersistedSlot, Raft, RaftMembership, RaftMetrics, TypeConfig, encode_membership,
    from_raft_id, from_raft_vote,
};
use self::view::{Glance, MemberView, View};
use self::voice::Rhythm;

/// Under which name the engine logs.
pub const ENGINE_LOG_TARGET: &str = "openraft";

/// Entries in one replication message at most; bytes are bounded as well.
const MAX_ENTRIES_PER_MESSAGE: u64 = 512;
/// How soon an unreachable follower is tried again: it decides how soon a node that
/// returns is heard.
const BACKOFF: &str = "20ms 50ms 100ms ...200ms";
/// Entries handed to apply in one go.
const STATE_MACHINE_QUEUE: u64 = 1024;

/// What the engine needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    pub cluster: ClusterId,
    pub me: MemberId,
    pub run: Run,
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    /// The engine campaigns by itself (`ELECTION=raft`).
    pub engine_elects: bool,
    /// A leader whose process has ended is not waited for.
    pub early_election: bool,
    pub snapshot_every: u64,
    pub log_keep: u64,
}

impl Options {
    /// How long a leader's word, or a quorum's, counts.
    pub fn lease(&self) -> Duration {
        self.election_timeout
    }

    /// A leader that no quorum has acknowledged for so long stops calling itself one. The
    /// engine's own candidates wait at least as long, where nobody took it for ended.
    fn patience(&self) -> Duration {
        self.lease() + self.shortest_extra()
    }

    /// The shortest random wait after the lease. A wide spread keeps two candidates from
    /// splitting the votes; the engine wants it above the heartbeat.
    fn shortest_extra(&self) -> Duration {
        (self.election_timeout * 3 / 10).max(self.heartbeat + Duration::from_millis(1))
    }

    /// When a leader without a quorum falls silent. Followers give up after the lease and
    /// the longest random wait, which is another lease; the votes have as long again.
    fn rhythm(&self) -> Rhythm {
        Rhythm { patience: self.patience(), silence: self.lease() * 3, question: self.heartbeat * 2 }
    }

    fn engine_config(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let ms = |duration: Duration| duration.as_millis() as u64;
        // Heartbeats that replication makes redundant are left out, where the election
        // timeout has room for the longer gap.
        let room = ms(self.shortest_extra()) > 2 * ms(self.heartbeat) + ms(self.heartbeat) / 4 + 1;
        openraft::Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: ms(self.heartbeat),
            heartbeat_min_interval: room.then(|| ms(self.heartbeat)),
            election_timeout_min: ms(self.shortest_extra()),
            election_timeout_max: ms(self.lease()),
            enable_elect: self.engine_elects,
            enable_pre_vote: Some(true),
            // A restarted leader must not resume its term with a shorter log: it loses
            // acknowledged writes (docs/adr/0001).
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.log_keep,
            // Lagging by more than this asks for a snapshot: above what is always kept.
            replication_lag_threshold: self.snapshot_every + self.log_keep + 1,
            purge_batch_size: 64,
            max_payload_entries: MAX_ENTRIES_PER_MESSAGE,
            state_machine_channel_size: Some(STATE_MACHINE_QUEUE),
            // Followers hear of a batch before our own disk has it. The engine warns that this
            // makes its batches smaller; ours are made before they reach it.
            broadcast_submitted_on_append: Some(true),
            backoff: BACKOFF.to_owned(),
            ..Default::default()
        }
        .validate()
    }
}

/// Why a proposal was not answered with replies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was changed: the engine does not lead, or no longer may.
    #[error("not the leader")]
    NotLeader,
    /// It may have been committed, or may yet be.
    #[error("{0}")]
    Unknown(String),
    /// The engine has stopped.
    #[error("{0}")]
    Stopped(String),
}

/// The engine's answer to a proposal, on its way.
type Answer = openraft::alias::OneshotReceiverOf<TypeConfig, openraft::raft::ClientWriteResult<TypeConfig>>;

/// A proposal in the engine's hands.
pub struct Proposal(Answer);

impl Proposal {
    /// Committed and applied: where, and what each command did.
    pub async fn outcome(self) -> Result<(LogId, Vec<Reply>), ProposeError> {
        match self.0.await {
            Ok(Ok(response)) => Ok((from_raft_id(response.log_id), response.data)),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
            // A discarded entry may have been committed by the next leader.
            Ok(Err(error)) => Err(ProposeError::Unknown(error.to_string())),
            Err(_) => Err(ProposeError::Unknown("the node stopped before it answered".to_owned())),
        }
    }
}

/// A running engine; clones share it.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    machine: StateMachine,
    pool: PeerPool,
    heard: Heard,
    detector: Arc<Detector>,
    log: Log,
    store: Store,
    workers: Workers,
    options: Options,
    started: Instant,
    draining: Arc<AtomicBool>,
}

/// Makes entry 0 of an empty log: the founding membership. Every founder writes the same
/// one, so none of them has to propose it.
pub async fn seed(log: &Log, founders: &BTreeMap<MemberId, Member>) -> io::Result<()> {
    let voters: BTreeSet<u64> = founders.keys().map(|id| id.0).collect();
    let nodes: BTreeMap<u64, Member> = founders.iter().map(|(id, member)| (id.0, member.clone())).collect();
    let membership = RaftMembership::new(vec![voters], nodes).map_err(io::Error::other)?;
    let payload = Bytes::from(encode_membership(&membership).encode_to_vec());
    let entry = Entry { id: LogId { term: 0, index: 0 }, kind: EntryKind::Membership, payload };
    let (flushed, done) = oneshot::channel();
    log.append(vec![entry], Box::new(move |result| drop(flushed.send(result))))?;
    done.await.map_err(io::Error::other)?
}

/// Sends to a member again as soon as it answers anything. The engine would wait for as long
/// as it does between two tries at one that is gone, and once more after the first success.
async fn resume(raft: Raft, mut returned: mpsc::UnboundedReceiver<MemberId>) {
    while let Some(member) = returned.recv().await {
        if raft.trigger().reset_backoff([member.0]).await.is_err() {
            return;
        }
    }
}

impl Consensus {
    /// Starts the engine on what the log and the store hold.
    pub async fn start(
        options: Options,
        world: &World,
        log: Log,
        store: Store,
        faults: Faults,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<PeerRefusal>)> {
        let config = options.engine_config().map_err(io::Error::other)?;
        let (pool, news) = PeerPool::new(world.net.clone(), options.cluster, options.me, options.run, faults);
        let machine = StateMachine::new(store.clone(), log.clone());
        let network = NetworkFactory::new(pool.clone());
        let log_store = LogStore::new(log.clone());
        let raft = Raft::new(options.me.0, Arc::new(config), network, log_store, machine.clone())
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(resume(raft.clone(), news.returned));
        let heard = Heard::default();
        let detector = Detector::new(raft.clone(), heard.clone(), pool.clone(), options.clone());
        let inner = Inner {
            raft,
            machine,
            pool,
            heard,
            detector,
            log,
            store,
            workers: world.workers.clone(),
            options,
            started: Instant::now(),
            draining: Arc::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, news.refusals))
    }

    pub fn me(&self) -> MemberId {
        self.inner.options.me
    }

    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The engine's ears, for the peer service.
    pub fn server(&self) -> RaftServer {
        let Inner { raft, store, workers, heard, detector, options, draining, pool, .. } = &*self.inner;
        RaftServer {
            raft: raft.clone(),
            store: store.clone(),
            workers: workers.clone(),
            heard: heard.clone(),
            detector: detector.clone(),
            me: options.me,
            draining: draining.clone(),
            voice: pool.voice().clone(),
        }
    }

    pub fn pool(&self) -> &PeerPool {
        &self.inner.pool
    }

    /// From now on this node tells its peers that it is about to stop.
    pub fn announce_draining(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// This node's state is not sound, or is again: it asks for no votes, takes no
    /// leadership and fills nobody. Its log is sound: it votes and acknowledges.
    pub fn set_unsound(&self, unsound: bool) {
        self.inner.pool.voice().set_unsound(unsound);
        self.inner.raft.runtime_config().elect(self.inner.options.engine_elects && !unsound);
    }

    pub fn is_unsound(&self) -> bool {
        self.inner.pool.voice().is_unsound()
    }

    // ---- writes and reads

    /// Hands a batch to the engine; it is *unknown* from here on until answered.
    pub async fn propose(
        &self,
        encoded: Bytes,
        persisted: Option<PersistedSlot>,
    ) -> Result<Proposal, ProposeError> {
        let (responder, answer) = ProgressResponder::complete_only();
        let batch = Batch { encoded, persisted, own: true };
        match self.inner.raft.client_write_ff(batch, Some(responder)).await {
            Ok(()) => Ok(Proposal(answer)),
            Err(fatal) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// Follows what is applied here.
    pub fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.inner.machine.watch_applied()
    }

    /// Returns when this node has applied everything that it may have applied before a
    /// restart: until then local reads could go back in time.
    pub async fn recovered(&self) {
        // An error means that the engine stopped; there is nothing left to wait for.
        let _ = self.inner.raft.wait_for_recovery(None).await;
    }

    // ---- looking

    /// What may be written now, without the cost of a whole view.
    pub fn standing(&self) -> (Standing, bool) {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let facts = self.facts(&metrics);
        // A fresh leader that nobody has acknowledged yet: writes may wait for it.
        let fresh = facts.engine_leads && facts.quorum_acked_ago.is_none();
        (Standing::of(&facts), fresh)
    }

    /// Role, term and the leader's name, without the cost of a whole view.
    pub fn glance(&self) -> Glance {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Standing { role, leader } = Standing::of(&self.facts(&metrics));
        let membership = metrics.membership_config.membership();
        let leader = leader.and_then(|id| membership.get_node(&id.0)).map(|member| member.name.clone());
        Glance { role, term: metrics.current_term, leader }
    }

    /// The newest term that this node has seen.
    pub fn term(&self) -> Term {
        self.inner.raft.metrics().borrow_watched().current_term
    }

    fn facts(&self, metrics: &RaftMetrics) -> Facts {
        let me = self.inner.options.me;
        // Looking at the clock costs as much as the rest of this.
        let now = Instant::now();
        let since = |at: Instant| now.saturating_duration_since(at);
        // Asked for every request, so without the sets that `voter_ids` makes.
        let configs = metrics.membership_config.membership().get_joint_config();
        let voter = configs.iter().any(|voters| voters.contains(&me.0));
        let alone = voter && configs.iter().flatten().all(|id| *id == me.0);
        let last_word = self.inner.heard.last();
        let heard = last_word.filter(|word| word.term == metrics.current_term && word.leader != me);
        Facts {
            me,
            engine_leads: metrics.state == ServerState::Leader,
            voter,
            alone,
            quorum_acked_ago: metrics.last_quorum_acked.map(|at| at.elapsed()),
            heard: heard.filter(|word| !word.gone).map(|word| (word.leader, since(word.at))),
            gone_leader: heard.filter(|word| word.gone).map(|word| word.leader),
            silent_for: since(last_word.map_or(self.inner.started, |word| word.at)),
            lease: self.inner.options.lease(),
            patience: self.inner.options.patience(),
        }
    }

    pub fn view(&self) -> View {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let facts = self.facts(&metrics);
        let standing = Standing::of(&facts);
        let membership = metrics.membership_config.membership();
        let mut members: Vec<MemberView> = membership
            .nodes()
            .map(|(id, member)| self.member_view(&metrics, MemberId(*id), member))
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        View {
            role: standing.role,
            leader: standing.leader,
            term: metrics.current_term,
            vote: from_raft_vote(&metrics.vote),
            engine_leads: facts.engine_leads,
            quorum_acked_ago: facts.quorum_acked_ago,
            alone: facts.alone,
            silent_for: facts.silent_for,
            gone_leader: facts.gone_leader,
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: self.inner.store.applied().last.map(|id| id.index),
            joint: membership.get_joint_config().len() > 1,
            membership_committed: metrics.membership_config.log_id()
                == metrics.committed_membership_config.log_id(),
            members,
        }
    }

    fn member_view(&self, metrics: &RaftMetrics, id: MemberId, member: &Member) -> MemberView {
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id.0).copied().flatten());
        let answered = metrics.heartbeat.as_ref().and_then(|all| all.get(&id.0).copied().flatten());
        let is_me = id == self.inner.options.me;
        MemberView {
            id,
            name: member.name.clone(),
            url: member.url.clone(),
            incarnation: member.incarnation,
            voter: metrics.membership_config.membership().voter_ids().any(|voter| voter == id.0),
            matched: matched.map(|id| id.index),
            answered_ago: answered.map(|at| at.elapsed()),
            draining: !is_me && self.inner.pool.peer(id, member).is_draining(),
        }
    }

    /// Returns with the reason when the engine has stopped by itself. Looks from time to
    /// time: a waiter would be woken by every entry.
    pub async fn stopped(&self) -> String {
        let metrics = self.inner.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            tokio::time::sleep(self.options().heartbeat).await;
        }
    }

    /// Returns when the vote, the role or the membership has changed; entries are not news.
    pub fn changes(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut metrics = self.inner.raft.server_metrics();
        async move {
            // An error means that the engine stopped, which is told elsewhere.
            let _ = metrics.changed().await;
        }
    }

    // ---- leadership

    /// Returns when the leader that this node followed was found to have ended.
    async fn leader_ended(&self) {
        self.inner.detector.leader_ended().await;
    }

    /// Campaigns, with a pre-vote round first: refused while a leader is alive.
    pub async fn campaign(&self) {
        // An error means that the engine stopped, which is told elsewhere.
        let _ = self.inner.raft.trigger().elect(true).await;
    }

    /// Speaks as a leader, or not, to whom no quorum has answered for `unanswered`.
    fn mind_the_quorum(&self, unanswered: Duration) {
        self.inner.pool.voice().allow(self.options().rhythm().speaks(unanswered));
    }

    /// Asks `to` to take over.
    pub async fn transfer(&self, to: MemberId) {
        let _ = self.inner.raft.trigger().transfer_leader(to.0).await;
    }

    // ---- membership

    /// Adds a learner and waits until it has caught up.
    pub async fn add_learner(&self, id: MemberId, member: Member) -> Result<(), String> {
        let added = self.inner.raft.add_learner(id.0, member, true).await;
        added.map(drop).map_err(|error| error.to_string())
    }

    /// Makes `new` a voter in the place of `old`, in one joint change, and drops `old`.
    pub async fn replace_voter(&self, old: MemberId, new: MemberId) -> Result<(), String> {
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds([new.0].into()),
            ChangeMembers::RemoveVoters([old.0].into()),
        ]);
        let changed = self.inner.raft.change_membership(change, false).await;
        changed.map(drop).map_err(|error| error.to_string())
    }

    /// Drops a learner.
    pub async fn remove_learner(&self, id: MemberId) -> Result<(), String> {
        let removed =
            self.inner.raft.change_membership(ChangeMembers::RemoveNodes([id.0].into()), false).await;
        removed.map(drop).map_err(|error| error.to_string())
    }

    /// Completes a joint change that a crash left half done.
    pub async fn leave_joint(&self) -> Result<(), String> {
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        let changed = self.inner.raft.change_membership(nothing, false).await;
        changed.map(drop).map_err(|error| error.to_string())
    }

    /// The membership as the peer protocol carries it.
    pub fn membership_message(&self) -> log_pb::Membership {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        encode_membership(metrics.membership_config.membership())
    }

    // ---- stopping

    /// Everything applied goes to disk, then the engine stops.
    pub async fn shutdown(&self) {
        let _ = self.inner.raft.shutdown().await;
        if let Err(error) = self.inner.machine.flush().await {
            tracing::warn!(%error, "could not flush while stopping");
        }
    }

    /// Lets go of log entries that the table holds, however few there are: for a log that
    /// grew large with large values. Works off what the last call prepared.
    pub async fn trim_log(&self) {
        let snapshot = self.inner.raft.metrics().borrow_watched().snapshot;
        let trigger = self.inner.raft.trigger();
        // Errors mean that the engine stopped, which is told elsewhere.
        if let Some(snapshot) = snapshot {
            let _ = trigger.purge_log(snapshot.index).await;
        }
        let _ = trigger.snapshot().await;
    }

    /// Lets the store put into its table what the log has on disk by now.
    pub fn tell_durable(&self) {
        self.inner.machine.tell_durable();
    }

    /// Returns when every voter has the entry at `index` on disk. Waits as long as it
    /// takes: the caller has a deadline.
    pub async fn on_every_voter(&self, index: LogIndex) {
        let mut changes = self.inner.raft.data_metrics();
        while self.view().matched_by_all() < Some(index) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The members that are known to have the entry at `index` on disk; on a leader.
    pub fn holders(&self, index: LogIndex) -> Arc<[MemberName]> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = |id: &u64| metrics.replication.as_ref()?.get(id).copied().flatten();
        let members = metrics.membership_config.membership().nodes();
        let holders = members.filter(|(id, _)| matched(id).is_some_and(|last| last.index >= index));
        let mut names: Vec<MemberName> = holders.map(|(_, member)| member.name.clone()).collect();
        names.sort();
        names.into()
    }

    pub fn my_name(&self) -> Option<MemberName> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&self.me().0).map(|member| member.name.clone())
    }

    /// Another member of this cluster.
    pub fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let member = metrics.membership_config.membership().get_node(&id.0)?;
        Some(self.inner.pool.peer(id, member))
    }

    pub fn role(&self) -> Role {
        self.standing().0.role
    }
}
