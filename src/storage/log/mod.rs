//! The replicated log on disk.
//!
//! Owns `DATA_DIR/log/`: entries, the vote, and the marks *purged* and *committed*, all
//! of them records in one sequence, in the order in which they were handed over. There
//! is no vote file beside it: consensus counts earlier appends as flushed once a later
//! vote is durable, and only one sequence makes that true.
//!
//! The way of an append:
//!
//! 1. [`Log::append`] encodes it into the open batch and caches it ([`state`], `cache`);
//!    from here on it is readable.
//! 2. The flush worker takes the batch, seals it as one frame (`format`) and does one
//!    synced write (`flush`). What is handed over meanwhile is the next batch. While the
//!    disk is quick, a follower does the worker's work itself ([`Log::append_here`]), and so
//!    does a leader with little to write ([`Log::append_soon`]).
//! 3. The callbacks are called, and the entries count as durable.
//!
//! Frames fill zeroed files, segments (`segment`), so that no append changes a file's
//! size and a sync writes data only. A start reads all of it back (`recover`), and old
//! entries are read back one by one (`read`).
//!
//! An error of a write or a sync is final: what the kernel did with the data is unknown,
//! so nothing is tried again and every later change fails. Reading goes on.
//!
//! What entries mean, and when to purge, is left to `consensus`.

mod cache;
mod contents;
mod flush;
mod format;
mod read;
mod recover;
mod segment;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::env::{Disk, Worker, Workers};
use crate::metrics::Metrics;
use crate::types::{LogId, LogIndex, Term};
use flush::{Flusher, MakeSpare, Pace, Wake};
use read::Plan;
use segment::SpareSlot;
use state::{Failure, State};

/// How long a committed mark waits for an append that carries it to disk, before it is
/// written (not synced) by itself. It spares a write per commit when there is little to
/// do, and what a crash within it costs is a slightly older state until a leader speaks.
const COMMITTED_LINGER: Duration = Duration::from_millis(100);

/// What an entry carries; the bytes are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Blank,
    /// An encoded `CommandBatch`.
    Batch,
    /// An encoded `Membership`.
    Membership,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: LogId,
    pub kind: EntryKind,
    pub payload: Bytes,
}

/// Whom this node voted for, or follows when committed (Raft, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    pub term: Term,
    pub voted_for: u64,
    pub committed: bool,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    pub segment_bytes: u64,
    /// Entries kept in memory for apply and replication; older ones are read back.
    pub cache_bytes: usize,
    /// Free room on the disk that is not spent on making a segment ahead.
    pub reserve_bytes: u64,
}

/// Called once, when what was handed over is on disk or has failed.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Shared {
    state: Arc<Mutex<State>>,
    worker: Worker<Wake>,
    /// Held by who writes: the worker, or [`Log::write_here`].
    flusher: Arc<Mutex<Flusher>>,
    pace: Arc<Pace>,
    workers: Workers,
    spare: SpareSlot,
}

/// A handle on the log; clones share it.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

impl Log {
    /// Reads the log back, cuts a torn tail, refuses damage.
    pub fn open(
        disk: Arc<dyn Disk>,
        workers: &Workers,
        options: LogOptions,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let LogOptions { segment_bytes, cache_bytes, reserve_bytes } = options;
        let spare = SpareSlot::default();
        let found = recover::recover(&*disk, &spare, segment_bytes)?;
        let spare_maker = start_spare_maker(&disk, workers, &spare, segment_bytes, reserve_bytes);
        spare_maker.send(MakeSpare);
        let written = found.contents.checkpoint();
        let state = State::new(found.contents, found.frames, found.segments, cache_bytes);
        let state = Arc::new(Mutex::new(state));
        let pace = Arc::<Pace>::default();
        let flusher = Arc::new(Mutex::new(Flusher {
            state: state.clone(),
            disk,
            metrics,
            active: found.active,
            written,
            provisional: None,
            spare: spare.clone(),
            spare_maker,
            segment_bytes,
            pace: pace.clone(),
        }));
        let worker = workers.spawn("log-flush", {
            let flusher = flusher.clone();
            move |wakes: &mut Vec<Wake>| {
                wakes.clear();
                flusher.lock().run();
            }
        });
        let workers = workers.clone();
        Ok(Self(Arc::new(Shared { state, worker, flusher, pace, workers, spare })))
    }

    /// Entries are readable when this returns and durable when `flushed` is called. With
    /// an error nothing was appended, and `flushed` is told, too.
    pub fn append(&self, entries: Vec<Entry>, flushed: Flushed) -> io::Result<()> {
        self.queue(entries, flushed)?;
        self.begin_writing()
    }

    /// The same, for who has nothing better to do than to wait: where the disk is quick, it is
    /// written and synced before this returns.
    pub fn append_here(&self, entries: Vec<Entry>, flushed: Flushed) -> io::Result<()> {
        self.queue(entries, flushed)?;
        if self.may_write_here() { self.write_here() } else { self.begin_writing() }
    }

