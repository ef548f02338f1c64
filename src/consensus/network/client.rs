//! What openraft sends through: one of these for each peer and purpose.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::Instant;
use tonic::Response;

use crate::env::Timer;
use crate::proto::peer as pb;
use crate::types::MemberId;

use super::super::state_machine::SnapshotData;
use super::super::types::{
    Member, RaftLogId, RaftSnapshot, RaftVote, TypeConfig, entry_to_pb, from_raft_id, log_id_from_pb,
    log_id_to_pb, vote_from_pb, vote_to_pb,
};
use super::ask::{Answer, Question};
use super::faults::through;
use super::loan::lend;
use super::pool::{Client, Lane, Peer, PeerPool};
use super::snapshot;

type RpcError = RPCError<TypeConfig>;
type AppendRequest = AppendEntriesRequest<TypeConfig>;
type AppendResult = Result<StreamAppendResult<TypeConfig>, RpcError>;

/// A follower that answers nothing for one to two of these while entries are under way
/// is given up and dialled again: openraft itself puts no deadline on a stream. Above
/// the worst fsync that a healthy disk shows.
const PROGRESS_CHECK: Duration = Duration::from_millis(700);
/// How long the news of a commit waits for entries to travel with.
const COMMIT_NEWS_DELAY: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub struct NetworkFactory {
    pool: PeerPool,
}

impl NetworkFactory {
    pub fn new(pool: PeerPool) -> Self {
        Self { pool }
    }

    fn network(&self, target: u64, node: &Member, heartbeats: bool) -> PeerNetwork {
        PeerNetwork { peer: self.pool.peer(MemberId(target), node), heartbeats }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerNetwork {
        self.network(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> PeerNetwork {
        self.network(target, node, true)
    }
}

pub struct PeerNetwork {
    peer: Arc<Peer>,
    /// Heartbeats are streams of one message: they go as a unary call.
    heartbeats: bool,
}

fn unreachable(why: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(why))
}

fn broken(why: impl ToString) -> RpcError {
    RPCError::Network(NetworkError::from_string(why))
}

fn append_to_pb(request: AppendRequest, header: Option<pb::Header>) -> pb::AppendRequest {
    pb::AppendRequest {
        header,
        vote: Some(vote_to_pb(&request.vote)),
        prev: request.prev_log_id.map(log_id_to_pb),
        entries: request.entries.into_iter().map(entry_to_pb).collect(),
        commit: request.leader_commit.map(log_id_to_pb),
    }
}

/// The engine's view of an answer; a peer whose disk forgot what it acknowledged is
/// kept away from the engine, which would take the disk's word for it.
fn append_from_pb(peer: &Peer, term: u64, reply: pb::AppendReply) -> AppendResult {
    peer.note_answer();
    peer.note_draining(reply.draining);
    match reply.result.ok_or_else(|| broken("an answer of a kind this version does not know"))? {
        pb::append_reply::Result::Matched(matched) => {
            let last = matched.last.map(log_id_from_pb);
            peer.note_acknowledged(term, last.map(from_raft_id));
            Ok(Ok(last))
        }
        pb::append_reply::Result::Conflict(at) => {
            let at = log_id_from_pb(at);
            if peer.has_forgotten(term, from_raft_id(at)) {
                tracing::error!(peer = %peer.url(), entry = %at, "peer lost an entry that it had acknowledged; not sending to it. Stop it, wipe its directory and let it rejoin");
                return Err(unreachable("its log ends before what it acknowledged"));
            }
            Ok(Err(StreamAppendError::Conflict(at)))
        }
        pb::append_reply::Result::HigherVote(vote) => {
            Ok(Err(StreamAppendError::HigherVote(vote_from_pb(Some(vote)).map_err(broken)?)))
        }
    }
}

/// Runs one unary call on the control lane within the option's time.
async fn unary<M, T, F>(
    peer: &Arc<Peer>,
    ttl: Duration,
    message: M,
    call: impl Fn(Client, M) -> F,
) -> Result<T, RpcError>
where
    M: Clone,
    T: Send + 'static,
    F: Future<Output = Result<T, tonic::Status>> + Send + 'static,
{
    let attempt = async {
        let client = peer.client(Lane::Control).await.map_err(unreachable)?;
        match peer.call_idempotent(|| call(client.clone(), message.clone())).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(unreachable(peer.failed(Lane::Control, &status).await)),
        }
    };
    match tokio::time::timeout(ttl, attempt).await {
        Ok(result) => result,
        Err(_) => {
            peer.hang_up(Lane::Control).await;
            Err(unreachable(format!("no answer from {} within {ttl:?}", peer.url())))
        }
    }
}

/// One question in the stream of all.
async fn ask(peer: &Arc<Peer>, ttl: Duration, question: Question) -> Result<Answer, RpcError> {
    let asking = |control, question| {
        let peer = peer.clone();
        async move { peer.ask(control, question).await }
    };
    unary(peer, ttl, question, asking).await
}

/// Asks a leader what must be applied before a linearizable read; an error says why it can't
/// tell. `vote` is this node's last. The caller has a deadline.
pub async fn ask_read_index(peer: &Arc<Peer>, vote: Option<RaftVote>) -> Result<pb::ReadIndexReply, String> {
    let control = peer.client(Lane::Control).await?;
    let vote = vote.as_ref().map(vote_to_pb);
    let question = Question::ReadIndex(pb::ReadIndexRequest { vote });
    match peer.call(peer.ask(control, question)).await {
        Ok(Answer::ReadIndex(reply)) => Ok(reply),
        Ok(_) => Err("the answer to another question".to_owned()),
        Err(status) => Err(peer.failed(Lane::Control, &status).await),
    }
}

async fn send_heartbeat(peer: Arc<Peer>, request: AppendRequest, ttl: Duration) -> AppendResult {
    peer.may_lead().map_err(unreachable)?;
    let term = request.vote.leader_id.term;
    let question = Question::Heartbeat(append_to_pb(request, None));
    match ask(&peer, ttl, question).await? {
        Answer::Heartbeat(reply) => append_from_pb(&peer, term, reply),
        _ => Err(broken("the answer to another question")),
    }
}

/// What a member says to a leader that asks whether it still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    Follows,
    Deposed,
}

