//! The node's story in the log: elections, leaders, who follows whom. The words are the
//! chapter's.

use std::time::Duration;

use crate::consensus::Consensus;
use crate::consensus::view::View;
use crate::types::{ElectionPolicy, MemberId, Role, Term};

/// Changes come in bursts; a scene is told when it has settled for so long.
const PERIOD: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Scene {
    role: Role,
    term: Term,
    leader: Option<MemberId>,
    /// Whom this node voted for in this term.
    voted_for: Option<MemberId>,
    voters: Vec<MemberId>,
}

impl Scene {
    fn of(view: &View) -> Self {
        let voted = view.vote.term == view.term && view.term > 0;
        Self {
            role: view.role,
            term: view.term,
            leader: view.leader,
            voted_for: voted.then_some(MemberId(view.vote.voted_for)),
            voters: view.voters().map(|member| member.id).collect(),
        }
    }
}

/// Runs until the engine stops.
pub async fn narrate(consensus: Consensus, policy: ElectionPolicy) {
    let me = consensus.me();
    let mut last: Option<Scene> = None;
    loop {
        let view = consensus.view();
        let scene = Scene::of(&view);
        if last.as_ref() != Some(&scene) {
            for line in tell(last.as_ref(), &scene, &view, me, policy) {
                tracing::info!("{line}");
            }
            last = Some(scene);
        }
        // Time alone changes the scene too: a lease runs out in silence.
        let _ = tokio::time::timeout(consensus.options().heartbeat, consensus.changes()).await;
        tokio::time::sleep(PERIOD).await;
    }
}

fn name(view: &View, id: MemberId) -> String {
    view.member(id).map_or_else(|| format!("member {id}"), |member| member.name.to_string())
}

/// The lines that lead from one scene to the next.
fn tell(last: Option<&Scene>, now: &Scene, view: &View, me: MemberId, policy: ElectionPolicy) -> Vec<String> {
    let mut lines = Vec::new();
    let was_leader = last.is_some_and(|last| last.role == Role::Leader);
    // What a restart reads back from the disk is no news.
    let term_began = last.is_some_and(|last| last.term != now.term);
    let had_leader = last.and_then(|last| last.leader);
    if was_leader && now.role != Role::Leader {
        lines.push(match now.leader {
            Some(leader) => format!("Stepping down: {} leads term {}", name(view, leader), now.term),
            None if view.engine_leads => "Stepping down: no majority answers".to_owned(),
            None => format!("Stepping down to {}, term {}", now.role, now.term),
        });
    } else if let (Some(lost), None) = (had_leader, now.leader)
        && !term_began
        && view.gone_leader.is_none()
    {
        lines.push(format!("Election timeout! Heard nothing from {} any more", name(view, lost)));
    }
    match now.voted_for {
        Some(candidate) if term_began && candidate == me && policy == ElectionPolicy::Raft => {
            lines.push(format!("Starting election for term {}", now.term));
        }
        Some(candidate) if term_began && candidate != me && now.leader.is_none() => {
            lines.push(format!("Voted for {} in term {}", name(view, candidate), now.term));
        }
        _ => {}
    }
    if now.role == Role::Leader && !was_leader {
        lines.push(format!("👑 Became LEADER for term {}", now.term));
    }
    if let Some(leader) = now.leader.filter(|leader| *leader != me)
        && (had_leader != Some(leader) || term_began)
    {
        lines.push(format!("Following {} in term {}", name(view, leader), now.term));
    }
    if let Some(last) = last
        && last.voters != now.voters
    {
        let names: Vec<String> = now.voters.iter().map(|id| name(view, *id)).collect();
        lines.push(format!("Voters are now {}", names.join(", ")));
    }
    lines
}
