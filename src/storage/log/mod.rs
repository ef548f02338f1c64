//! The replicated log on disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Disk, Workers};
use crate::metrics::Metrics;
use crate::types::{LogId, LogIndex, Term};

/// What an entry carries; the bytes are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Blank,
    /// An encoded `CommandBatch`.
    Batch,
    /// An encoded `Membership`.
    Membership,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: LogId,
    pub kind: EntryKind,
    pub payload: Bytes,
}

/// Whom this node voted for, or follows when committed (Raft, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    pub term: Term,
    pub voted_for: u64,
    pub committed: bool,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    pub segment_bytes: u64,
    /// Entries kept in memory for apply and replication; older ones are read back.
    pub cache_bytes: usize,
}

/// Called once, when what was handed over is on disk or has failed.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A handle on the log; clones share it.
#[derive(Clone)]
pub struct Log {}

#[allow(unused_variables, clippy::todo)]
impl Log {
    /// Reads the log back, cuts a torn tail, refuses damage.
    pub fn open(
        disk: Arc<dyn Disk>,
        workers: &Workers,
        options: LogOptions,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        todo!()
    }
    /// Entries are readable when this returns and durable when `flushed` is called.
    pub fn append(&self, entries: Vec<Entry>, flushed: Flushed) -> io::Result<()> {
        todo!()
    }
    /// Durable when it returns, and everything appended before it too.
    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        todo!()
    }
    /// Written in order, without a sync of its own.
    pub fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        todo!()
    }
    /// Forgets every entry after `last` (all of them when `None`); durable when it returns.
    pub async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        todo!()
    }
    /// Forgets every entry up to and with `upto`.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        todo!()
    }
    /// Returns when everything handed over before is durable.
    pub async fn flush(&self) -> io::Result<()> {
        todo!()
    }
    pub fn vote(&self) -> Option<Vote> {
        todo!()
    }
    /// Never beyond the last entry.
    pub fn committed(&self) -> Option<LogId> {
        todo!()
    }
    pub fn last_purged(&self) -> Option<LogId> {
        todo!()
    }
    /// The last entry's id, or the last purged one's when there is none.
    pub fn last_id(&self) -> Option<LogId> {
        todo!()
    }
    /// The last entry known to be on disk.
    pub fn durable_id(&self) -> Option<LogId> {
        todo!()
    }
    /// The entries in `range` that the log holds, stopping after `max_bytes` of payload but
    /// never before the first entry.
    pub fn read(&self, range: Range<LogIndex>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        todo!()
    }
    /// Bytes of segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        todo!()
    }
}
