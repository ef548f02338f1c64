//! Looks, asks the policy, acts. One a node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::storage::log::Vote;
use crate::types::{ElectionPolicy, MemberId};

use super::super::Consensus;
use super::super::view::View;
use super::{Decision, ElectionView, Voter, decide, ranked};

/// The shortest distance between two ranks' turns: a pre-vote and a vote round, each
/// with an fsync, on a loaded machine.
const MIN_STEP: Duration = Duration::from_millis(60);
/// After a transfer that nobody took, wait this long, then twice as long, up to the
/// maximum: a transfer stops writes until somebody leads.
const TRANSFER_PAUSE: Duration = Duration::from_secs(2);
const MAX_TRANSFER_PAUSE: Duration = Duration::from_secs(60);
/// A voter that answered within so many heartbeats is alive.
const ALIVE_HEARTBEATS: u32 = 3;

/// Builds the policy's view from the engine's.
fn election_view(
    view: &View,
    me: MemberId,
    lease: Duration,
    heartbeat: Duration,
    quiet_since: Instant,
    last_leader: Option<MemberId>,
) -> ElectionView {
    let leads = view.leader == Some(me);
    let voters = view.voters().map(|member| Voter {
        id: member.id,
        name: member.name.clone(),
        draining: member.draining,
        caught_up: leads
            && member.matched == view.last_log
            && member.answered_ago.is_some_and(|ago| ago <= heartbeat * ALIVE_HEARTBEATS),
    });
    ElectionView {
        me,
        voters: voters.collect(),
        unsound: false,
        leads,
        leader_alive: view.leader.is_some(),
        last_leader,
        leader_gone: view.gone_leader.is_some(),
        quiet_for: quiet_since.elapsed(),
        fresh: view.term == 0,
        lease,
        step: MIN_STEP.max(heartbeat),
    }
}

/// The view of a node that is about to hand over: who could lead matters, turns do not.
pub fn driver_view(consensus: &Consensus) -> ElectionView {
    let options = consensus.options();
    election_view(&consensus.view(), options.me, options.lease(), options.heartbeat, Instant::now(), None)
}

/// What the driver remembers between two looks.
struct Driver {
    consensus: Consensus,
    policy: ElectionPolicy,
    metrics: Arc<Metrics>,
    vote: Option<Vote>,
    /// See [`ElectionView::quiet_for`].
    quiet_since: Instant,
    last_leader: Option<MemberId>,
    /// Since when the engine leads, as far as it does.
    leads_since: Option<Instant>,
    /// When this node last asked for votes: at most once a step.
    campaigned: Option<Instant>,
    gone_leader: Option<MemberId>,
    /// The log has been told that the leader is lost; turns that follow are not news.
    told_lost: bool,
    /// No transfer before this.
    transfer_after: Instant,
    transfer_pause: Duration,
    /// Whom the log last said that we wait for.
    waiting_for: Option<MemberId>,
}

/// Runs until the engine stops.
pub async fn drive(consensus: Consensus, policy: ElectionPolicy, metrics: Arc<Metrics>) {
    let period = consensus.options().heartbeat / 2;
    let now = Instant::now();
    let mut driver = Driver {
        consensus,
        policy,
        metrics,
        vote: None,
        quiet_since: now,
        last_leader: None,
        leads_since: None,
        campaigned: None,
        gone_leader: None,
        told_lost: false,
        transfer_after: now,
        transfer_pause: TRANSFER_PAUSE,
        waiting_for: None,
    };
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let consensus = driver.consensus.clone();
    let mut ended = std::pin::pin!(consensus.leader_ended());
    loop {
        tokio::select! { biased;
            () = &mut ended => ended.set(consensus.leader_ended()),
            _ = ticks.tick() => {}
        }
        driver.look().await;
    }
}

