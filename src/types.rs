//! The words the whole crate shares: names, ids and positions. No logic beyond
//! parsing, printing and ordering.

use std::cmp::Ordering;
use std::fmt;

/// A Raft term. Terms only grow; at most one leader has each.
pub type Term = u64;
/// A position in the replicated log; the first entry is at 0.
pub type LogIndex = u64;
/// A version of the whole store. An empty store is at 1; every change makes the next.
pub type Revision = u64;

/// The longest member name, in bytes: a DNS label.
pub const MAX_NAME_BYTES: usize = 63;

/// What people call a node (`NODE_ID`). Ordered naturally: `node-2` before `node-10`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct MemberName(String);

impl MemberName {
    /// Accepts 1 to [`MAX_NAME_BYTES`] bytes of letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.chars().all(ok) {
            return Err(format!(
                "{text:?} is no node name: use 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.', such as node-1"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for MemberName {
    fn cmp(&self, other: &Self) -> Ordering {
        alphanumeric_sort::compare_str(&self.0, &other.0).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for MemberName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What consensus calls a node: a hash of cluster, name and incarnation. A node whose
/// disk was wiped has another one, so it can never vote as if it remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A hash of the founding set: the same on every founder, with no proposer needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A random UUID made at the first start in an empty directory: one life of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub uuid::Uuid);

impl Incarnation {
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        uuid::Uuid::from_slice(bytes).ok().map(Self)
    }

    pub fn to_bytes(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(self.0.as_bytes())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A log entry's identity: two entries with the same one are the same entry (Raft,
/// section 5.3, the Log Matching property).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub term: Term,
    pub index: LogIndex,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// When a write may be answered as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Ack {
    /// The leader's own log has it on disk (asynchronous replication). May be lost
    /// when the leader dies.
    Leader,
    /// Committed by a majority and applied.
    #[default]
    Quorum,
    /// Committed, and on every voter's disk (synchronous replication).
    All,
}

impl Ack {
    pub fn as_str(self) -> &'static str {
        match self {
            Ack::Leader => "leader",
            Ack::Quorum => "quorum",
            Ack::All => "all",
        }
    }
}

/// Who becomes leader when the old one is lost; see `consensus::election`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ElectionPolicy {
    /// Random timeouts, pre-vote and votes (Raft, section 5.2; thesis, section 9.6).
    #[default]
    Raft,
    /// The lowest name campaigns first; votes still decide.
    LowestId,
    /// The bully algorithm's order: the highest name leads, and takes over on return.
    HighestId,
}

impl ElectionPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            ElectionPolicy::Raft => "raft",
            ElectionPolicy::LowestId => "lowest-id",
            ElectionPolicy::HighestId => "highest-id",
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What this node has applied; may be old, but never older than what this node
    /// showed before, also over a restart.
    #[default]
    Local,
    /// Whatever this node has, even after a restart without a leader.
    Stale,
    /// At least as new as every write acknowledged before the read began (ReadIndex).
    Linearizable,
}

/// The part a node plays, as people are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_natural_order() {
        let name = |s| MemberName::parse(s).expect("valid name");
        assert!(name("node-2") < name("node-10"));
        assert!(name("node-1") < name("node-2"));
        assert_ne!(name("node-01").cmp(&name("node-1")), Ordering::Equal);
    }

    #[test]
    fn bad_names_are_refused_with_the_mend() {
        for bad in ["", "a b", "näme", "a/b", &"x".repeat(64)] {
            assert!(MemberName::parse(bad).expect_err(bad).contains("node-1"));
        }
    }
}
