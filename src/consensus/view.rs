//! One consistent look at the engine, in our own types.

use std::time::Duration;

use crate::storage::log::Vote;
use crate::types::{Incarnation, LogIndex, MemberId, MemberName, Role, Term};

/// One member as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    pub id: MemberId,
    pub name: MemberName,
    pub url: String,
    pub incarnation: Incarnation,
    pub voter: bool,
    /// On the leader: the last entry known to be in that member's log.
    pub matched: Option<LogIndex>,
    /// On the leader: how long ago that member last answered.
    pub answered_ago: Option<Duration>,
    /// It says that no leadership should come to it: it is about to stop, or its state is
    /// not sound.
    pub draining: bool,
}

/// The least that is said of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    pub role: Role,
    pub term: Term,
    pub leader: Option<MemberName>,
}

#[derive(Clone, Debug)]
pub struct View {
    pub role: Role,
    pub leader: Option<MemberId>,
    pub term: Term,
    pub vote: Vote,
    /// The engine believes that it leads, acknowledged or not.
    pub engine_leads: bool,
    /// Since a quorum last acknowledged this leader; never, on a fresh one.
    pub quorum_acked_ago: Option<Duration>,
    /// This node is the only voter.
    pub alone: bool,
    /// Since the last word of any leader, or since the start.
    pub silent_for: Duration,
    /// This term's leader, whose process has ended: nobody waits for it.
    pub gone_leader: Option<MemberId>,
    pub last_log: Option<LogIndex>,
    pub committed: Option<LogIndex>,
    pub applied: Option<LogIndex>,
    /// In natural order of their names; voters and learners.
    pub members: Vec<MemberView>,
    /// A change of membership is half done (Raft, section 6).
    pub joint: bool,
    pub membership_committed: bool,
}

impl View {
    pub fn member(&self, id: MemberId) -> Option<&MemberView> {
        self.members.iter().find(|member| member.id == id)
    }

    pub fn voters(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.voter)
    }

    /// The last entry that every voter is known to have.
    pub fn matched_by_all(&self) -> Option<LogIndex> {
        self.voters().map(|member| member.matched).min().flatten()
    }
}
