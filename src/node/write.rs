//! Writes: checked, queued, gathered into batches, proposed, answered one by one.
//!
//! Several commands travel as one log entry: one append, one message to each follower
//! and one pass through the engine serve them all. While a batch is on its way the next
//! one gathers, so batches grow with the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::Either;
use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::consensus::types::PersistedSlot;
use crate::consensus::{Consensus, ProposeError};
use crate::env::Timer;
use crate::env::planted::{Bug, is_planted};
use crate::error::{Error, LeaderHint, Result};
use crate::proto::log::precondition::Is;
use crate::proto::log::{Command, Txn, command, txn_op};
use crate::storage::mvcc::{Reply, TAIL_LIMIT_BYTES};
use crate::types::{Ack, LogId, MemberName, Role};

use super::batch::{Clocks, ProposedAt, encode};
use super::{Node, Running, Shared, status};

/// Commands, and bytes of keys and values, in one log entry at most: small enough that
/// a follower's fsync and a heartbeat never wait long behind one.
const MAX_BATCH_COMMANDS: usize = 1024;
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// The next batch gathers until the last one is answered, which makes batches as large as
/// the load allows (a fifth less CPU a write at 64 clients than four at once); on a slow
/// network or disk it waits for so long at most.
const MAX_GATHER: Duration = Duration::from_millis(3);
/// Clients that write one after the other come back just after they were answered. A
/// batch that went without them would leave them to the next one, and so on for ever:
/// small batches, each client waiting for two of them. It waits so long at most (from 2 to
/// 64 clients at least a quarter more writes a second, by a quarter less CPU each).
const MAX_COMPANY_WAIT: Duration = Duration::from_millis(1);
/// So many are company enough: of a larger crowd one part is served while the other comes
/// back (256 clients: a twentieth more writes a second).
const ENOUGH_COMPANY: usize = 100;
/// Batches under way at once, when answers take longer than that.
const MAX_INFLIGHT_BATCHES: usize = 64;
/// Writes that may wait for their turn, and the bytes that they may hold: beyond, the
/// client is told at once to come back later.
const MAX_QUEUED_WRITES: usize = 16 * 1024;
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A write as a client asked for it.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub command: Command,
    pub ack: Ack,
    /// After this long without an answer the outcome is *unknown*.
    pub timeout: Duration,
    /// A follower passes it on to the leader instead of refusing it.
    pub forward: bool,
}

/// What became of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// `None` at `Ack::Leader`: nothing is applied yet, so there is no revision.
    pub reply: Option<Reply>,
    pub at: LogId,
    pub leader: MemberName,
    /// Who has it on disk, as far as the leader knew when it answered.
    pub acked: Arc<[MemberName]>,
}

/// One write in the queue.
struct Queued {
    command: Command,
    /// Answer as soon as our own log has it.
    at_leader: bool,
    answer: oneshot::Sender<Answer>,
    /// Gives its bytes back when the write is answered or forgotten.
    _admission: Admission,
}

struct Answered {
    at: LogId,
    reply: Option<Reply>,
    acked: Arc<[MemberName]>,
}

type Answer = std::result::Result<Answered, ProposeError>;

/// Writes admitted and not answered yet.
#[derive(Default)]
struct Load {
    writes: AtomicUsize,
    bytes: AtomicUsize,
}

struct Admission {
    load: Arc<Load>,
    bytes: usize,
}

impl Admission {
    fn try_new(load: &Arc<Load>, bytes: usize) -> Option<Self> {
        let writes = load.writes.fetch_add(1, Ordering::Relaxed);
        let queued = load.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admission = Self { load: load.clone(), bytes };
        (writes < MAX_QUEUED_WRITES && queued + bytes <= MAX_QUEUED_BYTES).then_some(admission)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.load.writes.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The way into the batcher.
pub(crate) struct WriteQueue {
    queue: mpsc::UnboundedSender<Queued>,
    load: Arc<Load>,
}

impl WriteQueue {
    /// The queue and the task that empties it.
    pub fn new(consensus: Consensus, clocks: Clocks) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, queued) = mpsc::unbounded_channel();
        (Self { queue, load: Arc::default() }, gather(queued, consensus, clocks))
    }