impl Driver {
    async fn look(&mut self) {
        let view = self.consensus.view();
        self.remember(&view);
        let unanswered = self.unanswered_for(&view);
        self.consensus.mind_the_quorum(unanswered);
        let options = self.consensus.options();
        let me = options.me;
        let policy_view =
            election_view(&view, me, options.lease(), options.heartbeat, self.quiet_since, self.last_leader);
        let policy_view = ElectionView { unsound: self.consensus.is_unsound(), ..policy_view };
        match decide(self.policy, &policy_view) {
            Decision::Wait => self.narrate_waiting(&policy_view),
            Decision::Campaign => self.campaign(policy_view.step).await,
            Decision::TransferTo(to) => self.transfer(&view, to).await,
        }
    }

    /// How long this leader has gone without a quorum's answer.
    fn unanswered_for(&mut self, view: &View) -> Duration {
        if !view.engine_leads || view.alone {
            self.leads_since = None;
            return Duration::ZERO;
        }
        let led_for = self.leads_since.get_or_insert_with(Instant::now).elapsed();
        view.quorum_acked_ago.map_or(led_for, |ago| ago.min(led_for))
    }

    fn remember(&mut self, view: &View) {
        if self.vote != Some(view.vote) {
            self.vote = Some(view.vote);
            self.quiet_since = Instant::now();
        }
        if std::mem::replace(&mut self.gone_leader, view.gone_leader) != view.gone_leader {
            self.quiet_since = Instant::now();
            self.last_leader = view.gone_leader.or(self.last_leader);
        }
        if let Some(leader) = view.leader {
            if self.last_leader != Some(leader) {
                self.metrics.leader_changes.inc();
            }
            self.last_leader = Some(leader);
            self.waiting_for = None;
            self.told_lost = false;
            // A leader's word restarts the wait; our own leadership is one all the time.
            let quiet_for = if view.engine_leads { Duration::ZERO } else { view.silent_for };
            self.quiet_since = Instant::now() - quiet_for.min(self.quiet_since.elapsed());
            if !view.engine_leads {
                // Somebody else leads: the transfer, if there was one, succeeded.
                self.transfer_pause = TRANSFER_PAUSE;
            }
        }
    }

    async fn campaign(&mut self, step: Duration) {
        if self.campaigned.is_some_and(|at| at.elapsed() < step) {
            return;
        }
        self.campaigned = Some(Instant::now());
        self.metrics.elections_started.inc();
        if self.last_leader.is_some() && !std::mem::replace(&mut self.told_lost, true) {
            match self.gone_leader {
                None => tracing::info!("Election timeout! Starting election..."),
                // Told with its term, as the engine's own elections are.
                Some(_) if self.policy == ElectionPolicy::Raft => {}
                Some(_) => tracing::info!("Starting election..."),
            }
        }
        self.consensus.campaign().await;
    }

    async fn transfer(&mut self, view: &View, to: MemberId) {
        if Instant::now() < self.transfer_after || view.joint {
            return;
        }
        let name = view.member(to).map(|member| member.name.to_string()).unwrap_or_default();
        tracing::info!("Handing over to {name}, which ranks higher");
        // It doubles until a transfer succeeds, after which this node leads no longer.
        self.transfer_after = Instant::now() + self.transfer_pause;
        self.transfer_pause = (self.transfer_pause * 2).min(MAX_TRANSFER_PAUSE);
        self.consensus.transfer(to).await;
    }

    /// Says once for whom a ranked policy waits, as the chapter does.
    fn narrate_waiting(&mut self, view: &ElectionView) {
        let order = match self.policy {
            ElectionPolicy::Raft => return,
            ElectionPolicy::LowestId => ranked::Order::LowestFirst,
            ElectionPolicy::HighestId => ranked::Order::HighestFirst,
        };
        if view.leader_alive || (!view.fresh && view.quiet_for < view.lease) {
            return;
        }
        let first = ranked::ranking(view, order).first().map(|voter| (voter.id, voter.name.clone()));
        if let Some((id, name)) = first
            && id != view.me
            && self.waiting_for != Some(id)
        {
            self.waiting_for = Some(id);
            tracing::info!("Waiting for {name} to become leader");
        }
    }
}
