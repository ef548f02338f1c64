//! The multi-version store: what the log's entries make.
//!
//! Owns the keys with all their readable versions, the applied position and membership,
//! and `state.redb` that holds them. Knows bytes, not JSON; log ids, not consensus.
//!
//! Revisions are etcd's. An empty store is at revision 1 and every command that changes
//! something makes the next; one that changes several keys numbers them within its
//! revision. A change is a *row* at `(revision, sub)`; a delete is a row too, a tombstone.
//!
//! How a row goes through the files:
//!
//! 1. `apply` decides what a command means, from the key `index` alone wherever it can.
//! 2. The row goes to the `tail`, in memory, and is visible to readers at once.
//! 3. The `worker` copies the tail to the `table` every 100 ms or so, never beyond what
//!    the log has on disk: the log is what brings the tail back after a crash.
//! 4. `read` finds rows through the index, in the tail or else in the table.
//! 5. Compaction forgets: logically in `apply`, at once; physically in the worker, step by
//!    step, later.
//!
//! On open the index is rebuilt from the table, or from a `checkpoint` and the rows that came
//! after it.
//!
//! A `snapshot` is the table as of one flush, as a stream of bytes; the state `hash`
//! compares replicas whatever of this they have done already.
//!
//! Leases and transactions: `leases` holds which keys go when, `txn` chooses a
//! transaction's branches before anything of it changes.
//!
//! Left to others: which entries are committed, who may read when, when to flush or to
//! compact, and to refuse writes while [`StoreStats::tail_bytes`] is above
//! [`TAIL_LIMIT_BYTES`].

mod apply;
mod check;
mod checkpoint;
mod damage;
mod frame;
mod hash;
mod index;
mod leases;
mod read;
mod recent;
mod row;
mod select;
mod snapshot;
mod state;
mod sweep;
mod table;
mod tail;
mod txn;
mod types;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use hash::{KeysHash, MarkedState, STATE_HASH_FORMAT, StateHash, StateHasher};
pub use snapshot::{ReceivedSnapshot, SnapshotImage, SnapshotWriter};
pub use types::{
    AppliedMembership, AppliedState, Change, HistoryPage, HistoryRow, KeyRange, KeyValue, Lease, PageLimit,
    RangeQuery, RangeResult, ReadError, Refusal, Reply, RevisionBounds, Sort, SortBy, StoreStats,
};

use crate::env::workers::Worker;
use crate::env::{Disk, Workers};
use crate::metrics::Metrics;
use crate::proto::log::{CommandBatch, Txn};
use crate::types::{LogId, LogIndex, Revision};
use state::{Shared, State};
use table::Table;
use worker::{FLUSH_EARLY_BYTES, Job};