    fn submit(&self, command: Command, at_leader: bool) -> Result<oneshot::Receiver<Answer>> {
        let overloaded =
            || Error::Overloaded { why: "too many writes are waiting".to_owned(), retry_after: RETRY_AFTER };
        let admission = Admission::try_new(&self.load, payload_bytes(&command)).ok_or_else(overloaded)?;
        let (answer, answered) = oneshot::channel();
        let queued = Queued { command, at_leader, answer, _admission: admission };
        match self.queue.send(queued) {
            Ok(()) => Ok(answered),
            Err(_) => Err(Error::stopping()),
        }
    }

    /// Writes that are not answered yet.
    pub fn unanswered(&self) -> usize {
        self.load.writes.load(Ordering::Relaxed)
    }
}

fn payload_bytes(command: &Command) -> usize {
    match &command.op {
        Some(command::Op::Put(put)) => put.key.len() + put.value.len(),
        Some(command::Op::Delete(delete)) => delete.key.len() + delete.range_end.len(),
        // Keys, values and comparisons; walking through them all would cost as much.
        Some(command::Op::Txn(txn)) => txn.encoded_len(),
        _ => 0,
    }
}

/// The way out of the queue: it makes batches.
struct Gatherer {
    queue: mpsc::UnboundedReceiver<Queued>,
    /// What the last batch had no room for.
    held: Option<Queued>,
    /// How many writes the last batch answered, and how many had come meanwhile: about as
    /// many as there are clients that write one after the other.
    crowd: usize,
    company: Timer,
}

impl Gatherer {
    /// Everything that waits, in order, up to the limits, and a moment later all of the
    /// crowd, or enough of it; `None` when nobody is left who could write.
    async fn next_batch(&mut self) -> Option<Vec<Queued>> {
        let first = match self.held.take() {
            Some(write) => write,
            None => self.queue.recv().await?,
        };
        let mut bytes = payload_bytes(&first.command);
        let mut batch = vec![first];
        let patience = Instant::now() + MAX_COMPANY_WAIT;
        while batch.len() < MAX_BATCH_COMMANDS {
            let next = match self.queue.try_recv() {
                Ok(next) => next,
                Err(_) if batch.len() >= self.crowd.min(ENOUGH_COMPANY) => break,
                Err(_) => match self.company.before(patience, self.queue.recv()).await {
                    Some(Some(next)) => next,
                    _ => break,
                },
            };
            bytes += payload_bytes(&next.command);
            if bytes > MAX_BATCH_BYTES {
                self.held = Some(next);
                break;
            }
            batch.push(next);
        }
        Some(batch)
    }
}

/// The batcher: one proposal after the other, the next when the last is answered.
async fn gather(queue: mpsc::UnboundedReceiver<Queued>, consensus: Consensus, clocks: Clocks) {
    let inflight = Arc::new(Semaphore::new(MAX_INFLIGHT_BATCHES));
    let mut gatherer = Gatherer { queue, held: None, crowd: 0, company: Timer::default() };
    let mut next_turn = Timer::default();
    loop {
        let Ok(permit) = inflight.clone().acquire_owned().await else { return };
        let Some(batch) = gatherer.next_batch().await else { return };
        let answered = batch.len();
        let proposing = propose(batch, consensus.clone(), clocks.now());
        let proposing = tokio::spawn(async move {
            proposing.await;
            drop(permit);
        });
        let _ = next_turn.before(Instant::now() + MAX_GATHER, proposing).await;
        gatherer.crowd = answered + gatherer.queue.len();
    }
}