/// Asks by a heartbeat, which also brings the news of the commit. The engine answers
/// after all that it has accepted before is on its disk.
pub async fn ask_to_confirm(
    peer: &Arc<Peer>,
    vote: RaftVote,
    commit: RaftLogId,
    ttl: Duration,
) -> Result<Confirmation, RpcError> {
    // Without a previous entry there is nothing to conflict with.
    let request = AppendRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: Some(commit) };
    Ok(match send_heartbeat(peer.clone(), request, ttl).await? {
        Ok(_) | Err(StreamAppendError::Conflict(_)) => Confirmation::Follows,
        Err(StreamAppendError::HigherVote(_)) => Confirmation::Deposed,
    })
}

/// The requests as the wire carries them, counted as they leave.
///
/// The engine sends word of each commit at once, in a message of its own. It can wait a
/// moment for the next entries, which carry it as well: half the messages under load.
fn outgoing<S>(
    first: AppendRequest,
    rest: S,
    header: pb::Header,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = pb::AppendRequest> + Send + 'static
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    let mut rest = rest.fuse();
    async_stream::stream! {
        let count = || sent.fetch_add(1, Ordering::Relaxed);
        let mut news = Timer::default();
        count();
        yield append_to_pb(first, Some(header));
        while let Some(mut request) = rest.next().await {
            let until = Instant::now() + COMMIT_NEWS_DELAY;
            while request.entries.is_empty()
                && let Some(Some(later)) = news.before(until, rest.next()).await
            {
                request = later;
            }
            count();
            yield append_to_pb(request, None);
        }
    }
}

