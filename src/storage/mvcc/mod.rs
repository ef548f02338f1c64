//! The multi-version store: what the log's entries make.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Disk, Workers};
use crate::metrics::Metrics;
use crate::proto::log::CommandBatch;
use crate::types::{LogId, LogIndex, Revision};

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// 1 when created, one more with each put.
    pub version: u64,
    /// 0: none.
    pub lease: i64,
}

/// What one command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Put {
        revision: Revision,
        previous: Option<KeyValue>,
    },
    /// `revision` is the store's, new only when something was deleted.
    Deleted {
        revision: Revision,
        previous: Vec<KeyValue>,
    },
    Compacted {
        revision: Revision,
    },
    /// Nothing changed. The key's modification revision, `None` when it does not exist.
    PreconditionFailed {
        current: Option<Revision>,
        revision: Revision,
    },
    /// Nothing changed: the command itself makes no sense (compaction of the future ...).
    Refused {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("compacted")]
    Compacted { oldest: Revision },
    #[error("future revision")]
    Future { current: Revision },
    #[error("{0}")]
    Failed(String),
}

/// A half-open range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// From `start` up to, not with, `end`.
    Between(Bytes, Bytes),
    /// From `start` to the last key.
    From(Bytes),
}

#[derive(Clone, Debug)]
pub struct RangeQuery {
    pub range: KeyRange,
    /// `None`: the newest.
    pub at: Option<Revision>,
    /// 0: no limit.
    pub limit: usize,
    pub keys_only: bool,
    pub count_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    pub kvs: Vec<KeyValue>,
    /// Keys in the range at that revision, whatever the limit.
    pub count: usize,
    pub more: bool,
    /// The store's revision when it was read.
    pub revision: Revision,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(KeyValue),
    Delete { key: Bytes, revision: Revision },
}

/// The last membership entry applied: the caller's bytes and where they stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedMembership {
    pub at: Option<LogId>,
    pub bytes: Bytes,
}

/// Where the state machine stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedState {
    pub last: Option<LogId>,
    pub membership: AppliedMembership,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub keys: u64,
    pub revision: Revision,
    pub compacted: Revision,
    /// Rows, and bytes, that are applied but not yet in the table.
    pub tail_rows: u64,
    pub tail_bytes: u64,
    pub disk_bytes: u64,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {}

/// A consistent image of the store, streamed while writes go on.
pub struct SnapshotImage {}

#[allow(unused_variables, clippy::todo)]
impl SnapshotImage {
    pub fn applied(&self) -> &AppliedState {
        todo!()
    }
    /// The next part of the encoded image; `None` at its end.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        todo!()
    }
}

/// An image being received: written to disk as it comes, checked, then installed.
pub struct SnapshotWriter {}

#[allow(unused_variables, clippy::todo)]
impl SnapshotWriter {
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        todo!()
    }
    /// Everything arrived: checks it and makes it durable, not yet visible.
    pub fn finish(self) -> io::Result<ReceivedSnapshot> {
        todo!()
    }
}

/// A complete, checked image on disk, ready for [`Store::install`].
pub struct ReceivedSnapshot {
    pub applied: AppliedState,
}

#[allow(unused_variables, clippy::todo)]
impl Store {
    pub fn open(disk: Arc<dyn Disk>, workers: &Workers, metrics: Arc<Metrics>) -> io::Result<Self> {
        todo!()
    }
    /// Applies one entry's commands; visible to readers when it returns. All of them or,
    /// after a crash, none.
    pub fn apply(&self, at: LogId, batch: &CommandBatch) -> io::Result<Vec<Reply>> {
        todo!()
    }
    pub fn apply_blank(&self, at: LogId) -> io::Result<()> {
        todo!()
    }
    pub fn apply_membership(&self, at: LogId, bytes: Bytes) -> io::Result<()> {
        todo!()
    }
    pub fn applied(&self) -> AppliedState {
        todo!()
    }
    /// What of it is in the table, on disk.
    pub fn durable(&self) -> AppliedState {
        todo!()
    }
    /// The log's durable index, beyond which nothing may reach the table.
    pub fn log_is_durable_upto(&self, index: LogIndex) {
        todo!()
    }
    /// Puts everything applied (and durable in the log) into the table, on disk.
    pub async fn flush(&self) -> io::Result<()> {
        todo!()
    }
    pub fn revision(&self) -> Revision {
        todo!()
    }
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<KeyValue>, ReadError> {
        todo!()
    }
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        todo!()
    }
    /// Changes with a revision above `after`, oldest first; at most `limit` but never part
    /// of a revision.
    pub fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ReadError> {
        todo!()
    }
    pub fn stats(&self) -> StoreStats {
        todo!()
    }
    /// Over all tables, without what is logically compacted.
    pub fn state_hash(&self) -> io::Result<(Option<LogId>, [u8; 32])> {
        todo!()
    }
    pub fn image(&self) -> io::Result<SnapshotImage> {
        todo!()
    }
    pub fn receive(&self) -> io::Result<SnapshotWriter> {
        todo!()
    }
    /// Replaces everything; durable when it returns.
    pub async fn install(&self, snapshot: ReceivedSnapshot) -> io::Result<()> {
        todo!()
    }
}