/// Encodes, proposes and answers one batch.
async fn propose(mut batch: Vec<Queued>, consensus: Consensus, at: ProposedAt) {
    let commands = batch.iter_mut().map(|write| std::mem::take(&mut write.command)).collect();
    let encoded = encode(commands, at);
    let (slot, persisted) = match batch.iter().any(|write| write.at_leader) {
        true => {
            let (slot, persisted) = PersistedSlot::new();
            (Some(slot), Some(persisted))
        }
        false => (None, None),
    };
    let proposal = match consensus.propose(encoded, slot).await {
        Ok(proposal) => proposal,
        Err(error) => return batch.into_iter().for_each(|write| drop(write.answer.send(Err(error.clone())))),
    };
    let mut waiting: Vec<Option<Queued>> = batch.into_iter().map(Some).collect();
    let outcome = std::pin::pin!(proposal.outcome());
    let outcome = match persisted {
        None => outcome.await,
        Some(persisted) => match futures::future::select(outcome, persisted).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((persisted, outcome)) => {
                if let Ok(at) = persisted {
                    answer_at_leader(&mut waiting, at, consensus.my_name().as_slice());
                }
                outcome.await
            }
        },
    };
    let acked = |at: LogId| consensus.holders(at.index);
    answer_all(waiting, outcome.map(|(at, replies)| (at, replies, acked(at))));
}

fn answer_at_leader(waiting: &mut [Option<Queued>], at: LogId, me: &[MemberName]) {
    let acked: Arc<[MemberName]> = me.into();
    for slot in waiting {
        if slot.as_ref().is_some_and(|write| write.at_leader)
            && let Some(write) = slot.take()
        {
            // The client may have given up; the write stands all the same.
            let _ = write.answer.send(Ok(Answered { at, reply: None, acked: acked.clone() }));
        }
    }
}

type Outcome = std::result::Result<(LogId, Vec<Reply>, Arc<[MemberName]>), ProposeError>;

fn answer_all(waiting: Vec<Option<Queued>>, outcome: Outcome) {
    match outcome {
        Ok((at, replies, acked)) => {
            for (write, reply) in waiting.into_iter().zip(replies) {
                if let Some(write) = write {
                    let answered = Answered { at, reply: Some(reply), acked: acked.clone() };
                    let _ = write.answer.send(Ok(answered));
                }
            }
        }
        Err(error) => {
            for write in waiting.into_iter().flatten() {
                let _ = write.answer.send(Err(error.clone()));
            }
        }
    }
}

/// Only an unconditional put may be answered before it is committed: all others' replies
/// say what apply found.
fn may_answer_at_leader(command: &Command) -> bool {
    matches!(command.op, Some(command::Op::Put(_))) && command.precondition.is_none()
}

fn grows(command: &Command) -> bool {
    match &command.op {
        Some(command::Op::Put(_) | command::Op::LeaseGrant(_)) => true,
        Some(command::Op::Txn(txn)) => puts(txn),
        _ => false,
    }
}

fn puts(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.op {
        Some(txn_op::Op::Put(_)) => true,
        Some(txn_op::Op::Txn(nested)) => puts(nested),
        _ => false,
    })
}

impl Node {
    /// Replicates one command and says what it did.
    pub async fn write(&self, request: WriteRequest) -> Result<Written> {
        let running = self.shared.require_running()?;
        self.shared.checks.require_sound()?;
        match self.shared.check_writable(&running, &request.command) {
            Err(Error::NotLeader { leader: Some(leader), .. }) if request.forward => {
                // On the heap: a call's state is large, and most writes need none of it.
                Box::pin(self.shared.forward(&running, leader, request)).await
            }
            Err(error) => Err(error),
            Ok(()) => self.shared.write_here(&running, request).await,
        }
    }
}

impl Shared {
    /// A write of this node's own; refused when another leads.
    pub(crate) async fn write_as_leader(
        &self,
        running: &Running,
        op: command::Op,
        timeout: Duration,
    ) -> Result<Written> {
        let command = Command { op: Some(op), precondition: None };
        self.check_writable(running, &command)?;
        let request = WriteRequest { command, ack: Ack::Quorum, timeout, forward: false };
        self.write_here(running, request).await
    }

