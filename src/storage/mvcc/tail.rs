//! The tail: what is applied but not yet in the table.
//!
//! Rows are in order of their ids and follow the table's last row without a gap. Each
//! applied log entry leaves a [`Mark`]: the places where the tail may be cut, so that
//! one entry's commands are never split over two transactions.

use std::collections::VecDeque;

use super::row::{Row, RowId};
use super::types::AppliedState;
use crate::types::{LogIndex, Revision};

/// What a row costs in memory beside its key and value, roughly, in bytes.
const ROW_OVERHEAD_BYTES: u64 = 128;
/// What an entry's mark costs, roughly, in bytes.
const MARK_OVERHEAD_BYTES: u64 = 128;

/// The store's state right after one log entry.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub applied: AppliedState,
    pub revision: Revision,
    pub compacted: Revision,
    /// Rows, and bytes, ever pushed when the entry ended: places in the tail that do
    /// not move when its front is dropped.
    rows_end: u64,
    bytes_end: u64,
}

#[derive(Default)]
pub(super) struct Tail {
    rows: VecDeque<(RowId, Row)>,
    marks: VecDeque<Mark>,
    /// Ever pushed, and ever dropped from the front.
    rows_pushed: u64,
    rows_dropped: u64,
    bytes_pushed: u64,
    bytes_dropped: u64,
}

impl Tail {
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.bytes_pushed - self.bytes_dropped
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub fn push(&mut self, id: RowId, row: Row) {
        self.bytes_pushed += ROW_OVERHEAD_BYTES + (row.key.len() + row.value.len()) as u64;
        self.rows_pushed += 1;
        self.rows.push_back((id, row));
    }

    /// Ends a log entry: everything pushed since the last mark belongs to it.
    pub fn end_entry(&mut self, applied: AppliedState, revision: Revision, compacted: Revision) {
        self.bytes_pushed += MARK_OVERHEAD_BYTES;
        let (rows_end, bytes_end) = (self.rows_pushed, self.bytes_pushed);
        self.marks.push_back(Mark { applied, revision, compacted, rows_end, bytes_end });
    }

    pub fn get(&self, id: RowId) -> Option<&Row> {
        // Most reads are of rows that went to the table long ago.
        if self.rows.front()?.0 > id {
            return None;
        }
        let place = self.rows.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.rows.get(place).map(|(_, row)| row)
    }

    /// Rows with a revision above `after`, oldest first.
    pub fn rows_after(&self, after: Revision) -> impl Iterator<Item = &(RowId, Row)> {
        let start = self.rows.partition_point(|(id, _)| id.revision <= after);
        self.rows.range(start..)
    }

    /// The last mark of an entry at or before `index`.
    pub fn last_mark_upto(&self, index: LogIndex) -> Option<&Mark> {
        let at_or_before = |mark: &Mark| mark.applied.last.is_none_or(|last| last.index <= index);
        let after = self.marks.partition_point(at_or_before);
        self.marks.get(after.checked_sub(1)?)
    }

    /// Copies up to `count` rows that come before `mark`, after the first `skip` of them.
    pub fn rows_before(&self, mark: &Mark, skip: usize, count: usize) -> Vec<(RowId, Row)> {
        let end = (mark.rows_end - self.rows_dropped) as usize;
        let start = skip.min(end);
        self.rows.range(start..end.min(start + count)).cloned().collect()
    }

    /// Cuts off everything up to `mark`. What comes back should be dropped outside of
    /// any lock: freeing many values takes a while.
    #[must_use]
    pub fn drop_upto(&mut self, mark: &Mark) -> impl Sized + use<> {
        let rows = (mark.rows_end - self.rows_dropped) as usize;
        // Every entry adds bytes, also one without rows, so bytes tell entries apart.
        let marks = self.marks.partition_point(|other| other.bytes_end <= mark.bytes_end);
        let kept_rows = self.rows.split_off(rows);
        let kept_marks = self.marks.split_off(marks);
        self.rows_dropped = mark.rows_end;
        self.bytes_dropped = mark.bytes_end;
        (std::mem::replace(&mut self.rows, kept_rows), std::mem::replace(&mut self.marks, kept_marks))
    }
}
