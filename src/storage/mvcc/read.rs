//! Reads. Each takes the lock once, to find its rows in the index and to hold on to the
//! view that has them, and reads the table without it.

use std::io;
use std::sync::Arc;

use super::row::{Row, RowId, RowRef};
use super::select::{Found, Selection};
use super::state::{Shared, State};
use super::table::{View, redb_error};
use super::types::{
    Change, HistoryPage, HistoryRow, KeyValue, PageLimit, RangeQuery, RangeResult, ReadError,
};
use crate::types::Revision;

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Failed(error.to_string())
    }
}

impl Shared {
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<KeyValue>, ReadError> {
        let (found, view) = {
            let state = self.state.read();
            state.check_readable(at)?;
            let Some(id) = state.index.find(key, at) else { return Ok(None) };
            match Found::at(&state, id) {
                Found::InTail(kv) => return Ok(Some(kv)),
                found => (found, state.view.clone()),
            }
        };
        Ok(Some(found.read(&view, false)?))
    }

    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        let (selection, view) = {
            let state = self.state.read();
            (Selection::find(&state, query)?, state.view.clone())
        };
        Ok(selection.read(&view, query)?)
    }

    pub fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ReadError> {
        let compacted = self.state.read().compacted;
        if after < compacted {
            return Err(ReadError::Compacted { oldest: compacted });
        }
        let limit = PageLimit { rows: limit, bytes: usize::MAX };
        Ok(self.history(after, limit)?.rows.into_iter().map(|row| row.change).collect())
    }

    pub fn history(&self, after: Revision, limit: PageLimit) -> Result<HistoryPage, ReadError> {
        let mut page = Page::new(limit);
        let (tail, view, revision) = {
            let state = self.state.read();
            // The changes at the compacted revision itself are kept.
            if after.saturating_add(1) < state.compacted {
                return Err(ReadError::Compacted { oldest: state.compacted });
            }
            let view_has_some = after < state.view.meta.revision;
            let view = view_has_some.then(|| state.view.clone());
            (tail_page(&state, after, limit), view, state.revision)
        };
        if let Some(view) = view
            && !page.fill_from_table(&view, after)?
        {
            return Ok(page.cut());
        }
        for (id, row) in &tail {
            if !page.push(*id, || row.to_history(*id)) {
                return Ok(page.cut());
            }
        }
        Ok(HistoryPage { rows: page.rows, upto: revision.max(after) })
    }

    /// What was there before each of these rows' revisions: nothing when the key was not, or
    /// when that is compacted by now.
    pub fn replaced(&self, rows: &[&HistoryRow]) -> io::Result<Vec<Option<KeyValue>>> {
        let (found, view) = {
            let state = self.state.read();
            let found: Vec<Option<Found>> = rows.iter().map(|row| find_replaced(&state, row)).collect();
            (found, state.view.clone())
        };
        let read = |(row, found): (&&HistoryRow, Option<Found>)| match found {
            Some(Found::InTable(id)) => {
                let before = before_revision(&view, row.change.revision(), id)?;
                before.map(|id| Found::InTable(id).read(&view, false)).transpose()
            }
            found => found.map(|found| found.read(&view, false)).transpose(),
        };
        rows.iter().zip(found).map(read).collect()
    }
}

/// As far as the tail knows it; a transaction's rows are all there, or all in the table.
fn find_replaced(state: &State, row: &HistoryRow) -> Option<Found> {
    let revision = row.change.revision();
    let mut id = row.replaced.filter(|_| revision > state.compacted)?;
    while id.revision == revision
        && let Some(earlier) = state.tail.get(id)
    {
        id = earlier.previous?;
    }
    Some(Found::at(state, id))
}

/// The same for the table.
fn before_revision(view: &View, revision: Revision, id: RowId) -> io::Result<Option<RowId>> {
    let mut before = Some(id);
    while let Some(id) = before.filter(|id| id.revision == revision) {
        before = view.row(id, |row| row.previous)?;
    }
    Ok(before)
}

/// The tail's rows after a revision, up to and with the one that surely overfills a page.
fn tail_page(state: &State, after: Revision, limit: PageLimit) -> Vec<(RowId, Row)> {
    let mut page = Page::new(limit);
    let mut rows = Vec::new();
    for (id, row) in state.tail.rows_after(after) {
        rows.push((*id, row.clone()));
        if !page.push(*id, || row.to_history(*id)) {
            break;
        }
    }
    rows
}

/// Rows in order, cut at the end of a revision.
struct Page {
    rows: Vec<HistoryRow>,
    bytes: usize,
    limit: PageLimit,
    /// The revision of the last row, and how many rows came before that revision.
    last: Revision,
    before_last: usize,
}

impl Page {
    fn new(limit: PageLimit) -> Self {
        let rows = if limit.rows == 0 { usize::MAX } else { limit.rows };
        let limit = PageLimit { rows, ..limit };
        Self { rows: Vec::new(), bytes: 0, limit, last: 0, before_last: 0 }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit.rows || self.bytes >= self.limit.bytes
    }

    /// False when the page is full. The first revision is taken whole even when it alone is
    /// longer than the limit: otherwise a reader could never get past it.
    fn push(&mut self, id: RowId, row: impl FnOnce() -> HistoryRow) -> bool {
        if id.revision != self.last {
            if self.is_full() {
                return false;
            }
            self.last = id.revision;
            self.before_last = self.rows.len();
        } else if self.is_full() && self.before_last > 0 {
            self.rows.truncate(self.before_last);
            return false;
        }
        let row = row();
        self.bytes += row.bytes();
        self.rows.push(row);
        true
    }

    /// A page that something did not fit into.
    fn cut(self) -> HistoryPage {
        let upto = self.rows.last().map_or(0, |row| row.change.revision());
        HistoryPage { rows: self.rows, upto }
    }

    /// False when the page is full.
    fn fill_from_table(&mut self, view: &Arc<View>, after: Revision) -> io::Result<bool> {
        let start = RowId::first_of(after.saturating_add(1));
        for entry in view.rows_between(start, RowId::last_of(Revision::MAX))? {
            let (id, encoded) = entry.map_err(redb_error)?;
            let id = RowId::from_key(id.value());
            let row = RowRef::decode(encoded.value())?;
            if !self.push(id, || row.to_row().to_history(id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
