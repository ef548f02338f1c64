//! Tests of the whole store: against a model, across crashes, and through snapshots.

mod checkpoints;
mod compaction;
mod crash;
mod fuzz;
mod marks;
mod model;
mod properties;
mod snapshots;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::apply::BATCH_FORMAT;
use super::*;
use crate::env::fake_disk::FakeDisk;
use crate::proto::log::command::Op;
use crate::proto::log::compare::With;
use crate::proto::log::precondition::Is;
use crate::proto::log::{
    self as pb, Command, Compact, Compare, Delete, LeaseExpire, LeaseGrant, LeaseRenew, LeaseRevoke,
    LeaseTick, Precondition, Put, StateCheck, TxnOp, txn_op,
};

/// A store on a disk in memory, and the log that would feed it: it knows the next index
/// and can tell the store that everything is durable.
struct Bench {
    disk: FakeDisk,
    store: Store,
    next: LogIndex,
}

impl Bench {
    fn new() -> Self {
        Self::on(FakeDisk::new())
    }

    fn on(disk: FakeDisk) -> Self {
        let store = open(&disk).expect("opens");
        let next = store.applied().last.map_or(0, |last| last.index + 1);
        Self { disk, store, next }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        let at = self.next_id();
        self.store.apply(at, &batch(at.index, commands), true).expect("applies")
    }

    fn apply_one(&mut self, command: Command) -> Reply {
        self.apply(vec![command]).remove(0)
    }

    fn next_id(&mut self) -> LogId {
        self.next += 1;
        LogId { term: 1, index: self.next - 1 }
    }

    async fn flush_all(&self) {
        self.store.log_is_durable_upto(self.next);
        self.store.flush().await.expect("flushes");
    }

    /// Power loss, then a restart from what the disk kept.
    fn crash(self) -> Self {
        self.crash_with(1)
    }

    /// The seed decides what the disk keeps of what was not synced.
    fn crash_with(self, seed: u64) -> Self {
        self.disk.crash(&mut SmallRng::seed_from_u64(seed));
        Self::on(self.disk)
    }

    /// `kill -9`, then a restart.
    fn kill(self) -> Self {
        self.disk.kill();
        Self::on(self.disk)
    }
}

/// Room for rows that were read lately: all of a test.
const RECENT_BYTES: u64 = 1 << 20;

fn open(disk: &FakeDisk) -> io::Result<Store> {
    // A crashed disk's old handles fail; the store gets a handle of the new life.
    let workers = Workers::Tasks { delay: || Duration::ZERO };
    Store::open(Arc::new(disk.boot()), &workers, RECENT_BYTES, Arc::new(Metrics::default()))
}

/// Waits for something that the timer makes happen.
async fn eventually(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen in 30 seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn batch(index: LogIndex, commands: Vec<Command>) -> CommandBatch {
    CommandBatch { format: BATCH_FORMAT, time_ms: 0, commands, lease_clock_ms: lease_clock_ms(index) }
}

/// What the entry at this index says of the lease clock.
fn lease_clock_ms(index: LogIndex) -> u64 {
    index * 500
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    let put = Put { key: key.into(), value: value.into(), prev_kv: true, ..Put::default() };
    Command { op: Some(Op::Put(put)), precondition: None }
}

fn delete(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Command {
    let delete = Delete { key: key.into(), range_end: range_end.into(), prev_kv: true };
    Command { op: Some(Op::Delete(delete)), precondition: None }
}

fn compact(revision: Revision) -> Command {
    Command { op: Some(Op::Compact(Compact { revision })), precondition: None }
}

fn mark(leader: u64) -> Command {
    Command { op: Some(Op::StateCheck(StateCheck { leader })), precondition: None }
}

fn when(is: Is, command: Command) -> Command {
    Command { precondition: Some(Precondition { is: Some(is) }), ..command }
}

fn everything(at: Option<Revision>) -> RangeQuery {
    RangeQuery { at, ..RangeQuery::default() }
}
