//! The only door to a node.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::proto::log::Command;
use crate::storage::mvcc::{Reply, Store};
use crate::types::{
    Ack, ClusterId, Consistency, LogId, LogIndex, MemberId, MemberName, Revision, Role, Term,
};

/// A write as a client asked for it.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub command: Command,
    pub ack: Ack,
    /// After this long without an answer the outcome is *unknown*.
    pub timeout: Duration,
    /// A follower passes it on to the leader instead of refusing it.
    pub forward: bool,
}

/// What became of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// `None` at `Ack::Leader`: nothing is applied yet, so there is no revision.
    pub reply: Option<Reply>,
    pub at: LogId,
    pub leader: MemberName,
}

/// One member as this node knows it.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub name: MemberName,
    pub id: MemberId,
    pub url: String,
    pub voter: bool,
    /// On the leader: the last entry known to be on that member's disk.
    pub matched: Option<LogIndex>,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Status {
    pub name: MemberName,
    pub role: Role,
    pub term: Term,
    /// Who leads, as far as this node knows; with the URL when it is known.
    pub leader: Option<MemberName>,
    pub leader_url: Option<String>,
    pub cluster: Option<ClusterId>,
    pub member: Option<MemberId>,
    pub members: Vec<MemberStatus>,
    pub last_log: Option<LogIndex>,
    pub committed: Option<LogIndex>,
    pub applied: Option<LogIndex>,
    pub revision: Revision,
    /// Why this node is not ready to serve; `None` when it is.
    pub not_ready: Option<String>,
    pub draining: bool,
}

/// A running node; clones share it.
#[derive(Clone)]
pub struct Node {}

#[allow(unused_variables, clippy::todo)]
impl Node {
    pub fn config(&self) -> &Config {
        todo!()
    }
    pub fn metrics(&self) -> &Arc<Metrics> {
        todo!()
    }
    pub fn store(&self) -> &Store {
        todo!()
    }
    pub fn status(&self) -> Status {
        todo!()
    }
    pub async fn write(&self, request: WriteRequest) -> Result<Written> {
        todo!()
    }
    /// Returns when [`Node::store`] may be read at this consistency, and has reached
    /// `min_revision`.
    pub async fn read_barrier(
        &self,
        consistency: Consistency,
        min_revision: Option<Revision>,
        timeout: Duration,
    ) -> Result<()> {
        todo!()
    }
    /// Health of the process itself: an error says what failed.
    pub fn alive(&self) -> Result<()> {
        todo!()
    }
}
