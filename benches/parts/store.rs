//! The multi-version store: applying entries, and reading.

use std::sync::Arc;

use bellwether::proto::log::CommandBatch;
use bellwether::storage::mvcc::{KeyRange, KeyValue, RangeQuery, RangeResult, Reply, Store};
use bellwether::types::{LogId, LogIndex, Revision};
use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{WORKERS, batch, key, opened, put, value};

/// Revisions in one entry of a fill.
const FILL_BATCH: u64 = 1_000;
/// Room for rows that were read lately.
const RECENT_BYTES: u64 = 32 << 20;
/// Small: a fill is not what is measured.
const FILL_VALUE_BYTES: usize = 32;

/// A store that is fed by hand, as a log would.
pub struct Fed {
    pub runtime: Runtime,
    pub store: Store,
    next: LogIndex,
    keys: u64,
}

impl Fed {
    pub fn empty() -> Self {
        let (runtime, store) = opened(|disk| Store::open(disk, &WORKERS, RECENT_BYTES, Arc::default()));
        Self { runtime, store, next: 0, keys: 0 }
    }

    /// So many versions, of so many keys in turn, all in the table.
    pub fn filled(keys: u64, versions: u64) -> Self {
        let mut fed = Self { keys, ..Self::empty() };
        let value = value(FILL_VALUE_BYTES);
        for from in (0..versions).step_by(FILL_BATCH as usize) {
            let numbers = from..versions.min(from + FILL_BATCH);
            let puts = numbers.map(|number| put(key(number % keys), value.clone()));
            fed.apply(&batch(puts.collect()));
            fed.flush();
        }
        fed
    }

    pub fn apply(&mut self, batch: &CommandBatch) -> Vec<Reply> {
        let at = LogId { term: 1, index: self.next };
        self.next += 1;
        self.store.apply(at, batch, true).expect("in order")
    }

    /// Everything applied goes to the table.
    pub fn flush(&mut self) {
        self.store.log_is_durable_upto(self.next);
        self.runtime.block_on(self.store.flush()).expect("memory does not fail");
    }

    pub fn last(&self) -> Option<LogId> {
        self.store.applied().last
    }

    /// A key from the middle.
    pub fn get(&self, at: Option<Revision>) -> KeyValue {
        self.store.get(&key(self.keys / 2), at).expect("readable").expect("filled")
    }

    /// So many keys in a row, from the middle.
    pub fn range(&self, keys: u64) -> RangeResult {
        let (start, end): (Bytes, Bytes) = (key(self.keys / 2), key(self.keys / 2 + keys));
        let query = RangeQuery { range: KeyRange::Between(start, end), ..RangeQuery::default() };
        self.store.range(&query).expect("readable")
    }
}
