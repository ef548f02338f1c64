//! The part a node plays, as people are told it.
//!
//! openraft goes on saying *leader* on a node that is cut off. What we say derives from
//! the age of the last acknowledgement by a quorum, and from who was heard since the
//! start. Pure: facts in, standing out.

use std::time::Duration;

use crate::types::{MemberId, Role};

/// What the engine and the network say.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub me: MemberId,
    /// The engine believes that it leads.
    pub engine_leads: bool,
    /// This node votes.
    pub voter: bool,
    /// It is the only voter: nobody's acknowledgement is needed.
    pub alone: bool,
    /// Age of the last acknowledgement by a quorum, on an engine that leads.
    pub quorum_acked_ago: Option<Duration>,
    /// Who leads the current term, and how long ago it was heard.
    pub heard: Option<(MemberId, Duration)>,
    /// Who leads the current term, if it was heard and its process has ended.
    pub gone_leader: Option<MemberId>,
    /// Since the last word of any leader, or since the start.
    pub silent_for: Duration,
    /// How long a leader's word counts.
    pub lease: Duration,
    /// How long a quorum's acknowledgement counts: longer, so that a stalled disk does not
    /// make a leader refuse what it may serve a moment later.
    pub patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub role: Role,
    pub leader: Option<MemberId>,
}

impl Standing {
    pub fn of(facts: &Facts) -> Self {
        if facts.engine_leads {
            let acknowledged = facts.quorum_acked_ago.is_some_and(|age| age <= facts.patience);
            return match facts.alone || acknowledged {
                true => Self { role: Role::Leader, leader: Some(facts.me) },
                false => Self { role: Role::Candidate, leader: None },
            };
        }
        match facts.heard {
            Some((leader, ago)) if ago <= facts.lease => Self { role: Role::Follower, leader: Some(leader) },
            _ if facts.voter && (facts.gone_leader.is_some() || facts.silent_for > facts.lease) => {
                Self { role: Role::Candidate, leader: None }
            }
            _ => Self { role: Role::Follower, leader: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_millis(400);
    const LONG: Duration = Duration::from_secs(9);
    const SHORT: Duration = Duration::from_millis(20);

    fn facts() -> Facts {
        Facts {
            me: MemberId(1),
            engine_leads: false,
            voter: true,
            alone: false,
            quorum_acked_ago: None,
            heard: None,
            gone_leader: None,
            silent_for: SHORT,
            lease: LEASE,
            patience: PATIENCE,
        }
    }

    fn said(facts: Facts) -> (Role, Option<u64>) {
        let standing = Standing::of(&facts);
        (standing.role, standing.leader.map(|id| id.0))
    }

    #[test]
    fn a_leader_is_one_only_while_a_quorum_acknowledges_it() {
        let leading = Facts { engine_leads: true, ..facts() };
        assert_eq!(said(Facts { quorum_acked_ago: Some(SHORT), ..leading }), (Role::Leader, Some(1)));
        assert_eq!(said(Facts { quorum_acked_ago: Some(PATIENCE), ..leading }), (Role::Leader, Some(1)));
        assert_eq!(said(Facts { quorum_acked_ago: Some(LONG), ..leading }), (Role::Candidate, None));
        // Fresh: nobody has acknowledged it yet.
        assert_eq!(said(leading), (Role::Candidate, None));
        assert_eq!(said(Facts { alone: true, ..leading }), (Role::Leader, Some(1)));
    }

    #[test]
    fn a_follower_names_only_a_leader_that_it_heard_lately() {
        let heard = |ago| Facts { heard: Some((MemberId(2), ago)), silent_for: ago, ..facts() };
        assert_eq!(said(heard(SHORT)), (Role::Follower, Some(2)));
        assert_eq!(said(heard(LONG)), (Role::Candidate, None));
        assert_eq!(said(Facts { gone_leader: Some(MemberId(2)), ..facts() }), (Role::Candidate, None));
        // Just started: it waits to hear one.
        assert_eq!(said(facts()), (Role::Follower, None));
        // A learner never campaigns.
        assert_eq!(said(Facts { voter: false, silent_for: LONG, ..facts() }), (Role::Follower, None));
    }
}
