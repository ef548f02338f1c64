//! The worker: the only writer of the table.
//!
//! It flushes the tail, sweeps compacted rows, makes checkpoints and installs snapshots, one
//! after the other, so none of them needs a lock against the others. A timer task triggers it
//! while there is something to do; on an idle store nothing runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::checkpoint::{self, Writing};
use super::hash::MarkedState;
use super::snapshot::{INCOMING_FILE, ReceivedSnapshot};
use super::state::{Shared, State};
use super::sweep::{self, Swept};
use super::table::{Meta, Table, View, redb_error};
use super::tail::TailEntry;
use crate::env::Workers;
use crate::env::planted::{Bug, is_planted};
use crate::env::workers::Worker;

/// How long applied rows gather in the tail before they are flushed: two fsyncs each
/// time, in which the log waits, and pages that the next flush writes again.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// A tail of this many bytes is flushed at once: one transaction of more would stall the
/// log's fsyncs on the same disk.
pub(super) const FLUSH_EARLY_BYTES: u64 = 8 * 1024 * 1024;
/// Between two steps of a sweep, or of a checkpoint: lets reads, and the log's fsyncs, through.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// Rows that the next start would have to read before a checkpoint is made: half a second.
/// With many versions it is a part of them, as each checkpoint writes them all.
const CHECKPOINT_ROWS: u64 = 400_000;
const CHECKPOINT_PART: u64 = 8;
/// The same when the node stops, and nothing else is to do.
const LAST_CHECKPOINT_PART: u64 = 64;
/// A checkpoint is not begun on a disk with less room, in bytes: it is not worth it.
const CHECKPOINT_ROOM_BYTES: u64 = 256 * 1024 * 1024;

type Done = oneshot::Sender<io::Result<()>>;

pub(super) enum Job {
    /// Flush, and go on with a sweep. Also what the timer sends, with nobody waiting.
    Flush(Option<Done>),
    Install(ReceivedSnapshot, Done),
    /// Make a checkpoint, if much is new since the last one.
    Checkpoint(Done),
    /// Damage the newest row of this key.
    Damage(Bytes, Done),
}

/// Starts the worker on `table`.
pub(super) fn start(workers: &Workers, shared: Arc<Shared>, table: Table) -> Worker<Job> {
    let new_rows = shared.state.read().rows_read;
    let mut flusher = Flusher { table, shared, new_rows, writing: None };
    workers.spawn("state", move |jobs| flusher.run(jobs))
}

/// Triggers the worker whenever something was scheduled, after a pause.
pub(super) async fn trigger(shared: Arc<Shared>, worker: Worker<Job>) {
    loop {
        shared.wake.notified().await;
        let in_steps =
            shared.state.read().view.meta.needs_sweep() || shared.checkpointing.load(Ordering::Acquire);
        tokio::time::sleep(if in_steps { STEP_PAUSE } else { FLUSH_INTERVAL }).await;
        if !worker.send(Job::Flush(None)) {
            // Without its worker the store would take entries and never flush them.
            shared.fail(worker_ended());
            return;
        }
    }
}

pub(super) struct Flusher {
    pub(super) table: Table,
    pub(super) shared: Arc<Shared>,
    /// Rows in the table that the last checkpoint does not have, nor the one in the making.
    new_rows: u64,
    writing: Option<Writing>,
}

