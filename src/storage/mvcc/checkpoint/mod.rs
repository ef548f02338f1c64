//! Checkpoints of the key index, so that a start need not read every row.
//!
//! The index is a function of the table's rows, so a checkpoint says nothing new and may be
//! thrown away at any time. Rows are only added at the end, and removed by sweeps; a
//! checkpoint therefore names the table by its generation, the revision up to which it has
//! the rows, and how far a sweep had come. On open, [`read()`] follows the table from there:
//! it forgets what was swept since, and reads the rows that were added. What it cannot
//! follow, or does not add up in the end, is no use, and then every row is read.
//!
//! [`mod@write`] makes one in small steps between flushes, so that nothing waits for it. Sweeps
//! do wait, for the index must not lose versions meanwhile; versions that it gains are left
//! out, for they are later than the checkpoint.
//!
//! The file is a stream of frames, like a snapshot: a header, parts with keys in order, a
//! footer. `docs/format.md` has the layout.

mod read;
mod record;
mod write;

use prost::Message;

pub(super) use read::{Checkpoint, read};
pub(super) use write::Writing;

use super::row::RowId;
use crate::env::Disk;

pub(super) const CHECKPOINT_FILE: &str = "state.index";
/// One in the making. It becomes [`CHECKPOINT_FILE`] by a rename, once it is whole and on
/// disk; one found on open is what a crash left behind.
pub(super) const NEW_CHECKPOINT_FILE: &str = "state.index.new";
const FORMAT: u32 = 1;

/// Of which rows of which table it is.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// The table's.
    #[prost(uint64, tag = "2")]
    generation: u64,
    /// The rows at and before this revision.
    #[prost(uint64, tag = "3")]
    revision: u64,
    /// Up to here the rows were swept.
    #[prost(message, optional, tag = "4")]
    swept: Option<StoredRowId>,
    /// The last of the rows, and the CRC32C of its encoding.
    #[prost(message, optional, tag = "5")]
    last: Option<StoredRowId>,
    #[prost(uint32, tag = "6")]
    last_crc: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredRowId {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(uint32, tag = "2")]
    sub: u32,
}

impl From<RowId> for StoredRowId {
    fn from(RowId { revision, sub }: RowId) -> Self {
        Self { revision, sub }
    }
}

impl From<StoredRowId> for RowId {
    fn from(StoredRowId { revision, sub }: StoredRowId) -> Self {
        Self { revision, sub }
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Footer {
    #[prost(uint64, tag = "1")]
    keys: u64,
    #[prost(uint64, tag = "2")]
    versions: u64,
}

/// Removes all that there is of checkpoints, before the table becomes another one.
pub(super) fn remove(disk: &dyn Disk) -> std::io::Result<()> {
    disk.remove(NEW_CHECKPOINT_FILE)?;
    disk.remove(CHECKPOINT_FILE)
}
