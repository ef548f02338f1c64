//! One error for everything a client can ask of a node. Variants are named for what
//! the caller does next; `api` maps them to status codes, once per protocol.

use std::time::Duration;

use crate::types::{MemberName, Revision, Role};

/// Where the leader is, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    pub name: MemberName,
    pub url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Go to the leader. Nothing was changed.
    #[error("not the leader")]
    NotLeader { role: Role, leader: Option<LeaderHint> },
    /// Nobody can commit now: a majority is not reachable. Nothing was changed; retry.
    #[error("no quorum: {why}")]
    NoQuorum { role: Role, why: String },
    /// Too much at once. Nothing was changed; retry after the pause.
    #[error("overloaded: {why}")]
    Overloaded { why: String, retry_after: Duration },
    /// The leader's disk is nearly full, and this would grow the store. Nothing was
    /// changed; free some space.
    #[error("the disk is nearly full: deletes and reads go on; free some space")]
    DiskFull,
    /// This node cannot serve yet, or no longer. Nothing was changed; ask another.
    #[error("not ready: {why}")]
    NotReady { why: String },
    /// This node's state is not what the others' is. Nothing was changed; ask another.
    #[error("this node's state is not sound: {why}")]
    StateDiffers { why: String },
    /// The deadline passed, or the leader changed under the write: it may or may not
    /// take effect. Read before you repeat it.
    #[error("outcome unknown: {why}")]
    Unknown { why: String },
    /// A read that could not be answered in time; reads change nothing.
    #[error("timed out: {why}")]
    ReadTimeout { why: String },
    /// Mend the request.
    #[error("{0}")]
    Invalid(String),
    /// The revision asked for has been compacted away.
    #[error("revision {asked} has been compacted; the oldest readable is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future; the store is at {current}")]
    FutureRevision { asked: Revision, current: Revision },
    /// This node's disk or state failed; it is stopping.
    #[error("this node failed: {why}")]
    Failed { why: String },
}

impl Error {
    pub fn stopping() -> Self {
        Error::NotReady { why: "this node is stopping".to_owned() }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
