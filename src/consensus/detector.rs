//! Whether the leader's process has ended, which needs no timeout to be known.
//!
//! When a process ends, however it does, its system closes its connections and refuses new
//! ones. A follower whose stream of entries ends dials the leader: *connection refused* is
//! that system's word that nobody listens there (a spy in the sense of Falcon: Leners et
//! al., SOSP 2011). Silence proves nothing and is left to the lease, as is any other answer.
//!
//! What follows from it is an election like any other, by pre-votes and votes. This node
//! only stops protecting the leader's lease, as it does when a leader hands over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::Notify;

use super::Options;
use super::heard::{Heard, LastWord};
use super::network::pool::PeerPool;
use super::types::{Member, Raft, RaftVote};

/// A system that ends a process may close its port some time after the connections.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Detector {
    raft: Raft,
    heard: Heard,
    pool: PeerPool,
    options: Options,
    stream_ended: Notify,
    /// The term whose leader's lease this node gave up.
    released: AtomicU64,
}

/// Held by a leader's stream of entries.
pub struct StreamGuard(Arc<Detector>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.stream_ended.notify_one();
    }
}

impl Detector {
    pub fn new(raft: Raft, heard: Heard, pool: PeerPool, options: Options) -> Arc<Self> {
        let (stream_ended, released) = (Notify::new(), AtomicU64::new(0));
        Arc::new(Self { raft, heard, pool, options, stream_ended, released })
    }

    pub fn guard_stream(self: &Arc<Self>) -> StreamGuard {
        StreamGuard(self.clone())
    }

    /// Returns when a stream has ended and the leader was found to be gone.
    pub async fn leader_ended(&self) {
        loop {
            self.stream_ended.notified().await;
            let spoke = || self.leader().map(|(word, ..)| word.at);
            let last = spoke();
            // One that lives speaks again soon, or is silent for a lease.
            while last.is_some() && spoke() == last {
                if self.is_leader_gone().await {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Asks the system at the address of the leader that this node hears. If the leader is
    /// gone, nothing here protects it any longer.
    pub async fn is_leader_gone(&self) -> bool {
        let Some((word, vote, member)) = self.leader().filter(|_| self.options.early_election) else {
            return false;
        };
        if !word.gone {
            // Who waits for this node's vote does not wait for long.
            let patience = self.options.shortest_extra() / 2;
            if !self.pool.peer(word.leader, &member).refuses(patience).await {
                return false;
            }
            if self.heard.note_gone(word) {
                tracing::info!("Leader lost! {} has ended: its port is closed", member.name);
            }
            if !self.heard.last().is_some_and(|last| last.gone) {
                return false;
            }
        }
        self.released.store(word.term, Ordering::Relaxed);
        // A transfer to the one that is gone: nobody is asked to take over, but this node votes
        // for whoever asks. An error means that the engine stopped, which is told elsewhere.
        let release = TransferLeaderRequest::new(vote, word.leader.0, None);
        let _ = self.raft.handle_transfer_leader(release).await;
        true
    }

    /// Whether a leader speaks that was once taken for gone. Until its term ends the engine
    /// does not take up its lease again, so it is protected here.
    pub fn protects_leader(&self) -> bool {
        let released = self.released.load(Ordering::Relaxed);
        self.leader().is_some_and(|(word, ..)| !word.gone && word.term == released)
    }

    /// Whom this node follows, and its last word, while that counts.
    fn leader(&self) -> Option<(LastWord, RaftVote, Member)> {
        let word = self.heard.last().filter(|word| word.at.elapsed() <= self.options.lease())?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let RaftVote { leader_id, committed } = metrics.vote;
        let follows = committed && leader_id.term == word.term && leader_id.voted_for == word.leader.0;
        let member = metrics.membership_config.membership().get_node(&word.leader.0)?;
        follows.then(|| (word, metrics.vote, member.clone()))
    }
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