    /// The same once whatever is ready to run has run: for who sends the entries to others
    /// first. Needs a tokio runtime.
    pub fn append_soon(&self, entries: Vec<Entry>, flushed: Flushed) -> io::Result<()> {
        self.queue(entries, flushed)?;
        if !self.may_write_here() {
            return self.begin_writing();
        }
        let log = self.clone();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            // An error is told to who waits for the entries.
            let _ = log.write_here();
        });
        Ok(())
    }

    /// Whether the caller's thread may wait for the disk.
    fn may_write_here(&self) -> bool {
        self.0.pace.is_quick() && self.0.workers.may_be_spared()
    }

    /// Has what waits written and synced, on this thread if no other is about to do it.
    fn write_here(&self) -> io::Result<()> {
        if let Some(mut flusher) = self.0.flusher.try_lock()
            && self.0.state.lock().must_wake()
        {
            flusher.run();
            return Ok(());
        }
        self.begin_writing()
    }

    fn queue(&self, mut entries: Vec<Entry>, flushed: Flushed) -> io::Result<()> {
        let mut waiter = Some(flushed);
        let appended = self.0.state.lock().append(&mut entries, &mut waiter);
        if let (Err(error), Some(flushed)) = (&appended, waiter) {
            flushed(Err(Failure::new(error).to_error()));
        }
        appended
    }

    /// Has what waits written and synced.
    fn begin_writing(&self) -> io::Result<()> {
        self.change(|_| Ok(()))
    }

    /// Durable when it returns, and everything appended before it too.
    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.change_and_wait(|state, waiter| state.save_vote(vote, waiter)).await
    }

    /// Written in order, without a sync of its own. A mark that names no entry of this
    /// log, nor one purged from it, is left out.
    pub fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        let mut state = self.0.state.lock();
        if state.save_committed(committed)? && !state.linger() {
            drop(state);
            self.write_committed_later();
        }
        Ok(())
    }

    /// Forgets every entry after `last` (all of them when `None`); durable when it returns.
    pub async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        self.change_and_wait(|state, waiter| state.truncate(last, waiter)).await
    }

    /// Forgets every entry up to and with `upto`. The room on disk is given back once
    /// that is durable; nobody needs to wait for it.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.change(|state| state.purge(upto))
    }

    /// Returns when everything handed over before is durable.
    pub async fn flush(&self) -> io::Result<()> {
        self.change_and_wait(State::flush).await
    }

    pub fn vote(&self) -> Option<Vote> {
        self.0.state.lock().contents.vote()
    }

    /// Never beyond the last entry.
    pub fn committed(&self) -> Option<LogId> {
        self.0.state.lock().contents.committed()
    }

    pub fn last_purged(&self) -> Option<LogId> {
        self.0.state.lock().contents.purged()
    }

    /// The last entry's id, or the last purged one's when there is none.
    pub fn last_id(&self) -> Option<LogId> {
        self.0.state.lock().contents.last_id()
    }

    /// The last entry known to be on disk.
    pub fn durable_id(&self) -> Option<LogId> {
        self.0.state.lock().durable_id()
    }

    /// The entries in `range` that the log holds, stopping after `max_bytes` of payload but
    /// never before the first entry.
    pub fn read(&self, range: Range<LogIndex>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let plan = Plan::new(&self.0.state.lock(), range, max_bytes)?;
        plan.read()
    }

    /// Bytes of segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        let spare = self.0.spare.lock().as_ref().map_or(0, |spare| spare.bytes);
        spare + self.0.state.lock().segments.values().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Makes a change and sees to it that the worker takes it up.
    fn change(&self, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.0.state.lock();
        change(&mut state)?;
        let wake = state.must_wake();
        drop(state);
        if wake { self.wake() } else { Ok(()) }
    }

    async fn change_and_wait(
        &self,
        change: impl FnOnce(&mut State, Flushed) -> io::Result<()>,
    ) -> io::Result<()> {
        let (sender, done) = oneshot::channel();
        // A caller that stopped waiting does not want to know.
        let waiter: Flushed = Box::new(move |result| drop(sender.send(result)));
        self.change(|state| change(state, waiter))?;
        done.await.unwrap_or_else(|_| Err(worker_ended()))
    }

    fn wake(&self) -> io::Result<()> {
        if self.0.worker.send(Wake) {
            return Ok(());
        }
        let failure = Failure::new(&worker_ended());
        let waiters = self.0.state.lock().fail(failure.clone());
        for waiter in waiters {
            waiter(Err(failure.to_error()));
        }
        Err(failure.to_error())
    }

    /// Outside of a runtime there is no timer, and the mark waits for the next change.
    fn write_committed_later(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let shared = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            tokio::time::sleep(COMMITTED_LINGER).await;
            let Some(log) = shared.upgrade().map(Log) else { return };
            let wake = log.0.state.lock().end_linger();
            if wake && let Err(error) = log.wake() {
                tracing::debug!(%error, "the committed mark was not written");
            }
        });
    }
}

fn worker_ended() -> io::Error {
    io::Error::other("its flush worker has ended")
}

fn start_spare_maker(
    disk: &Arc<dyn Disk>,
    workers: &Workers,
    spare: &SpareSlot,
    segment_bytes: u64,
    reserve_bytes: u64,
) -> Worker<MakeSpare> {
    let (disk, spare) = (disk.clone(), spare.clone());
    workers.spawn("log-spare", move |requests: &mut Vec<MakeSpare>| {
        requests.clear();
        segment::keep_spare(&*disk, &spare, segment_bytes, reserve_bytes);
    })
}
