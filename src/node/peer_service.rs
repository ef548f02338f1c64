//! The peers' side of the door: every message's header is checked here before anything
//! reaches the engine.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::consensus::network::ask::{Answer, MAX_QUESTIONS, Question};
use crate::consensus::network::faults::{LINK_IS_CUT, Link, through};
use crate::consensus::network::pool::{Lane, PeerRefusal};
use crate::consensus::network::{MAX_MESSAGE_BYTES, RefusalKind, refusal};
use crate::consensus::types::vote_from_pb;
use crate::proto::peer as pb;
use crate::proto::peer::peer_server::{Peer, PeerServer};
use crate::types::{ClusterId, LogId, MemberId};

use super::read::ReadIndex;
use super::runs::{Runs, Verdict};
use super::{Node, Running, Shared, WriteRequest, forward, hello, rejoin};

/// For the first message of a stream: who opens one has something to say.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The gRPC service that peers speak to.
pub fn service(node: &Node) -> PeerServer<PeerService> {
    PeerServer::new(PeerService { node: node.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

pub struct PeerService {
    node: Node,
}

type Reply<T> = Result<Response<T>, Status>;

/// A message that was let in.
struct Admitted {
    running: Arc<Running>,
    from: MemberId,
    /// What spoils messages between here and the sender, if anything can.
    link: Option<Arc<Link>>,
}

impl Admitted {
    /// Answers one message, both subject to the link.
    async fn answer<T>(&self, answering: impl Future<Output = Result<T, Status>>) -> Reply<T> {
        let Some(link) = &self.link else { return answering.await.map(Response::new) };
        link.receive.carry(Lane::Control).await;
        let answer = answering.await;
        link.send.carry(Lane::Control).await;
        answer.map(Response::new)
    }

    /// Answers a transfer, which fails when the link is cut: one that just stood still would be
    /// waited for, and nothing else sent, long after the link is whole again.
    async fn answer_transfer<T>(&self, answering: impl Future<Output = Result<T, Status>>) -> Reply<T> {
        let Some(link) = &self.link else { return answering.await.map(Response::new) };
        let answer = link.carry_transfer(answering).await;
        answer.ok_or_else(|| Status::unavailable(LINK_IS_CUT))?.map(Response::new)
    }
}

impl Shared {
    /// Lets a message in that comes from a member of this cluster, is meant for this
    /// member, and belongs to a run that is no copy.
    async fn admit(&self, header: Option<pb::Header>) -> Result<Admitted, Status> {
        let header = header.ok_or_else(|| Status::invalid_argument("a peer message without its header"))?;
        let running = self.running().ok_or_else(|| {
            refusal(RefusalKind::NotReady, "this node has not begun its part of a cluster yet")
        })?;
        let (cluster, to) = (ClusterId(header.cluster), MemberId(header.to));
        if cluster != running.cluster {
            let why = format!(
                "{} belongs to cluster {}, the sender to cluster {cluster}: check PEERS on both",
                self.config.name, running.cluster
            );
            return Err(refusal(RefusalKind::WrongAddress, why));
        }
        if to != running.me() {
            let why = format!(
                "the message is meant for member {to}; {} is member {} now: its directory was replaced, or PEERS is wrong",
                self.config.name,
                running.me()
            );
            return Err(refusal(RefusalKind::WrongAddress, why));
        }
        let from = MemberId(header.from);
        self.check_run(&running, from, header.run.unwrap_or_default()).await?;
        let link = running.consensus.peer(from).and_then(|peer| peer.link().cloned());
        Ok(Admitted { running, from, link })
    }

    async fn check_run(&self, running: &Running, from: MemberId, run: pb::Run) -> Result<(), Status> {
        match self.runs.judge(from, run) {
            Verdict::Known => Ok(()),
            Verdict::Copy { known } => Err(copied(&self.runs, from, run, known)),
            Verdict::Newer => {
                if let Some(other) = self.other_run(running, from, run).await {
                    return Err(copied(&self.runs, from, run, other));
                }
                self.runs.accept(from, run).map_err(|error| Status::internal(error.to_string()))
            }
        }
    }

    /// Another run of the member's directory that is alive at the address where the
    /// member belongs.
    async fn other_run(&self, running: &Running, member: MemberId, run: pb::Run) -> Option<pb::Run> {
        let peer = running.consensus.peer(member)?;
        let hello = hello::ask(&self.world.net, &peer.url(), self.introduction()).await?;
        (hello.member == Some(member) && hello.run != run).then_some(hello.run)
    }
}

async fn first_message<T>(messages: &mut Streaming<T>) -> Result<Option<T>, Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, messages.message()).await;
    first.map_err(|_| Status::deadline_exceeded("a stream without a message"))?
}

/// Refuses a run; a copy that asks again and again is told each time, the log is not.
fn copied(runs: &Runs, member: MemberId, run: pb::Run, known: pb::Run) -> Status {
    if runs.may_raise_alarm() {
        tracing::error!(%member, starts = run.starts, known_starts = known.starts, "refused a node that runs on a copy of another node's data directory");
    }
    let why = format!(
        "another process runs, or ran later, with this data directory (member {member}, start {}; known start {}): one of the two is a copy. Stop both, keep one, empty the other's DATA_DIR",
        run.starts, known.starts
    );
    refusal(RefusalKind::CopiedDirectory, why)
}

/// Judges what peers refuse: a node that runs on a copied directory must stop.
pub(crate) async fn watch_refusals(shared: Arc<Shared>, mut refusals: mpsc::UnboundedReceiver<PeerRefusal>) {
    let mut said = None;
    while let Some(refusal) = refusals.recv().await {
        match refusal.kind {
            RefusalKind::CopiedDirectory => *shared.failure.lock() = Some(refusal.why),
            RefusalKind::WrongAddress | RefusalKind::NotReady => {
                // A peer that starts later refuses at first; repeated every heartbeat.
                if said.as_ref() != Some(&refusal.why) {
                    tracing::warn!(peer = %refusal.peer, "peer refused: {}", refusal.why);
                    said = Some(refusal.why);
                }
            }
        }
    }
}

async fn answer(admitted: Arc<Admitted>, question: pb::Question) -> Result<pb::Answer, Status> {
    let running = &admitted.running;
    let answering = async {
        match question.question {
            Some(Question::Heartbeat(message)) => {
                running.consensus.server().heartbeat(message).await.map(Answer::Heartbeat)
            }
            Some(Question::ReadIndex(question)) => {
                Ok(Answer::ReadIndex(read_index(&admitted, question).await))
            }
            None => Err(Status::invalid_argument("a question of a kind this version does not know")),
        }
    };
    let answer = admitted.answer(answering).await.map(Response::into_inner);
    let answer = answer.unwrap_or_else(|status| Answer::Failed(status.message().to_owned()));
    Ok(pb::Answer { id: question.id, answer: Some(answer) })
}

async fn read_index(admitted: &Admitted, question: pb::ReadIndexRequest) -> pb::ReadIndexReply {
    let vote = question.vote.and_then(|vote| vote_from_pb(Some(vote)).ok());
    match admitted.running.reads.get_as_leader(admitted.from, vote).await {
        Ok(ReadIndex { index, lease_clock_ms }) => {
            let read = Some(pb::LogId { term: 0, index });
            pb::ReadIndexReply { read, lease_clock_ms, refused: String::new() }
        }
        Err(why) => pb::ReadIndexReply { read: None, lease_clock_ms: 0, refused: why },
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn hello(&self, _request: Request<pb::HelloRequest>) -> Reply<pb::HelloReply> {
        Ok(Response::new(self.node.shared.hello_reply()))
    }

    async fn rejoin(&self, request: Request<pb::RejoinRequest>) -> Reply<pb::RejoinReply> {
        Ok(Response::new(rejoin::let_in(&self.node.shared, request.into_inner()).await))
    }

    type AppendStream = Pin<Box<dyn Stream<Item = Result<pb::AppendReply, Status>> + Send>>;

    async fn append(&self, request: Request<Streaming<pb::AppendRequest>>) -> Reply<Self::AppendStream> {
        let mut messages = request.into_inner();
        let Some(first) = first_message(&mut messages).await? else {
            return Ok(Response::new(Box::pin(futures::stream::empty())));
        };
        let Admitted { running, link, .. } = self.node.shared.admit(first.header).await?;
        let messages = futures::stream::iter([Ok(first)]).chain(messages);
        let messages = through(link.clone(), |link| &link.receive, Box::pin(messages));
        let replies = running.consensus.server().append(messages);
        Ok(Response::new(Box::pin(through(link, |link| &link.send, Box::pin(replies)))))
    }

    type AskStream = Pin<Box<dyn Stream<Item = Result<pb::Answer, Status>> + Send>>;

    async fn ask(&self, request: Request<Streaming<pb::Question>>) -> Reply<Self::AskStream> {
        let mut questions = request.into_inner();
        let Some(first) = first_message(&mut questions).await? else {
            return Ok(Response::new(Box::pin(futures::stream::empty())));
        };
        let admitted = Arc::new(self.node.shared.admit(first.header).await?);
        // A broken stream ends the input; who asks opens another one.
        let questions = questions.scan((), |(), question| std::future::ready(question.ok()));
        let answers = questions.map(move |question| answer(admitted.clone(), question));
        Ok(Response::new(Box::pin(answers.buffer_unordered(MAX_QUESTIONS))))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Reply<pb::VoteReply> {
        let message = request.into_inner();
        let admitted = self.node.shared.admit(message.header).await?;
        admitted.answer(admitted.running.consensus.server().vote(message)).await
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Reply<pb::VoteReply> {
        let message = request.into_inner();
        let admitted = self.node.shared.admit(message.header).await?;
        admitted.answer(admitted.running.consensus.server().pre_vote(message)).await
    }

    async fn transfer_leader(&self, request: Request<pb::TransferRequest>) -> Reply<pb::TransferReply> {
        let message = request.into_inner();
        let admitted = self.node.shared.admit(message.header).await?;
        admitted.answer(admitted.running.consensus.server().transfer_leader(message)).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Reply<pb::SnapshotReply> {
        let mut parts = request.into_inner();
        let Some(pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) }) =
            first_message(&mut parts).await?
        else {
            return Err(Status::invalid_argument("a snapshot without its header"));
        };
        let admitted = self.node.shared.admit(header.header).await?;
        admitted.answer_transfer(admitted.running.consensus.server().install_snapshot(header, parts)).await
    }

    async fn state_hash(&self, request: Request<pb::StateHashRequest>) -> Reply<pb::StateHashReply> {
        let message = request.into_inner();
        let admitted = self.node.shared.admit(message.header).await?;
        let pb::LogId { term, index } = message.at.unwrap_or_default();
        let answer = self.node.shared.checks.answer(LogId { term, index }, message.format);
        admitted.answer(async { Ok(pb::StateHashReply { result: Some(answer) }) }).await
    }

    async fn forward(&self, request: Request<pb::ForwardRequest>) -> Reply<pb::ForwardReply> {
        let message = request.into_inner();
        let admitted = self.node.shared.admit(message.header).await?;
        let Some(command) = message.command else {
            return Err(Status::invalid_argument("a forwarded write without a command"));
        };
        let request = WriteRequest {
            command,
            ack: forward::decode_ack(message.ack),
            timeout: Duration::from_millis(message.timeout_ms),
            // One hop: two nodes that each believe the other leads must not pass it on
            // for ever.
            forward: false,
        };
        admitted.answer(async { Ok(forward::encode_result(self.node.write(request).await)) }).await
    }
}
