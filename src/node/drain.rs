//! A stop that nobody notices: new writes go elsewhere, those under way are answered,
//! the leadership is handed over. A node in alarm hands over in the same way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::consensus::election::{driver_view, successor};
use crate::types::MemberId;

use super::watch::Ended;
use super::{Node, Running, Shared};

/// Writes under way get so long to be answered before the hand-over.
const DRAIN_WRITES: Duration = Duration::from_millis(1500);
/// All attempts to hand over together, and one of them.
const HAND_OVER: Duration = Duration::from_secs(4);
const ONE_HAND_OVER: Duration = Duration::from_millis(1200);
const POLL: Duration = Duration::from_millis(2);

impl Node {
    /// Returns when this node leads no longer, or cannot be followed by anybody.
    pub async fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.watching.end(Ended::Stopping);
        let Some(running) = self.shared.running() else { return };
        running.consensus.announce_draining();
        self.shared.hand_over(&running, "before the stop").await;
    }
}

impl Shared {
    /// Hands over once the writes under way are answered, if this node leads. `why` ends
    /// the sentence that is logged.
    pub(crate) async fn hand_over(&self, running: &Running, why: &str) {
        let deadline = Instant::now() + DRAIN_WRITES;
        while running.writes.unanswered() > 0 && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        let deadline = Instant::now() + HAND_OVER;
        while leads(running) && Instant::now() < deadline {
            let view = driver_view(&running.consensus);
            let Some(to) = successor(self.config.election, &view) else {
                if view.voters.len() <= 1 {
                    return;
                }
                // Followers catch up within a round trip, if they are alive.
                tokio::time::sleep(POLL * 5).await;
                continue;
            };
            transfer_and_wait(running, to, why).await;
        }
        if leads(running) {
            tracing::warn!("no other voter could take over {why}");
        }
    }
}

fn leads(running: &Running) -> bool {
    running.consensus.standing().0.leader == Some(running.me())
}

async fn transfer_and_wait(running: &Running, to: MemberId, why: &str) {
    let view = running.consensus.view();
    let name = view.member(to).map(|member| member.name.to_string()).unwrap_or_default();
    tracing::info!("Handing over to {name} {why}");
    running.consensus.transfer(to).await;
    let deadline = Instant::now() + ONE_HAND_OVER;
    while leads(running) && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}