/// Sends requests as they come and yields the answers in order.
///
/// It pulls one request before it dials: a stream that fails before it has read its
/// input is started again by openraft at once, without a pause. When it ends or is dropped, so
/// are the requests: a connection that went on asking for more would take from the engine
/// what the next stream is to send. And it ends well only with every answer: the engine
/// would take up again what it has given up meanwhile.
fn replicate<S>(peer: Arc<Peer>, mut requests: S) -> impl Stream<Item = AppendResult> + Send
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    async_stream::stream! {
        let Some(first) = requests.next().await else { return };
        if let Err(why) = peer.may_lead() { yield Err(unreachable(why)); return }
        let term = first.vote.leader_id.term;
        // A delay may be set, or lifted, meanwhile.
        let patience = || PROGRESS_CHECK + peer.link().map_or(Duration::ZERO, |link| link.delay());
        let mut client = match peer.client(Lane::Bulk).await {
            Ok(client) => client,
            Err(why) => { yield Err(unreachable(why)); return }
        };
        let sent = Arc::new(AtomicU64::new(0));
        let all_answered = |received| sent.load(Ordering::Relaxed) == received;
        let messages = outgoing(first, requests, peer.header(), sent.clone());
        let messages = through(peer.link().cloned(), |link| &link.send, Box::pin(messages));
        let (messages, _lender) = lend(Box::pin(messages));
        let opened = tokio::time::timeout(patience() * 2, client.append(messages)).await;
        let replies = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => { yield Err(unreachable(peer.failed(Lane::Bulk, &status).await)); return }
            Err(_) => { peer.hang_up(Lane::Bulk).await; yield Err(unreachable("append stream not opened in time")); return }
        };
        let mut replies = Box::pin(through(peer.link().cloned(), |link| &link.receive, replies));
        let mut received = 0;
        let mut stalled = false;
        loop {
            match tokio::time::timeout(patience(), replies.next()).await {
                Ok(Some(Ok(reply))) => {
                    received += 1;
                    stalled = false;
                    yield append_from_pb(&peer, term, reply);
                }
                Ok(Some(Err(status))) => { yield Err(unreachable(peer.failed(Lane::Bulk, &status).await)); return }
                Ok(None) if all_answered(received) => return,
                Ok(None) => { yield Err(unreachable(format!("{} hung up before it answered", peer.url()))); return }
                Err(_) if all_answered(received) => stalled = false,
                Err(_) if !stalled => stalled = true,
                Err(_) => {
                    peer.hang_up(Lane::Bulk).await;
                    yield Err(unreachable(format!("{} answers nothing", peer.url())));
                    return;
                }
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let result = send_heartbeat(self.peer.clone(), request, option.hard_ttl()).await?;
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendResult>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let peer = self.peer.clone();
        let heartbeats = self.heartbeats;
        Box::pin(async move {
            if !heartbeats {
                return Ok(Box::pin(replicate(peer, input)) as BoxStream<'s, AppendResult>);
            }
            let ttl = option.hard_ttl();
            let replies = async_stream::stream! {
                while let Some(request) = input.next().await {
                    yield send_heartbeat(peer.clone(), request, ttl).await;
                }
            };
            Ok(Box::pin(replies) as BoxStream<'s, AppendResult>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = vote_request_to_pb(&self.peer, &request);
        let ask =
            |mut client: Client, message| async move { client.vote(message).await.map(Response::into_inner) };
        vote_reply_from_pb(unary(&self.peer, option.soft_ttl(), message, ask).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let message = vote_request_to_pb(&self.peer, &request);
        let ask = |mut client: Client, message| async move {
            client.pre_vote(message).await.map(Response::into_inner)
        };
        vote_reply_from_pb(unary(&self.peer, option.soft_ttl(), message, ask).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! { biased;
            closed = cancel => Err(closed.into()),
            sent = snapshot::send(&self.peer, vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(why) => Err(Unreachable::from_string(why).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let message = pb::TransferRequest {
            header: Some(self.peer.header()),
            from_leader: Some(vote_to_pb(request.from_leader())),
            last: request.last_log_id().copied().map(log_id_to_pb),
            to: *request.to_node_id(),
        };
        let ask = |mut client: Client, message| async move {
            client.transfer_leader(message).await.map(Response::into_inner)
        };
        let reply = unary(&self.peer, option.hard_ttl(), message, ask).await?;
        match reply.refused.is_empty() {
            true => Ok(Ok(())),
            false => Err(broken(reply.refused)),
        }
    }
}

fn vote_request_to_pb(peer: &Peer, request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        header: Some(peer.header()),
        vote: Some(vote_to_pb(&request.vote)),
        last: request.last_log_id.map(log_id_to_pb),
        leadership_transfer: request.leadership_transfer,
    }
}

fn vote_reply_from_pb(reply: pb::VoteReply) -> Result<VoteResponse<TypeConfig>, RpcError> {
    let vote = vote_from_pb(reply.vote).map_err(broken)?;
    Ok(VoteResponse::new(vote, reply.last.map(log_id_from_pb), reply.granted))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use bytes::Bytes;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::super::pool::tests::pool;
    use super::*;

    /// Takes every call, reads none of it and never answers; says when one has come.
    async fn mute_peer(listener: TcpListener, called: mpsc::UnboundedSender<()>) {
        let serve = |call: http::Request<Incoming>| {
            called.send(()).expect("the test goes on");
            async move {
                let silence = async_stream::stream! {
                    let _held = call;
                    pending::<()>().await;
                    yield Ok::<_, Infallible>(Frame::data(Bytes::new()));
                };
                Ok::<_, Infallible>(http::Response::new(StreamBody::new(silence)))
            }
        };
        let (stream, _) = listener.accept().await.expect("a connection");
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), service_fn(serve)).await.expect("a sound connection");
    }

    fn request() -> AppendRequest {
        AppendRequest {
            vote: RaftVote::new_committed(1, 1),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        }
    }

    #[tokio::test]
    async fn requests_end_with_their_stream_and_not_with_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (called, mut calls) = mpsc::unbounded_channel();
        tokio::spawn(mute_peer(listener, called));
        let (pool, _news) = pool();
        let peer = pool.peer(MemberId(2), &Member { url, ..Member::default() });

        let held = Arc::new(());
        let inside = held.clone();
        let requests = Box::pin(async_stream::stream! {
            let _held = inside;
            yield request();
            pending::<()>().await;
        });
        let mut answers = Box::pin(replicate(peer, requests));
        tokio::select! {
            _ = answers.next() => panic!("a mute peer does not answer"),
            _ = calls.recv() => {}
        }
        drop(answers);
        assert_eq!(Arc::strong_count(&held), 1, "the connection still asks for more");
    }
}
