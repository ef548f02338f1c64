//! The state hash: equal on two replicas exactly when they hold the same state.
//!
//! Over the rows that are not logically compacted, newest first, so that one pass
//! knows which rows a compacted row has replaced: each row names the one it replaced.
//! How far a replica has flushed, or has removed compacted rows, does not show.
//!
//! Two ways to it. [`Shared::state_hash`] takes what is applied at this moment, in one
//! go. A *mark* in the log fixes the state right after its entry, on every replica the
//! same: the worker ends a transaction there, and hands out the table as it is then, for
//! a [`StateHasher`] to read in small steps while everything goes on.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::row::{RowId, RowRef};
use super::state::Shared;
use super::table::{RowsRange, View, redb_error};
use super::tail::TailEntry;
use super::types::{AppliedMembership, Lease, ReadError};
use crate::types::{LogId, MemberId, Revision};

pub type StateHash = [u8; 32];

/// Of what goes into the hash. Only hashes of the same format can be compared: a version
/// that adds a table, or writes rows or memberships in another way, raises it.
pub const STATE_HASH_FORMAT: u32 = 2;

/// What one step of a [`StateHasher`] reads at most, in rows and in bytes: a millisecond
/// or two.
const STEP_ROWS: usize = 1_000;
const STEP_BYTES: usize = 1024 * 1024;
/// Marked states that wait to be hashed. Each keeps old pages of the table alive, so one
/// that finds another one waiting is left out.
const WAITING_MARKS: usize = 1;

impl Shared {
    pub fn state_hash(&self) -> io::Result<(Option<LogId>, StateHash)> {
        let (mut pass, tail, view, applied) = {
            let state = self.state.read();
            let (compacted, swept) = (state.compacted, state.view.meta.sweep().reached);
            let mut pass = Pass::new(state.revision, compacted, swept, &state.applied.membership);
            pass.leases(state.leases.clock_ms(), state.leases.iter());
            (pass, state.tail.entries(), state.view.clone(), state.applied.last)
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

/// A hash over the keys and their history alone, equal on replicas at the same revision.
pub struct KeysHash {
    pub hash: StateHash,
    /// Up to where the rows were read, and what is compacted before.
    pub revision: Revision,
    pub compacted: Revision,
}

impl Shared {
    /// Of the rows up to `at`, or all. Reads every row.
    pub fn hash_of_keys(&self, at: Option<Revision>) -> Result<KeysHash, ReadError> {
        let (mut pass, tail, view, upto) = {
            let state = self.state.read();
            state.check_readable(at)?;
            let pass = Pass::over_keys(state.compacted, state.view.meta.sweep().reached);
            (pass, state.tail.entries(), state.view.clone(), at.unwrap_or(state.revision))
        };
        let mut encoded = Vec::new();
        for (id, row) in tail.iter().flat_map(|entry| &entry.rows).rev() {
            if id.revision <= upto {
                encoded.clear();
                row.as_ref().encode(&mut encoded);
                pass.row(*id, &encoded)?;
            }
        }
        for entry in view.rows_between(RowId::default(), RowId::last_of(upto))?.rev() {
            let (id, encoded) = entry.map_err(redb_error)?;
            pass.row(RowId::from_key(id.value()), encoded.value())?;
        }
        let compacted = pass.compacted;
        Ok(KeysHash { hash: pass.hasher.finalize().into(), revision: upto, compacted })
    }
}

/// The table right after an entry with a mark.
pub struct MarkedState {
    pub at: LogId,
    /// Who led and asked for the comparison.
    pub proposer: MemberId,
    view: Arc<View>,
}

impl MarkedState {
    /// `None` when the last flushed entry has no mark. The view is the table after it.
    pub(super) fn of(last: &TailEntry, view: &Arc<View>) -> Option<Self> {
        let (proposer, at) = (last.mark?, last.applied.last?);
        Some(Self { at, proposer, view: view.clone() })
    }

    pub fn hasher(self) -> io::Result<StateHasher> {
        let meta = &self.view.meta;
        let membership = meta.applied().membership;
        let mut pass = Pass::new(meta.revision, meta.compacted, meta.sweep().reached, &membership);
        pass.leases(meta.lease_clock_ms, self.view.all_leases()?);
        Ok(StateHasher { pass, rows: self.view.all_rows()?, _view: self.view })
    }
}

/// Reads a marked state bit by bit.
pub struct StateHasher {
    pass: Pass,
    rows: RowsRange,
    /// After `rows`, which read from it.
    _view: Arc<View>,
}

impl StateHasher {
    /// Hashes the next few rows; the hash when there are no more.
    pub fn step(&mut self) -> io::Result<Option<StateHash>> {
        let mut bytes = 0;
        for _ in 0..STEP_ROWS {
            let Some(entry) = self.rows.next_back() else {
                return Ok(Some(self.pass.hasher.finalize().into()));
            };
            let (id, encoded) = entry.map_err(redb_error)?;
            self.pass.row(RowId::from_key(id.value()), encoded.value())?;
            bytes += encoded.value().len();
            if bytes >= STEP_BYTES {
                break;
            }
        }
        Ok(None)
    }
}

/// The way of marked states from the worker to whoever compares them, if anybody does.
#[derive(Default)]
pub(super) struct Marks(Mutex<Option<mpsc::Sender<MarkedState>>>);

impl Marks {
    /// From now on marked states go to this receiver, and to no earlier one.
    pub fn follow(&self) -> mpsc::Receiver<MarkedState> {
        let (sender, receiver) = mpsc::channel(WAITING_MARKS);
        *self.0.lock() = Some(sender);
        receiver
    }

    pub fn hand_out(&self, marked: MarkedState) {
        let sender = self.0.lock().clone();
        // Nobody compares, or it is busy with earlier ones: the next mark will do.
        let _ = sender.map(|sender| sender.try_send(marked));
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
    fn new(revision: Revision, compacted: Revision, swept: RowId, membership: &AppliedMembership) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&revision.to_le_bytes());
        hasher.update(&compacted.to_le_bytes());
        let AppliedMembership { at, bytes } = membership;
        let at = at.unwrap_or_default();
        hasher.update(&at.term.to_le_bytes());
        hasher.update(&at.index.to_le_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
        Self { hasher, ..Self::over_keys(compacted, swept) }
    }

    fn over_keys(compacted: Revision, swept: RowId) -> Self {
        Self { hasher: blake3::Hasher::new(), compacted, swept, replaced: BTreeSet::new() }
    }

    fn leases(&mut self, clock_ms: u64, leases: impl IntoIterator<Item = (i64, Lease)>) {
        self.hasher.update(&clock_ms.to_le_bytes());
        for (id, lease) in leases {
            self.hasher.update(&id.to_le_bytes());
            self.hasher.update(&lease.ttl_s.to_le_bytes());
            self.hasher.update(&lease.deadline_ms.to_le_bytes());
        }
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