    /// Refuses early what could not succeed; nothing has been changed then.
    fn check_writable(&self, running: &Running, command: &Command) -> Result<()> {
        if self.is_draining() {
            return Err(Error::stopping());
        }
        let (standing, fresh) = running.consensus.standing();
        if standing.role != Role::Leader && !fresh {
            return Err(self.not_leader(running));
        }
        if grows(command) && self.disk_low.load(Ordering::Relaxed) {
            return Err(Error::DiskFull);
        }
        if self.store.tail_bytes() > TAIL_LIMIT_BYTES {
            let why = "the disk does not keep up with the writes".to_owned();
            return Err(Error::Overloaded { why, retry_after: RETRY_AFTER });
        }
        Ok(())
    }

    /// Why a write is refused here: somebody else leads, or nobody can.
    pub(crate) fn not_leader(&self, running: &Running) -> Error {
        let view = running.consensus.view();
        match view.leader.filter(|leader| *leader != running.me()).and_then(|leader| view.member(leader)) {
            Some(leader) => Error::NotLeader {
                role: view.role,
                leader: Some(LeaderHint { name: leader.name.clone(), url: leader.url.clone() }),
            },
            None => Error::NoQuorum { role: view.role, why: status::no_leader(&view) },
        }
    }

    async fn write_here(&self, running: &Running, mut request: WriteRequest) -> Result<Written> {
        if is_planted(Bug::ConditionJudgedEarly) && self.holds_now(&request.command) {
            request.command.precondition = None;
        }
        let early = request.ack == Ack::Leader || is_planted(Bug::AcknowledgedBeforeCommit);
        let at_leader = early && may_answer_at_leader(&request.command);
        let deadline = Instant::now() + request.timeout;
        let answered = running.writes.submit(request.command, at_leader)?;
        let Ok(answered) = tokio::time::timeout_at(deadline, answered).await else {
            return Err(Error::Unknown { why: format!("no answer within {:?}", request.timeout) });
        };
        let answered = answered.map_err(|_| stopped_midway())?;
        let Answered { at, reply, mut acked } =
            answered.map_err(|error| self.propose_error(running, error))?;
        if request.ack == Ack::All {
            acked = running.on_every_voter(at, deadline).await?;
        }
        Ok(Written { reply, at, leader: self.config.name.clone(), acked })
    }

    /// Whether a put's condition holds before it is proposed: for a planted bug alone.
    fn holds_now(&self, command: &Command) -> bool {
        let Some(command::Op::Put(put)) = &command.op else { return false };
        let current = self.store.get(&put.key, None).ok().flatten().map(|found| found.mod_revision);
        match command.precondition.and_then(|condition| condition.is) {
            Some(Is::ModRevision(revision)) => current == Some(revision),
            Some(Is::Exists(exists)) => current.is_some() == exists,
            None => false,
        }
    }

    fn propose_error(&self, running: &Running, error: ProposeError) -> Error {
        match error {
            ProposeError::NotLeader => self.not_leader(running),
            ProposeError::Unknown(why) => Error::Unknown { why },
            ProposeError::Stopped(why) => Error::Unknown { why },
        }
    }
}

impl Running {
    /// Waits until every voter has the entry on disk, and says who has it.
    async fn on_every_voter(&self, at: LogId, deadline: Instant) -> Result<Arc<[MemberName]>> {
        let everywhere = tokio::time::timeout_at(deadline, self.consensus.on_every_voter(at.index)).await;
        let acked = self.consensus.holders(at.index);
        if everywhere.is_ok() {
            return Ok(acked);
        }
        let view = self.consensus.view();
        let missing = view.voters().map(|voter| &voter.name).filter(|name| !acked.contains(name));
        let missing: Vec<&str> = missing.map(MemberName::as_str).collect();
        let why =
            format!("it is committed and applied, but not on every voter: {} lacks it", missing.join(", "));
        Err(Error::Unknown { why })
    }
}

fn stopped_midway() -> Error {
    Error::Unknown { why: "the node stopped before it answered".to_owned() }
}
