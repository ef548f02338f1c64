//! When the store may be read: linearizable reads by ReadIndex, on any node; local ones
//! once what was applied before a restart is applied again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::consensus::network::client::ask_read_index;
use crate::consensus::types::RaftVote;
use crate::consensus::{ConfirmError, Consensus};
use crate::env::planted::{Bug, is_planted};
use crate::error::{Error, Result};
use crate::types::{Consistency, LogIndex, MemberId, Revision};

use super::leases::LeaseClock;
use super::{Node, Running, Shared};

/// Local reads wait so long after a restart for recovery; then they are refused until it
/// has come.
pub const RECOVERY_WAIT: Duration = Duration::from_secs(2);
/// How often a starting node looks whether it runs.
const POLL: Duration = Duration::from_millis(5);
/// One round with a quorum. Rounds that fail are not repeated: the client decides.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// Why no read index could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    NotLeader,
    NoQuorum(String),
}

/// What the leader says to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadIndex {
    /// Must be applied before the read.
    pub index: LogIndex,
    /// What the lease clock showed.
    pub lease_clock_ms: u64,
}

type Outcome = std::result::Result<ReadIndex, ReadFailure>;

/// Gathers reads into rounds: a round serves exactly those that came before it began.
pub(crate) struct ReadIndexes {
    queue: mpsc::UnboundedSender<oneshot::Sender<Outcome>>,
    consensus: Consensus,
    clock: LeaseClock,
}

impl ReadIndexes {
    pub fn new(consensus: Consensus, clock: LeaseClock) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let indexes = Self { queue, consensus: consensus.clone(), clock: clock.clone() };
        (indexes, rounds(consensus, clock, waiting))
    }

    /// What must be applied before a read that begins now.
    pub async fn get(&self) -> Outcome {
        let stopping = || ReadFailure::NoQuorum("this node is stopping".to_owned());
        let (sender, receiver) = oneshot::channel();
        self.queue.send(sender).map_err(|_| stopping())?;
        receiver.await.map_err(|_| stopping())?
    }

    /// The same, for a follower that believes that this node leads, with its last vote.
    pub async fn get_as_leader(
        &self,
        asker: MemberId,
        its_vote: Option<RaftVote>,
    ) -> std::result::Result<ReadIndex, String> {
        if self.consensus.standing().0.leader.is_some_and(|leader| leader != self.consensus.me()) {
            return Err("this node does not lead".to_owned());
        }
        let outcome = match self.confirmed_by_asker(asker, its_vote).await {
            Some(read) => Ok(read),
            None => self.get().await,
        };
        outcome.map_err(|failure| match failure {
            ReadFailure::NotLeader => "this node does not lead".to_owned(),
            ReadFailure::NoQuorum(why) => why,
        })
    }

    /// `None` when it takes a round, which also finds out why.
    async fn confirmed_by_asker(&self, asker: MemberId, its_vote: Option<RaftVote>) -> Option<ReadIndex> {
        let confirming = self.consensus.confirmed_by_asker(asker, its_vote.as_ref()?);
        let at = tokio::time::timeout(ROUND_TIMEOUT, confirming).await.ok()?.ok()??;
        Some(ReadIndex { index: at.index, lease_clock_ms: self.clock.now_ms() })
    }
}

async fn rounds(
    consensus: Consensus,
    clock: LeaseClock,
    mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<Outcome>>,
) {
    let mut round = Vec::new();
    while waiting.recv_many(&mut round, usize::MAX).await > 0 {
        // What the network has brought meanwhile comes along.
        tokio::task::yield_now().await;
        while let Ok(reader) = waiting.try_recv() {
            round.push(reader);
        }
        let outcome = match tokio::time::timeout(ROUND_TIMEOUT, one_round(&consensus, &clock)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ReadFailure::NoQuorum(format!("no quorum answered within {ROUND_TIMEOUT:?}"))),
        };
        while is_planted(Bug::ReadJoinsEarlierRound)
            && let Ok(later) = waiting.try_recv()
        {
            round.push(later);
        }
        for reader in round.drain(..) {
            // A reader that gave up needs no answer.
            let _ = reader.send(outcome.clone());
        }
    }
}

async fn one_round(consensus: &Consensus, clock: &LeaseClock) -> Outcome {
    let (standing, fresh) = consensus.standing();
    match standing.leader {
        Some(leader) if leader != consensus.me() => ask_leader(consensus, leader).await,
        None if !fresh => Err(ReadFailure::NoQuorum("no leader is known".to_owned())),
        _ => match consensus.confirm_leadership().await {
            Ok(at) => Ok(ReadIndex { index: at.index, lease_clock_ms: clock.now_ms() }),
            Err(ConfirmError::NotLeader) => Err(ReadFailure::NotLeader),
            Err(error) => Err(ReadFailure::NoQuorum(error.to_string())),
        },
    }
}

