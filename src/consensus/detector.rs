//! Whether the leader's process has ended, which needs no timeout to be known.
//!
//! When a process ends, however it does, its system closes its connections and refuses new
//! ones. A follower whose stream of entries ends dials the leader: *connection refused* is
//! that system's word that nobody listens there (a spy in the sense of Falcon: Leners et
//! al., SOSP 2011). Silence proves nothing and is left to the lease, and so is all that a
//! firewall, a proxy or a host without power may answer instead.
//!
//! What follows from it is an election like any other, by pre-votes and votes. This node
//! only stops protecting the leader's lease, as it does when a leader hands over.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::Notify;

use super::heard::Heard;
use super::network::pool::PeerPool;
use super::types::Raft;

/// A system that ends a process may close its port a moment after the connections: it is
/// asked so often, with so long between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub struct Detector {
    raft: Raft,
    heard: Heard,
    pool: PeerPool,
    /// How long a leader's word counts; after that nobody protects it anyway.
    lease: Duration,
    enabled: bool,
    stream_ended: Arc<Notify>,
}

/// Held by a leader's stream of entries.
pub struct StreamGuard(Arc<Notify>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Detector {
    pub fn new(raft: Raft, heard: Heard, pool: PeerPool, lease: Duration, enabled: bool) -> Self {
        Self { raft, heard, pool, lease, enabled, stream_ended: Arc::default() }
    }

    pub fn guard_stream(&self) -> StreamGuard {
        StreamGuard(self.stream_ended.clone())
    }

    /// Returns when a stream has ended and the leader was found to be gone.
    pub async fn leader_ended(&self) {
        loop {
            self.stream_ended.notified().await;
            for _ in 0..ATTEMPTS {
                if self.is_leader_gone().await {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Asks the system at the address of the leader that was heard last. If that is gone,
    /// nothing here protects it any longer.
    pub async fn is_leader_gone(&self) -> bool {
        let Some(word) = self.heard.last().filter(|word| self.enabled && word.at.elapsed() <= self.lease)
        else {
            return false;
        };
        let leader = word.leader.0;
        let (vote, member) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let member = metrics.membership_config.membership().get_node(&leader).cloned();
            (metrics.vote, member)
        };
        let follows =
            vote.committed && vote.leader_id.term == word.term && vote.leader_id.voted_for == leader;
        let Some(member) = member.filter(|_| follows) else { return false };
        if word.gone {
            return true;
        }
        let peer = self.pool.peer(word.leader, &member);
        if !peer.refuses(self.lease).await || !self.heard.note_gone(word) {
            return false;
        }
        tracing::info!("Leader lost! {} has ended: its port is closed. Starting election...", member.name);
        // A transfer to the one that is gone: nobody is asked to take over, but this node votes
        // for whoever asks. An error means that the engine stopped, which is told elsewhere.
        let release = TransferLeaderRequest::new(vote, leader, None);
        let _ = self.raft.handle_transfer_leader(release).await;
        true
    }
}
