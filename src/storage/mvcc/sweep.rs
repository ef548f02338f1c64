//! Removing from the table what compaction forgot.
//!
//! A pass goes through the rows in order, step by step, up to the revision that was compacted
//! when it began: its goal. Two kinds of rows go:
//!
//! - those on its way that another had replaced by the goal, as the index knows. They go where
//!   they are, so the table's pages empty one after the other;
//! - those before its way, which the last pass left, once it comes to the row that replaced
//!   them, for each row names that. They are anywhere, a page for each, so passes are long:
//!   there are at most as many as there are keys.
//!
//! Tombstones go, too, but for those at the goal's own revision, which can still be asked for;
//! the next pass begins there. Where a pass is, is in the table's record, and with the rows
//! it changes in one transaction.

use std::io;

use bytes::Bytes;
use redb::ReadableTable as _;

use super::row::{RowId, RowRef};
use super::state::Shared;
use super::table::{Meta, RowsWriter, redb_error};
use crate::types::Revision;

/// Rows that one step looks at, so revisions at most as well: some ten milliseconds of work.
/// Tests have steps that a few rows make.
const STEP_ROWS: usize = if cfg!(test) { 100 } else { 4_000 };
/// Rows that are looked up, or forgotten, under one lock of the state: a fraction of a
/// millisecond, in which no entry is applied.
pub(super) const ROWS_A_LOCK: usize = 1_000;

/// How far sweeping has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    /// The pass looked at the rows from here...
    pub began: RowId,
    /// ...to here...
    pub reached: RowId,
    /// ...for what was replaced up to here. 0: by an older version, which did not look so far
    /// ahead.
    pub goal: Revision,
}

/// A version that is gone from the table: its key, to find it in the index.
pub(super) type Swept = (Bytes, RowId);

impl Sweep {
    /// Whether compaction has rows left to look at.
    pub fn is_behind(&self, compacted: Revision) -> bool {
        self.reached < RowId::last_of(compacted)
    }

    /// Whether the value at `version` is gone, which was replaced at `next`.
    pub fn has_taken(&self, version: RowId, next: RowId) -> bool {
        let was_looked_at = (self.began..=self.reached).contains(&version);
        next <= self.reached || was_looked_at && next.revision <= self.goal
    }

    /// Goes on with the pass, or begins the next.
    fn toward(self, compacted: Revision) -> Self {
        let is_over = self.goal == 0 || self.reached >= RowId::last_of(self.goal);
        if is_over { Self { began: self.next_row(), goal: compacted, ..self } } else { self }
    }

    /// The first row of the next step.
    fn next_row(&self) -> RowId {
        let RowId { revision, sub } = self.reached;
        match self.reached == RowId::last_of(revision) {
            // A pass that is over has left the tombstones of its last revision.
            true => RowId::first_of(revision),
            false => RowId { revision, sub: sub + 1 },
        }
    }
}

/// A row on the way.
struct Seen {
    id: RowId,
    key: Bytes,
    previous: Option<RowId>,
    is_tombstone: bool,
}

/// One step, which `meta` then knows of. Says which rows went.
pub(super) fn step(rows: &mut RowsWriter<'_>, meta: &mut Meta, shared: &Shared) -> io::Result<Vec<Swept>> {
    let sweep = meta.sweep().toward(meta.compacted);
    let (start, end) = (sweep.next_row(), RowId::last_of(sweep.goal));
    let seen = look(rows, start, end)?;
    let reached = if seen.len() < STEP_ROWS { end } else { seen.last().map_or(end, |row| row.id) };

    let (mut here, mut before) = (Vec::new(), Vec::new());
    for some in seen.chunks(ROWS_A_LOCK) {
        let state = shared.state.read();
        for Seen { id, key, previous, is_tombstone } in some {
            let is_gone = match is_tombstone {
                true => id.revision < sweep.goal,
                false => state.index.find(key, Some(sweep.goal)) != Some(*id),
            };
            here.extend(is_gone.then(|| (key.clone(), *id)));
            before.extend(previous.filter(|id| *id < sweep.began).map(|id| (key.clone(), id)));
        }
    }

    let mut gone = here.iter().map(|(_, id)| *id).peekable();
    if gone.peek().is_some() {
        let way = start.to_key()..=reached.to_key();
        let stays = |id, _: &[u8]| gone.next_if_eq(&RowId::from_key(id)).is_none();
        rows.retain_in(way, stays).map_err(redb_error)?;
    }
    before.sort_unstable_by_key(|(_, id)| *id);
    for (_, id) in &before {
        rows.remove(id.to_key()).map_err(redb_error)?;
    }
    here.append(&mut before);
    meta.set_sweep(Sweep { reached, ..sweep });
    Ok(here)
}

fn look(rows: &RowsWriter<'_>, start: RowId, end: RowId) -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for entry in rows.range(start.to_key()..=end.to_key()).map_err(redb_error)?.take(STEP_ROWS) {
        let (id, encoded) = entry.map_err(redb_error)?;
        let row = RowRef::decode(encoded.value())?;
        let (key, previous) = (Bytes::copy_from_slice(row.key), row.previous);
        let is_tombstone = row.is_tombstone();
        seen.push(Seen { id: RowId::from_key(id.value()), key, previous, is_tombstone });
    }
    Ok(seen)
}
