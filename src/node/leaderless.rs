//! Whether this member has known no leader for so long that clients which depend on one
//! should go elsewhere.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::watch::limits::LEADERLESS_ELECTIONS;
use super::{Node, Shared};

/// What is thought of it; followed by streams that want a leader.
pub(crate) struct Leaderless(watch::Sender<bool>);

impl Default for Leaderless {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shared {
    /// Looks once an election timeout: a new stream costs a client more than a short wait,
    /// so one missed leader is not enough.
    pub(super) async fn look_for_leader(self: Arc<Self>) {
        let mut ticks = interval(self.config.election_timeout);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        loop {
            ticks.tick().await;
            let led = self.standing().leader.is_some();
            missed = if led { 0 } else { missed + 1 };
            let leaderless = missed >= LEADERLESS_ELECTIONS;
            self.leaderless.0.send_if_modified(|was| std::mem::replace(was, leaderless) != leaderless);
        }
    }
}

impl Node {
    /// Returns once this member has known no leader for some election timeouts.
    pub async fn leaderless(&self) {
        let mut leaderless = self.shared.leaderless.0.subscribe();
        // The sender lives as long as the node, which we hold.
        let _ = leaderless.wait_for(|leaderless| *leaderless).await;
    }
}
