//! The tail: what is applied but not yet in the table.
//!
//! One element per log entry, with the rows it made and the state right after it: so one
//! entry's commands are never split over two transactions. Entries are shared, not
//! copied, with whoever works on them outside of the lock.

use std::collections::VecDeque;
use std::sync::Arc;

use super::leases::LeaseChange;
use super::row::{Row, RowId};
use super::types::AppliedState;
use crate::types::{LogIndex, MemberId, Revision};

/// What a row costs in memory beside its key and value, roughly, in bytes.
const ROW_OVERHEAD_BYTES: u64 = 128;
/// What an entry costs beside its rows, roughly, in bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 160;

/// One applied log entry: its rows, in order of their ids, and the state after it.
pub(super) struct TailEntry {
    pub applied: AppliedState,
    pub revision: Revision,
    pub compacted: Revision,
    pub rows: Vec<(RowId, Row)>,
    pub leases: LeaseState,
    /// The state right after this entry is to be compared; who asked for that.
    pub mark: Option<MemberId>,
    bytes: u64,
}

/// What an entry did to the leases, and their clock after it.
pub(super) struct LeaseState {
    pub clock_ms: u64,
    pub changes: Vec<LeaseChange>,
}

#[derive(Default)]
pub(super) struct Tail {
    entries: VecDeque<Arc<TailEntry>>,
    /// The rows of the entry that is being applied, and their bytes: not yet to be
    /// flushed, but its later commands may read them.
    open: Vec<(RowId, Row)>,
    open_bytes: u64,
    /// Its mark, if it has one.
    open_mark: Option<MemberId>,
    /// Sums over `entries`.
    rows: u64,
    bytes: u64,
}

impl Tail {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes room for the rows of an entry with this many commands.
    pub fn begin_entry(&mut self, commands: usize) {
        self.open.reserve_exact(commands);
    }

    pub fn push(&mut self, id: RowId, row: Row) {
        self.open_bytes += ROW_OVERHEAD_BYTES + (row.key.len() + row.value.len()) as u64;
        self.open.push((id, row));
    }

    /// The entry that is being applied asks for a comparison of what it leaves.
    pub fn mark(&mut self, proposer: MemberId) {
        self.open_mark = Some(proposer);
    }

    /// Ends a log entry: everything pushed since the last one belongs to it.
    pub fn end_entry(
        &mut self,
        applied: AppliedState,
        revision: Revision,
        compacted: Revision,
        leases: LeaseState,
    ) {
        let rows = std::mem::take(&mut self.open);
        let lease_bytes = std::mem::size_of_val(&leases.changes[..]) as u64;
        let bytes = std::mem::take(&mut self.open_bytes) + ENTRY_OVERHEAD_BYTES + lease_bytes;
        self.rows += rows.len() as u64;
        self.bytes += bytes;
        let mark = self.open_mark.take();
        let entry = TailEntry { applied, revision, compacted, rows, leases, mark, bytes };
        self.entries.push_back(Arc::new(entry));
    }

    pub fn get(&self, id: RowId) -> Option<&Row> {
        // The first entry that reached the row's revision is the one that made it.
        let place = self.entries.partition_point(|entry| entry.revision < id.revision);
        let rows = self.entries.get(place).map_or(&self.open, |entry| &entry.rows);
        let place = rows.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        rows.get(place).map(|(_, row)| row)
    }

    /// Rows with a revision above `after`, oldest first.
    pub fn rows_after(&self, after: Revision) -> impl Iterator<Item = &(RowId, Row)> {
        let start = self.entries.partition_point(|entry| entry.revision <= after);
        let rows = self.entries.range(start..).flat_map(|entry| &entry.rows);
        rows.skip_while(move |(id, _)| id.revision <= after)
    }

    pub fn entries(&self) -> Vec<Arc<TailEntry>> {
        self.entries.iter().cloned().collect()
    }

    /// The entries up to and with `index`, or with the first one that has a mark.
    pub fn entries_upto(&self, index: LogIndex) -> Vec<Arc<TailEntry>> {
        let mut marked = false;
        let upto = self.entries.iter().take_while(|entry| {
            let after_mark = marked;
            marked |= entry.mark.is_some();
            !after_mark && entry.is_upto(index)
        });
        upto.cloned().collect()
    }

    /// Cuts off the first `count` entries. What comes back should be dropped outside of any
    /// lock: freeing many values takes a while.
    #[must_use]
    pub fn drop_first(&mut self, count: usize) -> VecDeque<Arc<TailEntry>> {
        let kept = self.entries.split_off(count);
        let dropped = std::mem::replace(&mut self.entries, kept);
        self.rows -= dropped.iter().map(|entry| entry.rows.len() as u64).sum::<u64>();
        self.bytes -= dropped.iter().map(|entry| entry.bytes).sum::<u64>();
        dropped
    }
}

impl TailEntry {
    fn is_upto(&self, index: LogIndex) -> bool {
        self.applied.last.is_none_or(|last| last.index <= index)
    }
}
