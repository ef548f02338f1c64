//! Sending a snapshot: for as long as the peer takes it, and no longer. The engine sends
//! nothing else to that peer meanwhile, so one that gets nowhere must end and be tried again.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::proto::peer as pb;

use super::super::state_machine::SnapshotData;
use super::super::types::{
    RaftSnapshot, RaftVote, encode_membership, log_id_to_pb, vote_from_pb, vote_to_pb,
};
use super::faults::LINK_IS_CUT;
use super::pool::{Lane, Peer};

/// A peer that takes no part of a snapshot for so long is given up and sent a new one: far
/// above what writing a part takes on a busy disk. A whole one takes as long as it is large.
const SNAPSHOT_STALL: Duration = Duration::from_secs(20);
/// From the last part to the answer: the peer checks, syncs and installs it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);
/// The format of the snapshot stream's header.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// How a snapshot gets on.
struct Transfer {
    /// By when the peer must have taken the next part, or have answered.
    due: Mutex<Instant>,
    /// Why it ended too soon at this end.
    failure: Mutex<Option<String>>,
}

impl Transfer {
    fn begin() -> Arc<Self> {
        Arc::new(Self { due: Mutex::new(Instant::now() + SNAPSHOT_STALL), failure: Mutex::default() })
    }

    fn expect_within(&self, patience: Duration) {
        *self.due.lock() = Instant::now() + patience;
    }

    fn fail(&self, why: impl ToString) {
        *self.failure.lock() = Some(why.to_string());
    }

    /// The answer of `call`, unless it comes to a standstill.
    async fn answer<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        loop {
            let due = *self.due.lock();
            match tokio::time::timeout_at(due, &mut call).await {
                Ok(answer) => return Some(answer),
                Err(_) if *self.due.lock() > due => {}
                Err(_) => return None,
            }
        }
    }
}

/// The image as the wire carries it; an error ends the stream and thereby the call.
fn snapshot_parts(
    header: pb::SnapshotHeader,
    snapshot: SnapshotData,
    transfer: Arc<Transfer>,
) -> impl Stream<Item = pb::SnapshotPart> + Send + 'static {
    async_stream::stream! {
        yield pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) };
        let SnapshotData::Image(mut image) = snapshot else {
            return transfer.fail("a received snapshot cannot be passed on");
        };
        loop {
            match image.next_chunk() {
                Ok(Some(chunk)) => {
                    transfer.expect_within(SNAPSHOT_STALL);
                    yield pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Chunk(chunk)) };
                }
                Ok(None) => return transfer.expect_within(INSTALL_TIMEOUT),
                Err(error) => return transfer.fail(error),
            }
        }
    }
}

/// Sends one and waits until it is installed; says the vote of who took it.
pub async fn send(peer: &Peer, vote: RaftVote, snapshot: RaftSnapshot) -> Result<RaftVote, String> {
    peer.may_fill()?;
    let sending = send_whole(peer, vote, snapshot);
    match peer.link() {
        None => sending.await,
        Some(link) => link.carry_transfer(sending).await.unwrap_or_else(|| Err(LINK_IS_CUT.to_owned())),
    }
}

async fn send_whole(peer: &Peer, vote: RaftVote, snapshot: RaftSnapshot) -> Result<RaftVote, String> {
    let membership = &snapshot.meta.last_membership;
    let header = pb::SnapshotHeader {
        header: Some(peer.header()),
        format: SNAPSHOT_FORMAT,
        vote: Some(vote_to_pb(&vote)),
        last: snapshot.meta.last_log_id.map(log_id_to_pb),
        membership_at: membership.log_id().map(log_id_to_pb),
        membership: Some(encode_membership(membership.membership())),
    };
    let mut client = peer.client(Lane::Bulk).await?;
    tracing::info!(to = %peer.url(), upto = ?snapshot.meta.last_log_id.map(|id| id.index), "sending a snapshot");
    let transfer = Transfer::begin();
    let parts = snapshot_parts(header, snapshot.snapshot, transfer.clone());
    let sent = match transfer.answer(client.install_snapshot(parts)).await {
        Some(Ok(response)) => Ok(response.into_inner()),
        Some(Err(status)) => Err(peer.failed(Lane::Bulk, &status).await),
        None => {
            peer.hang_up(Lane::Bulk).await;
            Err(format!("{} does not take it", peer.url()))
        }
    };
    let own_failure = transfer.failure.lock().take();
    let reply = own_failure.map_or(sent, Err).inspect_err(|why| {
        tracing::warn!(to = %peer.url(), "the snapshot was not installed: {why}");
    })?;
    vote_from_pb(reply.vote).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_soon() {
        let began = Instant::now();
        assert_eq!(Transfer::begin().answer(std::future::pending::<()>()).await, None);
        assert_eq!(began.elapsed(), SNAPSHOT_STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_its_parts_slowly_is_waited_for() {
        let transfer = Transfer::begin();
        let taking = async {
            for _ in 0..1000 {
                tokio::time::sleep(SNAPSHOT_STALL * 9 / 10).await;
                transfer.expect_within(SNAPSHOT_STALL);
            }
            transfer.expect_within(INSTALL_TIMEOUT);
            tokio::time::sleep(INSTALL_TIMEOUT * 9 / 10).await;
        };
        assert_eq!(transfer.answer(taking).await, Some(()));
    }
}
