//! The newest entries, in memory, for apply and replication.

use std::collections::VecDeque;

use super::Entry;
use crate::types::LogIndex;

/// What an entry costs besides its payload, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// A run of neighbours that ends with the log's last entry, or nothing.
#[derive(Debug)]
pub(super) struct Cache {
    entries: VecDeque<Entry>,
    bytes: usize,
    max_bytes: usize,
}

fn cost(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES + entry.payload.len()
}

impl Cache {
    pub fn new(max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_bytes }
    }

    pub fn push(&mut self, entry: Entry) {
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
    }

    fn first(&self) -> Option<LogIndex> {
        self.entries.front().map(|entry| entry.id.index)
    }

    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.first()?)?).ok()?)
    }

    /// Forgets the entries from `end` on.
    pub fn truncate(&mut self, end: LogIndex) {
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.id.index >= end) {
            self.bytes -= cost(&entry);
        }
    }

    pub fn purge(&mut self, upto: LogIndex) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.id.index <= upto) {
            self.bytes -= cost(&entry);
        }
    }

    /// Drops the oldest entries while there are too many bytes, but none that cannot be
    /// read back yet.
    pub fn evict(&mut self, on_disk: impl Fn(LogIndex) -> bool) {
        while self.bytes > self.max_bytes {
            let Some(entry) = self.entries.pop_front_if(|entry| on_disk(entry.id.index)) else { break };
            self.bytes -= cost(&entry);
        }
    }
}
