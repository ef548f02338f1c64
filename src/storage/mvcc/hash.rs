//! The state hash: equal on two replicas exactly when they hold the same state.
//!
//! Over the rows that are not logically compacted, newest first, so that one pass
//! knows which rows a compacted row has replaced: each row names the one it replaced.
//! How far a replica has flushed, or has removed compacted rows, does not show.

use std::collections::BTreeSet;
use std::io;

use super::row::{RowId, RowRef};
use super::state::{Shared, State};
use super::table::redb_error;
use super::types::AppliedMembership;
use crate::types::{LogId, Revision};

impl Shared {
    pub fn state_hash(&self) -> io::Result<(Option<LogId>, [u8; 32])> {
        let (mut pass, tail, view, applied) = {
            let state = self.state.read();
            (Pass::new(&state), state.tail.entries(), state.view.clone(), state.applied.last)
        };
        let mut encoded = Vec::new();
        for (id, row) in tail.iter().flat_map(|entry| &entry.rows).rev() {
            encoded.clear();
            row.as_ref().encode(&mut encoded);
            pass.row(*id, &encoded)?;
        }
        for entry in view.all_rows()?.rev() {
            let (id, encoded) = entry.map_err(redb_error)?;
            pass.row(RowId::from_key(id.value()), encoded.value())?;
        }
        Ok((applied, pass.hasher.finalize().into()))
    }
}

/// One pass over the rows, newest first.
struct Pass {
    hasher: blake3::Hasher,
    compacted: Revision,
    /// Up to here the table has no compacted rows any more.
    swept: RowId,
    /// Rows still to come that a compacted row has replaced.
    replaced: BTreeSet<RowId>,
}

impl Pass {
    fn new(state: &State) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&state.revision.to_le_bytes());
        hasher.update(&state.compacted.to_le_bytes());
        let AppliedMembership { at, bytes } = &state.applied.membership;
        let at = at.unwrap_or_default();
        hasher.update(&at.term.to_le_bytes());
        hasher.update(&at.index.to_le_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
        let (compacted, swept) = (state.compacted, state.view.meta.swept());
        Self { hasher, compacted, swept, replaced: BTreeSet::new() }
    }

    fn row(&mut self, id: RowId, encoded: &[u8]) -> io::Result<()> {
        if id.revision <= self.compacted {
            let row = RowRef::decode(encoded)?;
            // What swept rows replaced is gone: remembering it would only cost memory.
            if id > self.swept
                && let Some(previous) = row.previous
            {
                self.replaced.insert(previous);
            }
            if self.replaced.remove(&id) || row.is_tombstone() {
                return Ok(());
            }
        }
        self.hasher.update(&id.revision.to_le_bytes());
        self.hasher.update(&id.sub.to_le_bytes());
        self.hasher.update(&(encoded.len() as u64).to_le_bytes());
        self.hasher.update(encoded);
        Ok(())
    }
}
