//! What a node says of itself.

use std::sync::atomic::Ordering;

use crate::consensus::view::{MemberView, View};
use crate::types::{ClusterId, LogIndex, MemberId, MemberName, Revision, Role, Term};

use super::{Phase, Running, Shared};

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

/// What every reply says of the node that gave it.
#[derive(Clone, Debug)]
pub struct Standing {
    pub role: Role,
    pub term: Term,
    pub leader: Option<MemberName>,
    /// False after a restart until everything applied before is applied again: local
    /// reads may show an older state than before the restart.
    pub recovered: bool,
}

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
    /// This node's state is known to differ from the others'.
    pub in_alarm: bool,
}

impl Shared {
    pub(crate) fn standing(&self) -> Standing {
        match &*self.phase.read() {
            Phase::Founding(_) => Standing { role: Role::Follower, term: 0, leader: None, recovered: false },
            Phase::Running(running) => {
                let glance = running.consensus.glance();
                let recovered = running.recovered.load(Ordering::Relaxed);
                Standing { role: glance.role, term: glance.term, leader: glance.leader, recovered }
            }
        }
    }

    pub(crate) fn status(&self) -> Status {
        let phase = self.phase.read();
        match &*phase {
            Phase::Founding(why) => self.founding_status(why.clone()),
            Phase::Running(running) => self.running_status(running),
        }
    }

    fn founding_status(&self, why: String) -> Status {
        Status {
            name: self.config.name.clone(),
            role: Role::Follower,
            term: 0,
            leader: None,
            leader_url: None,
            cluster: None,
            member: None,
            members: Vec::new(),
            last_log: None,
            committed: None,
            applied: None,
            revision: self.store.revision(),
            not_ready: Some(self.failure.lock().clone().unwrap_or(why)),
            draining: self.is_draining(),
            in_alarm: self.checks.alarm().is_some(),
        }
    }

    fn running_status(&self, running: &Running) -> Status {
        let view = running.consensus.view();
        let leader = view.leader.and_then(|id| view.member(id));
        let member = |member: &MemberView| MemberStatus {
            name: member.name.clone(),
            id: member.id,
            url: member.url.clone(),
            voter: member.voter,
            matched: member.matched,
        };
        Status {
            name: self.config.name.clone(),
            role: view.role,
            term: view.term,
            leader: leader.map(|leader| leader.name.clone()),
            leader_url: leader.map(|leader| leader.url.clone()),
            cluster: Some(running.cluster),
            member: Some(running.me()),
            members: view.members.iter().map(member).collect(),
            last_log: view.last_log,
            committed: view.committed,
            applied: view.applied,
            revision: self.store.revision(),
            not_ready: self.why_not_ready(running, &view),
            draining: self.is_draining(),
            in_alarm: self.checks.alarm().is_some(),
        }
    }

    fn why_not_ready(&self, running: &Running, view: &View) -> Option<String> {
        if let Some(why) = self.failure.lock().clone() {
            return Some(why);
        }
        if let Some(alarm) = self.checks.alarm() {
            return Some(format!("ALARM: {alarm}"));
        }
        if self.is_draining() {
            return Some("stopping: requests are drained and the leadership is handed over".to_owned());
        }
        let voter = view.member(running.me()).is_some_and(|me| me.voter);
        if !voter {
            return Some("not a voter yet: the leader fills this node's empty directory first".to_owned());
        }
        if view.leader.is_none() {
            return Some(no_leader(view));
        }
        if !running.recovered.load(Ordering::Relaxed) {
            return Some("catching up with what was applied before the restart".to_owned());
        }
        None
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What a node without a leader says: how long, and how many a majority takes.
pub(crate) fn no_leader(view: &View) -> String {
    let voters = view.voters().count();
    let majority = voters / 2 + 1;
    match view.engine_leads {
        true => {
            format!("no quorum: this node cannot reach a majority ({majority} of {voters} voters)")
        }
        false if view.gone_leader.is_some() => {
            format!("no quorum: the leader has ended; electing another takes {majority} of {voters} voters")
        }
        false => format!(
            "no quorum: no leader heard for {:.1} s; electing one takes {majority} of {voters} voters",
            view.silent_for.as_secs_f32()
        ),
    }
}
