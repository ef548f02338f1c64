//! Reads. Each takes the lock once, to find its rows in the index and to hold on to the
//! view that has them, and reads the table without it.

use std::io;
use std::sync::Arc;

use super::row::{Row, RowId, RowRef};
use super::select::{Found, Selection};
use super::state::{Shared, State};
use super::table::{View, redb_error};
use super::types::{Change, KeyValue, RangeQuery, RangeResult, ReadError};
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
        let mut page = Page::new(limit);
        let (tail, view) = {
            let state = self.state.read();
            if after < state.compacted {
                return Err(ReadError::Compacted { oldest: state.compacted });
            }
            let view_has_some = after < state.view.meta.revision;
            (tail_page(&state, after, limit), view_has_some.then(|| state.view.clone()))
        };
        if let Some(view) = view
            && !page.fill_from_table(&view, after)?
        {
            return Ok(page.changes);
        }
        for (id, row) in &tail {
            if !page.push(*id, || row.to_change(*id)) {
                break;
            }
        }
        Ok(page.changes)
    }
}

/// The tail's rows after a revision, up to and with the one that surely overfills a page.
fn tail_page(state: &State, after: Revision, limit: usize) -> Vec<(RowId, Row)> {
    let mut page = Page::new(limit);
    let mut rows = Vec::new();
    for (id, row) in state.tail.rows_after(after) {
        rows.push((*id, row.clone()));
        if !page.push(*id, || row.to_change(*id)) {
            break;
        }
    }
    rows
}

/// Changes in order, cut at the end of a revision.
struct Page {
    changes: Vec<Change>,
    limit: usize,
    /// The revision of the last change, and how many changes came before that revision.
    last: Revision,
    before_last: usize,
}

impl Page {
    fn new(limit: usize) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Self { changes: Vec::new(), limit, last: 0, before_last: 0 }
    }

    /// False when the page is full. The first revision is taken whole even when it alone is
    /// longer than the limit: otherwise a reader could never get past it.
    fn push(&mut self, id: RowId, change: impl FnOnce() -> Change) -> bool {
        if id.revision != self.last {
            if self.changes.len() >= self.limit {
                return false;
            }
            self.last = id.revision;
            self.before_last = self.changes.len();
        } else if self.changes.len() >= self.limit && self.before_last > 0 {
            self.changes.truncate(self.before_last);
            return false;
        }
        self.changes.push(change());
        true
    }

    /// False when the page is full.
    fn fill_from_table(&mut self, view: &Arc<View>, after: Revision) -> io::Result<bool> {
        let start = RowId::first_of(after.saturating_add(1));
        for entry in view.rows_between(start, RowId::last_of(Revision::MAX))? {
            let (id, encoded) = entry.map_err(redb_error)?;
            let id = RowId::from_key(id.value());
            let row = RowRef::decode(encoded.value())?;
            if !self.push(id, || row.to_row().to_change(id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