impl Flusher {
    fn run(&mut self, jobs: &mut Vec<Job>) {
        // Whoever asked for a flush before this moment is served by the one below.
        let mut waiting = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Flush(done) => waiting.extend(done),
                Job::Install(snapshot, done) => {
                    let _ = done.send(self.guarded(|flusher| flusher.install(snapshot)));
                }
                Job::Checkpoint(done) => {
                    let _ = done.send(self.checkpoint_at_last());
                }
                Job::Damage(key, done) => drop(done.send(self.damage(&key))),
            }
        }
        self.shared.scheduled.store(false, Ordering::Release);
        let result = self.guarded(Self::flush);
        for done in waiting {
            let _ = done.send(result.as_ref().copied().map_err(again));
        }
    }

    /// Runs `work` unless the store has failed; its failure is the store's.
    pub(super) fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.shared.check()?;
        work(self).map_err(|error| self.shared.fail(error))
    }

    /// Puts what the log holds durably into the table. A mark ends a transaction, so that
    /// there is a view of the table as it is right there, on every replica the same.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.flush_upto_mark()? {}
        self.go_on_with_checkpoint(CHECKPOINT_ROWS, CHECKPOINT_PART);
        Ok(())
    }

    /// One transaction, and one step of a sweep; true when a mark ended it.
    fn flush_upto_mark(&mut self) -> io::Result<bool> {
        let started = Instant::now();
        let (entries, mut meta) = self.goal();
        // The index must not lose versions that the checkpoint has not reached yet.
        let sweeps = meta.needs_sweep() && self.writing.is_none();
        if entries.is_empty() && !sweeps {
            self.schedule_rest();
            return Ok(false);
        }
        let swept = self.table.write(|writer| {
            let mut encoded = Vec::new();
            for (id, row) in entries.iter().flat_map(|entry| &entry.rows) {
                encoded.clear();
                row.as_ref().encode(&mut encoded);
                writer.rows.insert(id.to_key(), encoded.as_slice()).map_err(redb_error)?;
            }
            for (id, lease) in entries.iter().flat_map(|entry| &entry.leases.changes) {
                writer.put_lease(*id, *lease)?;
            }
            let swept =
                if sweeps { sweep::step(&mut writer.rows, &mut meta, &self.shared)? } else { Vec::new() };
            Ok((meta, swept))
        })?;
        self.new_rows += entries.iter().map(|entry| entry.rows.len() as u64).sum::<u64>();
        let view = Arc::new(self.table.view()?);
        let marked = entries.last().and_then(|last| MarkedState::of(last, &view));
        self.show(view, entries, swept);
        self.shared.metrics.store_flush_seconds.observe(started.elapsed().as_secs_f64());
        let stopped_at_mark = marked.is_some();
        marked.into_iter().for_each(|marked| self.shared.marks.hand_out(marked));
        Ok(stopped_at_mark)
    }

    /// The applied entries that the log has on disk, up to a mark, and what the table will be after them.
    fn goal(&self) -> (Vec<Arc<TailEntry>>, Meta) {
        let state = self.shared.state.read();
        let durable = self.shared.log_durable();
        let entries = durable.map_or_else(Vec::new, |index| state.tail.entries_upto(index));
        let meta = match entries.last() {
            None => state.view.meta.clone(),
            Some(last) => {
                let says = if is_planted(Bug::AppliedTwice) { entries.iter().rev().nth(1) } else { None };
                let applied = &says.unwrap_or(last).applied;
                let sweep = state.view.meta.sweep();
                let meta = Meta::new(applied, last.revision, last.compacted, sweep, last.leases.clock_ms);
                meta.in_table(state.view.meta.generation)
            }
        };
        (entries, meta)
    }

    /// Shows readers the table as just committed, with `flushed` in it: the tail's first
    /// entries, for only this worker takes from its front.
    pub(super) fn show(&self, view: Arc<View>, flushed: Vec<Arc<TailEntry>>, swept: Vec<Swept>) {
        // Nobody is shown them any more, whichever view is read.
        for some in swept.chunks(sweep::ROWS_A_LOCK) {
            let mut state = self.shared.state.write();
            some.iter().for_each(|(key, id)| state.index.forget(key, *id));
        }
        let mut guard = self.shared.state.write();
        let state = &mut *guard;
        let old_view = std::mem::replace(&mut state.view, view);
        let old_entries = state.tail.drop_first(flushed.len());
        drop(guard);
        drop((old_view, old_entries, flushed));
        self.schedule_rest();
    }

    /// What is left, because the log does not have it on disk or a sweep goes on, waits
    /// for the timer, however much it is.
    fn schedule_rest(&self) {
        let state = self.shared.state.read();
        self.shared.early.store(state.tail.bytes() > FLUSH_EARLY_BYTES, Ordering::Release);
        if !state.tail.is_empty() || state.view.meta.needs_sweep() {
            self.shared.schedule();
        }
    }

    /// One step of a checkpoint, if one is under way or due; whether there is more to do. One
    /// that fails is given up: it is only a shortcut, and the log and the table see for
    /// themselves what the disk is worth.
    fn go_on_with_checkpoint(&mut self, rows: u64, part: u64) -> bool {
        let due = self.writing.is_none() && self.is_checkpoint_due(rows, part);
        let step = match &mut self.writing {
            Some(writing) => writing.step(&self.shared),
            None if due => self.begin_checkpoint(),
            None => return false,
        };
        let ended = step.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not write a checkpoint of the index; the next start takes longer");
            true
        });
        if ended {
            self.writing = None;
        }
        self.shared.checkpointing.store(!ended, Ordering::Release);
        self.shared.schedule();
        !ended
    }

    fn is_checkpoint_due(&self, rows: u64, part: u64) -> bool {
        let versions = self.shared.state.read().index.size().1;
        let has_room = || self.shared.disk.free_bytes().is_none_or(|free| free >= CHECKPOINT_ROOM_BYTES);
        self.new_rows > 0 && self.new_rows >= rows.max(versions / part) && has_room()
    }

    fn begin_checkpoint(&mut self) -> io::Result<bool> {
        // Whatever comes of it: the next one is made when as many rows are new again.
        self.new_rows = 0;
        let view = self.shared.state.read().view.clone();
        self.writing = Writing::begin(&self.shared.disk, &view)?;
        Ok(self.writing.is_none())
    }

    /// In one go: the one under way, and another if much is new since that was begun.
    fn checkpoint_at_last(&mut self) -> io::Result<()> {
        self.guarded(Self::flush)?;
        for _ in 0..2 {
            while self.go_on_with_checkpoint(0, LAST_CHECKPOINT_PART) {}
        }
        Ok(())
    }

    /// The table becomes another one.
    fn give_up_checkpoint(&mut self) -> io::Result<()> {
        self.writing = None;
        self.shared.checkpointing.store(false, Ordering::Release);
        checkpoint::remove(&*self.shared.disk)
    }

    /// Builds a database beside the old one, puts it in its place, and shows it.
    fn install(&mut self, snapshot: ReceivedSnapshot) -> io::Result<()> {
        let disk = self.shared.disk.clone();
        let table = self.table.successor()?;
        table.write(|writer| Ok((snapshot.copy_into(writer)?.in_new_table(), ())))?;
        let state = State::load(Arc::new(table.view()?))?;
        self.give_up_checkpoint()?;
        self.new_rows = state.rows_read;
        table.publish()?;
        self.table = table;
        let old = std::mem::replace(&mut *self.shared.state.write(), state);
        drop(old);
        self.shared.schedule();
        drop(snapshot);
        disk.remove(INCOMING_FILE)
    }
}

pub(super) fn worker_ended() -> io::Error {
    io::Error::other("its worker has ended")
}

/// The same error for one more of those who wait.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
