//! Appending to the log, by writers that wait together and by one after the other.

use std::sync::Arc;

use bellwether::storage::log::{Entry, EntryKind, Log, LogOptions};
use bellwether::types::{LogId, LogIndex};
use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{MANY, VALUE_BYTES, WORKERS, opened, value};

const OPTIONS: LogOptions = LogOptions { segment_bytes: 4 << 20, cache_bytes: 1 << 20, reserve_bytes: 0 };
/// Entries after which older ones are purged, so that a long run needs no more memory than a
/// short one.
const PURGE_EVERY: LogIndex = 64 * MANY;

pub struct Appending {
    runtime: Runtime,
    log: Log,
    payload: Bytes,
    next: LogIndex,
}

impl Appending {
    pub fn new() -> Self {
        let (runtime, log) = opened(|disk| Log::open(disk, &WORKERS, OPTIONS, Arc::default()));
        Self { runtime, log, payload: value(VALUE_BYTES), next: 0 }
    }

    /// [`MANY`] appends while nobody writes, then one write for all of them.
    pub fn together(&mut self) {
        for _ in 0..MANY {
            self.append();
        }
        self.flush();
    }

    /// Each is on disk before the next one comes.
    pub fn one_by_one(&mut self) {
        for _ in 0..MANY {
            self.append();
            self.flush();
        }
    }

    fn append(&mut self) {
        let id = LogId { term: 1, index: self.next };
        let entry = Entry { id, kind: EntryKind::Batch, payload: self.payload.clone() };
        self.log.append(vec![entry], Box::new(|flushed| flushed.expect("memory"))).expect("in order");
        self.next += 1;
    }

    fn flush(&mut self) {
        self.runtime.block_on(self.log.flush()).expect("memory does not fail");
        if self.next.is_multiple_of(PURGE_EVERY) {
            let upto = LogId { term: 1, index: self.next - 1 };
            self.runtime.block_on(self.log.purge(upto)).expect("memory does not fail");
        }
    }
}
