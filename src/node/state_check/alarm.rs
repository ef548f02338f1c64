//! The alarm itself: what is wrong, since when, and what to do. The directory keeps it,
//! so that a restart does not forget it; an emptied directory has none.

use std::fmt;
use std::io;

use crate::proto::data as pb;
use crate::types::{LogId, MemberName};

/// Why this node must not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The entry after which the state was compared.
    pub at: LogId,
    pub why: String,
    /// False when no majority could be asked and the leader was believed: a later
    /// comparison may lift the alarm.
    pub certain: bool,
}

const MEND: &str = "Stop this node, empty its DATA_DIR and start it again: it comes back by itself and is filled by the others";
const MEND_DOUBT: &str = "Start the nodes that are down: the next comparison with a majority decides. Empty no DATA_DIR before that. In a cluster of two there is no majority: see docs/operations.md";

impl Alarm {
    /// A majority, these nodes, holds something else.
    pub(super) fn differs(at: LogId, majority: &[MemberName]) -> Self {
        let why = format!("after log entry {at} this node's state differs from that of {}", list(majority));
        Self { at, why, certain: true }
    }

    pub(super) fn differs_from_leader(at: LogId, leader: &MemberName) -> Self {
        let why = format!(
            "after log entry {at} this node's state differs from that of the leader, {leader}, and no majority tells which of the two is right"
        );
        Self { at, why, certain: false }
    }

    pub(super) fn unreadable(at: LogId, error: &io::Error) -> Self {
        Self { at, why: format!("this node's table cannot be read: {error}"), certain: true }
    }

    pub fn decode(stored: pb::Alarm) -> Self {
        let at = LogId { term: stored.term, index: stored.index };
        Self { at, why: stored.why, certain: stored.certain }
    }

    pub fn encode(&self) -> pb::Alarm {
        let LogId { term, index } = self.at;
        pb::Alarm { term, index, why: self.why.clone(), certain: self.certain }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.why, if self.certain { MEND } else { MEND_DOUBT })
    }
}

pub(super) fn list(names: &[MemberName]) -> String {
    let names: Vec<&str> = names.iter().map(MemberName::as_str).collect();
    names.join(" and ")
}
