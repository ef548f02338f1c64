//! What the store takes and gives: values, queries, replies. No logic.

use bytes::Bytes;

use crate::types::{LogId, Revision};

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

/// What one command did. `revision` is always the store's after the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Put {
        revision: Revision,
        create_revision: Revision,
        version: u64,
        /// Only when the command asked for it.
        previous: Option<KeyValue>,
    },
    /// `revision` is the store's, new only when something was deleted.
    Deleted {
        revision: Revision,
        /// How many keys.
        deleted: u64,
        /// Only when the command asked for them.
        previous: Vec<KeyValue>,
    },
    Compacted {
        revision: Revision,
    },
    /// Nothing changed; the state after this entry will be compared.
    Marked {
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