/// Above this the disk does not keep up and writes should be refused, not queued, in
/// bytes of tail. The store itself takes what is committed, whatever its size.
pub const TAIL_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// A handle on the store; clones share it. When the last is dropped, the worker ends;
/// what it had not flushed comes back from the log.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    worker: Worker<Job>,
    timer: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl Store {
    /// Opens the table, makes an empty one when there is none, and brings back the index.
    /// Up to `recent_bytes` of rows that are read stay in memory. Needs a tokio runtime, for
    /// the timer.
    pub fn open(
        disk: Arc<dyn Disk>,
        workers: &Workers,
        recent_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        disk.remove(snapshot::INCOMING_FILE)?;
        disk.remove(checkpoint::NEW_CHECKPOINT_FILE)?;
        let (checkpoint, table) =
            workers.both("checkpoint", || checkpoint::read(&*disk), || Table::open(&disk, recent_bytes))?;
        let table = table?;
        let state = State::open(Arc::new(table.view()?), checkpoint)?;
        let shared = Arc::new(Shared::new(state, disk, metrics));
        if shared.state.read().view.meta.needs_sweep() {
            shared.schedule();
        }
        let worker = worker::start(workers, shared.clone(), table);
        let timer = tokio::spawn(worker::trigger(shared.clone(), worker.clone())).abort_handle();
        Ok(Self { inner: Arc::new(Inner { shared, worker, timer }) })
    }

    /// Applies one entry's commands; visible to readers when it returns. All of them or,
    /// after a crash, none. An error is final: the store takes nothing more. Unless
    /// `answering`, what was only to be read for the replies is missing from them.
    pub fn apply(&self, at: LogId, batch: &CommandBatch, answering: bool) -> io::Result<Vec<Reply>> {
        self.apply_entry(at, |state| {
            state.answering = answering;
            state.apply_batch(batch)
        })
    }

    pub fn apply_blank(&self, at: LogId) -> io::Result<()> {
        self.apply_entry(at, |_| Ok(()))
    }

    pub fn apply_membership(&self, at: LogId, bytes: Bytes) -> io::Result<()> {
        self.apply_entry(at, |state| {
            state.applied.membership = AppliedMembership { at: Some(at), bytes };
            Ok(())
        })
    }

    fn apply_entry<T>(&self, at: LogId, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let started = Instant::now();
        let shared = &self.inner.shared;
        shared.check()?;
        let (reply, tail_bytes) = {
            let mut state = shared.state.write();
            // An entry that fails half way gets no mark, so nothing of it can be flushed.
            let result = state.begin_entry(at).and_then(|()| work(&mut state));
            let reply = result.map_err(|error| shared.fail(error))?;
            state.end_entry();
            (reply, state.tail.bytes())
        };
        shared.schedule();
        if tail_bytes > FLUSH_EARLY_BYTES && !shared.early.swap(true, Ordering::AcqRel) {
            self.inner.worker.send(Job::Flush(None));
        }
        shared.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
        Ok(reply)
    }

    pub fn applied(&self) -> AppliedState {
        self.inner.shared.state.read().applied.clone()
    }

    /// What of it is in the table, on disk.
    pub fn durable(&self) -> AppliedState {
        self.inner.shared.state.read().view.meta.applied()
    }

    /// The log's durable index, beyond which nothing may reach the table. It may go back,
    /// when the log is truncated.
    pub fn log_is_durable_upto(&self, index: LogIndex) {
        self.inner.shared.set_log_durable(index);
    }

    /// Puts everything applied (and durable in the log) into the table, on disk.
    pub async fn flush(&self) -> io::Result<()> {
        self.ask_worker(|done| Job::Flush(Some(done))).await
    }

    /// Sees to it that the next start finds a checkpoint of the index: the last thing that a
    /// node does with its store.
    pub async fn checkpoint(&self) -> io::Result<()> {
        self.ask_worker(Job::Checkpoint).await
    }

    async fn ask_worker(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let sent = self.inner.worker.send(job(done));
        match answer.await {
            Ok(result) if sent => result,
            _ => Err(self.inner.shared.fail(worker::worker_ended())),
        }
    }

    pub fn revision(&self) -> Revision {
        self.inner.shared.state.read().revision
    }

    /// The newest revision, and the oldest that can be read (0: all).
    pub fn revisions(&self) -> (Revision, Revision) {
        let state = self.inner.shared.state.read();
        (state.revision, state.compacted)
    }

    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<KeyValue>, ReadError> {
        self.inner.shared.get(key, at)
    }

    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        self.inner.shared.range(query)
    }

    /// A transaction that only reads, on one state. Its reply is [`Reply::Txn`] or
    /// [`Reply::Refused`].
    pub fn read_txn(&self, txn: &Txn) -> Result<Reply, ReadError> {
        self.inner.shared.read_txn(txn)
    }

    /// Milliseconds on the lease clock, as of the last entry applied.
    pub fn lease_clock_ms(&self) -> u64 {
        self.inner.shared.state.read().leases.clock_ms()
    }

    pub fn lease(&self, id: i64) -> Option<Lease> {
        self.inner.shared.state.read().leases.get(id)
    }

    /// In order.
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.inner.shared.state.read().leases.keys(id).cloned().collect()
    }

    /// At most so many leases, with their deadlines, those that end first first.
    pub fn leases_by_deadline(&self, limit: usize) -> Vec<(i64, u64)> {
        let state = self.inner.shared.state.read();
        state.leases.by_deadline().take(limit).map(|(deadline_ms, id)| (id, deadline_ms)).collect()
    }

    /// Changes with a revision above `after`, oldest first; at most `limit` (0: no limit)
    /// but never part of a revision, and at least one whole revision if there is one.
    pub fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ReadError> {
        self.inner.shared.changes_since(after, limit)
    }

    /// Changes with a revision above `after`, oldest first, a page of them. They may begin
    /// with those at the compacted revision.
    pub fn history(&self, after: Revision, limit: PageLimit) -> Result<HistoryPage, ReadError> {
        self.inner.shared.history(after, limit)
    }

    /// What was there before these changes' revisions: nothing when the key was not, or when
    /// that is compacted by now.
    pub fn replaced(&self, rows: &[&HistoryRow]) -> Result<Vec<Option<KeyValue>>, ReadError> {
        Ok(self.inner.shared.replaced(rows)?)
    }

    /// Returns when what compaction at or before `revision` forgot is gone from the disk, or
    /// never will be: the store failed.
    pub async fn swept(&self, revision: Revision) {
        let goal = row::RowId::last_of(revision);
        let shared = &self.inner.shared;
        while shared.state.read().view.meta.sweep().reached < goal && self.flush().await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Bytes that are applied but not yet in the table.
    pub fn tail_bytes(&self) -> u64 {
        self.inner.shared.state.read().tail.bytes()
    }

    pub fn stats(&self) -> StoreStats {
        let state = self.inner.shared.state.read();
        StoreStats {
            keys: state.index.live(),
            revision: state.revision,
            compacted: state.compacted,
            tail_rows: state.tail.rows(),
            tail_bytes: state.tail.bytes(),
            disk_bytes: state.view.disk_bytes().unwrap_or(0),
        }
    }

    /// Over all tables, without what is logically compacted. Reads every row.
    pub fn state_hash(&self) -> io::Result<(Option<LogId>, StateHash)> {
        self.inner.shared.state_hash()
    }

    /// Over the keys and their history up to `at`, without leases and membership. Reads
    /// every row.
    pub fn hash_of_keys(&self, at: Option<Revision>) -> Result<KeysHash, ReadError> {
        self.inner.shared.hash_of_keys(at)
    }

    /// The table as it is at each mark that is applied from now on; some are left out
    /// when the receiver is busy. Only the last caller receives.
    pub fn follow_marks(&self) -> mpsc::Receiver<MarkedState> {
        self.inner.shared.marks.follow()
    }

    /// Flips a bit of the key's value in this table behind everybody's back: for the
    /// laboratory. `NotFound` when the key is not in the table.
    pub async fn damage(&self, key: Bytes) -> io::Result<()> {
        self.ask_worker(|done| Job::Damage(key, done)).await
    }

    /// The store as of its last flush: flush first to have everything in it.
    pub fn image(&self) -> io::Result<SnapshotImage> {
        self.inner.shared.check()?;
        SnapshotImage::new(self.inner.shared.state.read().view.clone())
    }

    pub fn receive(&self) -> io::Result<SnapshotWriter> {
        self.inner.shared.check()?;
        SnapshotWriter::new(&*self.inner.shared.disk)
    }

    /// Replaces everything; durable when it returns. Apply nothing meanwhile: it would be
    /// replaced as well.
    pub async fn install(&self, snapshot: ReceivedSnapshot) -> io::Result<()> {
        self.ask_worker(|done| Job::Install(snapshot, done)).await
    }
}
