//! What openraft hears through. The caller has checked each message's header.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
};
use tonic::Status;

use crate::env::Workers;
use crate::proto::peer as pb;
use crate::storage::mvcc::Store;
use crate::types::MemberId;

use super::super::detector::Detector;
use super::super::heard::Heard;
use super::super::state_machine::SnapshotData;
use super::super::types::{
    Raft, RaftSnapshot, SnapshotMeta, StoredMembership, TypeConfig, decode_membership, entry_from_pb,
    log_id_from_pb, log_id_to_pb, to_raft_id, vote_from_pb, vote_to_pb,
};
use super::super::voice::Voice;
use super::snapshot::SNAPSHOT_FORMAT;

/// The engine's ears.
#[derive(Clone)]
pub struct RaftServer {
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) workers: Workers,
    pub(crate) heard: Heard,
    pub(crate) detector: Arc<Detector>,
    pub(crate) me: MemberId,
    /// This node is about to stop and says so in its answers.
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) voice: Voice,
}

fn malformed(error: impl ToString) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The engine has stopped: this node is going down.
fn stopped(error: impl ToString) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn append_from_pb(message: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entries = message.entries.into_iter().map(entry_from_pb).collect::<Result<_, _>>();
    Ok(AppendEntriesRequest {
        vote: vote_from_pb(message.vote).map_err(malformed)?,
        prev_log_id: message.prev.map(log_id_from_pb),
        entries: entries.map_err(malformed)?,
        leader_commit: message.commit.map(log_id_from_pb),
    })
}

fn append_to_pb(result: StreamAppendResult<TypeConfig>, draining: bool) -> pb::AppendReply {
    let result = match result {
        Ok(last) => pb::append_reply::Result::Matched(pb::Matched { last: last.map(log_id_to_pb) }),
        Err(StreamAppendError::Conflict(at)) => pb::append_reply::Result::Conflict(log_id_to_pb(at)),
        Err(StreamAppendError::HigherVote(vote)) => pb::append_reply::Result::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendReply { result: Some(result), draining }
}

pub(super) fn vote_request_from_pb(message: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let mut request =
        VoteRequest::new(vote_from_pb(message.vote).map_err(malformed)?, message.last.map(log_id_from_pb));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

impl RaftServer {
    /// No leadership should come here.
    fn declines(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.voice.is_unsound()
    }

    /// A leader's entries, answered in the order in which they came.
    pub fn append<S>(
        &self,
        messages: S,
    ) -> impl Stream<Item = Result<pb::AppendReply, Status>> + Send + 'static
    where
        S: Stream<Item = Result<pb::AppendRequest, Status>> + Send + 'static,
    {
        let heard = self.heard.clone();
        // A broken stream ends the input; the leader opens another one, if it lives.
        let requests = messages.scan(self.detector.guard_stream(), move |_, message| {
            let request = message.and_then(append_from_pb).ok();
            if let Some(request) = &request {
                heard.note(&request.vote);
            }
            std::future::ready(request)
        });
        let replies = self.raft.stream_append(requests);
        let this = self.clone();
        let encode = move |result| append_to_pb(result, this.declines());
        replies.map(move |reply| reply.map(&encode).map_err(stopped))
    }

    pub async fn heartbeat(&self, message: pb::AppendRequest) -> Result<pb::AppendReply, Status> {
        let request = append_from_pb(message)?;
        let (vote, prev) = (request.vote, request.prev_log_id);
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        if response.is_success() {
            self.heard.note(&vote);
        }
        Ok(append_to_pb(response.into_stream_result(prev, last), self.declines()))
    }

    pub async fn vote(&self, message: pb::VoteRequest) -> Result<pb::VoteReply, Status> {
        let request = vote_request_from_pb(message)?;
        if !request.leadership_transfer && self.detector.protects_leader() {
            return Ok(self.refused());
        }
        let response = self.raft.vote(request).await.map_err(stopped)?;
        Ok(vote_reply(response))
    }

    pub async fn pre_vote(&self, message: pb::VoteRequest) -> Result<pb::VoteReply, Status> {
        let request = vote_request_from_pb(message)?;
        // Who asks may have noticed it a moment before us.
        self.detector.is_leader_gone().await;
        if self.detector.protects_leader() {
            return Ok(self.refused());
        }
        let response = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(vote_reply(response))
    }

    /// No vote against a leader that speaks.
    fn refused(&self) -> pb::VoteReply {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        pb::VoteReply { vote: Some(vote_to_pb(&metrics.vote)), granted: false, last: None }
    }

    pub async fn transfer_leader(&self, message: pb::TransferRequest) -> Result<pb::TransferReply, Status> {
        if message.to == self.me.0 && self.declines() {
            let refused = "this node is about to stop, or its state is not sound".to_owned();
            return Ok(pb::TransferReply { refused });
        }
        let from = vote_from_pb(message.from_leader).map_err(malformed)?;
        let request = TransferLeaderRequest::new(from, message.to, message.last.map(log_id_from_pb));
        let response = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(pb::TransferReply { refused: response.err().map(|error| error.to_string()).unwrap_or_default() })
    }

    /// The header has been taken off the stream; what remains are chunks.
    pub async fn install_snapshot<S>(
        &self,
        header: pb::SnapshotHeader,
        mut parts: S,
    ) -> Result<pb::SnapshotReply, Status>
    where
        S: Stream<Item = Result<pb::SnapshotPart, Status>> + Send + Unpin,
    {
        if header.format > SNAPSHOT_FORMAT {
            let why = format!(
                "snapshot format {} is newer than this version reads ({SNAPSHOT_FORMAT}): upgrade this node first",
                header.format
            );
            return Err(Status::failed_precondition(why));
        }
        let vote = vote_from_pb(header.vote).map_err(malformed)?;
        let membership = decode_membership(&header.membership.unwrap_or_default()).map_err(malformed)?;
        let meta = SnapshotMeta {
            last_log_id: header.last.map(log_id_from_pb),
            last_membership: StoredMembership::new(header.membership_at.map(log_id_from_pb), membership),
        };
        tracing::info!(upto = ?header.last.map(|id| id.index), "receiving a snapshot");
        let mut writer = self.store.receive().map_err(stopped)?;
        while let Some(part) = parts.next().await {
            let part = part?;
            self.heard.note(&vote);
            match part.part {
                Some(pb::snapshot_part::Part::Chunk(chunk)) => writer.write(&chunk).map_err(stopped)?,
                _ => return Err(malformed("a snapshot part that is not a chunk")),
            }
        }
        // It reads everything back and syncs it: not on the thread that answers votes.
        let finished = self.workers.run("snapshot-check", move || writer.finish()).await;
        let received = finished.map_err(stopped)?.map_err(malformed)?;
        if received.applied.last.map(to_raft_id) != meta.last_log_id {
            return Err(malformed("the snapshot is not the one that its header announces"));
        }
        let snapshot = RaftSnapshot { meta, snapshot: SnapshotData::Received(Box::new(received)) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        tracing::info!(upto = ?header.last.map(|id| id.index), "installed a snapshot");
        Ok(pb::SnapshotReply { vote: Some(vote_to_pb(&response.vote)) })
    }
}

fn vote_reply(response: openraft::raft::VoteResponse<TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to_pb(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.map(log_id_to_pb),
    }
}