async fn ask_leader(consensus: &Consensus, leader: MemberId) -> Outcome {
    let Some(peer) = consensus.peer(leader) else { return Err(ReadFailure::NotLeader) };
    let reply = ask_read_index(&peer, consensus.last_vote()).await.map_err(ReadFailure::NoQuorum)?;
    let lease_clock_ms = reply.lease_clock_ms;
    let read = reply.read.map(|at| ReadIndex { index: at.index, lease_clock_ms });
    read.ok_or(ReadFailure::NoQuorum(reply.refused))
}

impl Node {
    /// Returns when [`Node::store`] may be read at this consistency, and has reached
    /// `min_revision`. What is rarely waited for is on the heap: every read carries the rest.
    pub async fn read_barrier(
        &self,
        consistency: Consistency,
        min_revision: Option<Revision>,
        timeout: Duration,
    ) -> Result<()> {
        self.shared.checks.require_sound()?;
        let running = self.shared.running();
        let recovered = running.is_some_and(|running| running.has_recovered());
        if consistency == Consistency::Local && recovered && min_revision.is_none() {
            // Most of them: not even the clock is asked.
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        match consistency {
            Consistency::Linearizable => drop(self.shared.linearize(deadline).await?),
            Consistency::Local if recovered => {}
            Consistency::Local => Box::pin(self.shared.wait_for_recovery(deadline)).await?,
            Consistency::Stale => {}
        }
        if let Some(revision) = min_revision
            && self.store().revision() < revision
        {
            Box::pin(self.shared.wait_for_revision(revision, deadline)).await?;
        }
        Ok(())
    }
}

impl Running {
    fn has_recovered(&self) -> bool {
        self.recovered.load(Ordering::Relaxed) || is_planted(Bug::LocalReadBeforeRecovery)
    }
}

impl Shared {
    /// Until everything applied before a restart is applied again, a read could go back in
    /// time; so it could from a log that is not read back yet, or an empty directory. Bounded
    /// twice: by the request, and by how long after a start reads wait at all.
    async fn wait_for_recovery(&self, deadline: Instant) -> Result<()> {
        let running = self.wait_until_running(deadline).await?;
        if running.has_recovered() {
            return Ok(());
        }
        let until = deadline.min(running.recovery_deadline);
        let recovered = tokio::time::timeout_at(until, running.consensus.recovered()).await;
        recovered.map_err(|_| Error::NotReady {
            why: "this node restarted and has heard no leader since: what it has may be older than what it showed before; ?consistency=stale reads it all the same".to_owned(),
        })
    }

    async fn wait_until_running(&self, deadline: Instant) -> Result<Arc<Running>> {
        let until = deadline.min(Instant::now() + RECOVERY_WAIT);
        loop {
            match self.require_running() {
                Err(_) if Instant::now() < until => tokio::time::sleep(POLL).await,
                result => return result,
            }
        }
    }

    /// Returns when every write that was acknowledged before this call is applied here, with
    /// what the lease clock showed since.
    pub(super) async fn linearize(&self, deadline: Instant) -> Result<u64> {
        let running = self.require_running()?;
        let timed_out = |why: &str| Error::ReadTimeout { why: why.to_owned() };
        let ReadIndex { index, lease_clock_ms } =
            match tokio::time::timeout_at(deadline, running.reads.get()).await {
                Err(_) => return Err(timed_out("no quorum confirmed the leader in time")),
                Ok(Err(ReadFailure::NotLeader)) => return Err(self.not_leader(&running)),
                Ok(Err(ReadFailure::NoQuorum(why))) => {
                    return Err(Error::NoQuorum { role: running.consensus.role(), why });
                }
                Ok(Ok(read)) => read,
            };
        let mut applied = running.consensus.watch_applied();
        let reached = applied.wait_for(|applied| applied.is_some_and(|at| at.index >= index));
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(lease_clock_ms),
            Ok(Err(_)) => Err(Error::stopping()),
            Err(_) => Err(timed_out("this node lags behind the leader")),
        }
    }

    async fn wait_for_revision(&self, revision: Revision, deadline: Instant) -> Result<()> {
        let running = self.require_running()?;
        let mut applied = running.consensus.watch_applied();
        let reached = applied.wait_for(|_| self.store.revision() >= revision);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::stopping()),
            Err(_) => Err(Error::ReadTimeout {
                why: format!(
                    "revision {revision} has not arrived here; the store is at {}",
                    self.store.revision()
                ),
            }),
        }
    }
}
