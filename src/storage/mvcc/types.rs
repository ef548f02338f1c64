//! What the store takes and gives: values, queries, replies. No logic.

use std::borrow::Cow;

use bytes::Bytes;

use super::row::RowId;
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
    Txn {
        revision: Revision,
        /// Which branch was carried out.
        succeeded: bool,
        /// One for each of its operations.
        replies: Vec<Reply>,
    },
    /// A read within a transaction.
    Range(RangeResult),
    Compacted {
        revision: Revision,
    },
    /// Granted or renewed; it has all its time to live.
    Lease {
        revision: Revision,
        ttl_s: i64,
    },
    /// Their keys are deleted.
    LeasesEnded {
        revision: Revision,
    },
    /// The lease clock moved on.
    Ticked {
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
    /// Nothing changed: the command cannot be carried out on this state.
    Refused {
        why: Refusal,
    },
}

/// Why a command cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("revision {asked} has been compacted; the store is at {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is in the future; the store is at {current}")]
    FutureRevision { asked: Revision, current: Revision },
    #[error("the key does not exist, so it has no value or lease to keep")]
    KeyNotFound,
    #[error("there is no such lease")]
    LeaseNotFound,
    #[error("there is a lease with this id already")]
    LeaseExists,
    /// The command itself makes no sense.
    #[error("{0}")]
    Senseless(Cow<'static, str>),
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyRange {
    One(Bytes),
    /// From `start` up to, not with, `end`.
    Between(Bytes, Bytes),
    /// From `start` to the last key.
    From(Bytes),
}

impl KeyRange {
    /// The first key after all keys with that prefix; `None` when there is none.
    pub fn end_of_prefix(prefix: &[u8]) -> Option<Bytes> {
        let keep = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
        let mut end = prefix[..=keep].to_vec();
        end[keep] += 1;
        Some(end.into())
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::Between(start, end) => (&start[..]..&end[..]).contains(&key),
            KeyRange::From(start) => &start[..] <= key,
        }
    }
}

impl Default for KeyRange {
    /// All keys.
    fn default() -> Self {
        KeyRange::From(Bytes::new())
    }
}

/// By default all keys, newest version, in order.
#[derive(Clone, Debug, Default)]
pub struct RangeQuery {
    pub range: KeyRange,
    /// `None`: the newest.
    pub at: Option<Revision>,
    /// 0: no limit.
    pub limit: usize,
    pub bounds: RevisionBounds,
    /// `None`: by key, ascending.
    pub sort: Option<Sort>,
    pub keys_only: bool,
    pub count_only: bool,
}

/// Which of the keys found are returned: both ends are included, 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionBounds {
    pub min_mod: Revision,
    pub max_mod: Revision,
    pub min_create: Revision,
    pub max_create: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub by: SortBy,
    pub descending: bool,
    /// Cut one above the limit first, by key, then sort, then cut at the limit.
    pub after_limit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Key,
    Version,
    CreateRevision,
    ModRevision,
    Value,
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

impl Change {
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Put(kv) => &kv.key,
            Change::Delete { key, .. } => key,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(kv) => kv.mod_revision,
            Change::Delete { revision, .. } => *revision,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Change::Put(kv) => kv.key.len() + kv.value.len(),
            Change::Delete { key, .. } => key.len(),
        }
    }
}

/// A change as history has it: with what it replaced, for [`super::Store::replaced`].
#[derive(Clone, Debug)]
pub struct HistoryRow {
    pub change: Change,
    pub(super) replaced: Option<RowId>,
}

impl HistoryRow {
    pub(super) fn bytes(&self) -> usize {
        self.change.bytes()
    }
}

/// A part of history, whole revisions in order.
#[derive(Clone, Debug, Default)]
pub struct HistoryPage {
    pub rows: Vec<HistoryRow>,
    /// There is nothing else up to this revision: the store's when the page was read, or
    /// that of the page's last row when there is more.
    pub upto: Revision,
}

/// How much of history one page may have. A revision is never cut: a page has at least
/// one, however large it is.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// 0: no limit.
    pub rows: usize,
    /// Keys and values together.
    pub bytes: usize,
}

/// A lease as it is replicated. Whether its time is over is for the leader to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its whole time to live.
    pub ttl_s: i64,
    /// When it ends, on the lease clock.
    pub deadline_ms: u64,
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
