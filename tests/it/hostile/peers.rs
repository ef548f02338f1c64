//! Strangers on the routes of the peers.

use std::net::SocketAddr;

use bellwether::proto::{log, peer as pb};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{Cluster, PATIENCE, PATIENT, Peace, Peak, Raw, Rng, alone, env_number};

const METHODS: [&str; 9] =
    ["Hello", "Rejoin", "Append", "Ask", "Vote", "PreVote", "TransferLeader", "InstallSnapshot", "Forward"];
/// Those that anybody may call: who is asked tells who it is, or that it lets nobody in.
const OPEN: [&str; 2] = ["Hello", "Rejoin"];
const GRPC: &str = "application/grpc";
/// Random messages for each method.
const RANDOM_MESSAGES: usize = 40;
/// What one stranger's largest message may cost; it is decoded before it is refused.
const MAX_GROWTH_BYTES: u64 = 128 * 1024 * 1024;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(port: u16) -> Sender {
    let stream =
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("the node listens");
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// What came of one call.
#[derive(Debug)]
struct Answer {
    http: u16,
    /// `grpc-status`; `None` when the stream was reset before.
    grpc: Option<String>,
}

impl Answer {
    fn is_success(&self) -> bool {
        self.http == 200 && self.grpc.as_deref() == Some("0")
    }
}

/// One call with these bytes as its body; `None` when the connection or stream was ended.
async fn call(port: u16, path: &str, content_type: &str, body: Vec<u8>) -> Option<Answer> {
    let mut sender = connect(port).await;
    let request = http::Request::post(format!("http://bellwether{path}"))
        .header("content-type", content_type)
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .expect("a valid request");
    let answering = async {
        let reply = sender.send_request(request).await.ok()?;
        let http = reply.status().as_u16();
        let in_head = reply.headers().get("grpc-status").cloned();
        let body = reply.into_body().collect().await.ok()?;
        let status = in_head.or_else(|| body.trailers()?.get("grpc-status").cloned());
        let grpc = status.and_then(|status| status.to_str().ok().map(str::to_owned));
        Some(Answer { http, grpc })
    };
    let late = |_| panic!("{path} was not answered");
    tokio::time::timeout(PATIENCE, answering).await.unwrap_or_else(late)
}

fn peer_path(method: &str) -> String {
    format!("/bellwether.peer.v1.Peer/{method}")
}

/// A message as gRPC frames it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A message that would do harm if it were let in: a vote in the last of all terms, a
/// snapshot or entries from its leader, a write.
fn harmful(method: &str, header: Option<pb::Header>) -> Vec<u8> {
    let vote = Some(pb::Vote { term: u64::MAX, voted_for: 7, committed: true });
    let last = Some(pb::LogId { term: u64::MAX, index: u64::MAX });
    match method {
        "Append" => {
            let entry = pb::Entry { id: last, payload: Some(pb::entry::Payload::Blank(pb::Blank {})) };
            let entries = vec![entry];
            pb::AppendRequest { header, vote, prev: last, entries, commit: last }.encode_to_vec()
        }
        "Ask" => {
            let heartbeat = pb::AppendRequest { vote, prev: last, commit: last, ..Default::default() };
            let question = Some(pb::question::Question::Heartbeat(heartbeat));
            pb::Question { header, id: 1, question }.encode_to_vec()
        }
        "Vote" | "PreVote" => {
            pb::VoteRequest { header, vote, last, leadership_transfer: true }.encode_to_vec()
        }
        "TransferLeader" => pb::TransferRequest { header, from_leader: vote, last, to: 7 }.encode_to_vec(),
        "InstallSnapshot" => {
            let snapshot = pb::SnapshotHeader { header, vote, last, ..Default::default() };
            let part = Some(pb::snapshot_part::Part::Header(snapshot));
            pb::SnapshotPart { part }.encode_to_vec()
        }
        "Forward" => {
            let put = log::Put { key: "stranger".into(), value: "1".into(), ..Default::default() };
            let command = log::Command { op: Some(log::command::Op::Put(put)), precondition: None };
            pb::ForwardRequest { header, command: Some(command), ack: 1, timeout_ms: 1000 }.encode_to_vec()
        }
        _ => Vec::new(),
    }
}

fn id(status: &Value, field: &str) -> u64 {
    let text = status[field].as_str().expect("a started node has it");
    u64::from_str_radix(text, 16).expect("a hexadecimal number")
}

/// Headers that fit nobody, and none; what each is called.
async fn wrong_headers(cluster: &Cluster, node: usize) -> Vec<(&'static str, Option<pb::Header>)> {
    let status = cluster.status(node).await.expect("answers");
    let (group, me) = (id(&status, "clusterId"), id(&status, "memberId"));
    let run = Some(pb::Run { starts: 1, nonce: 1 });
    vec![
        ("no header", None),
        ("an empty header", Some(pb::Header::default())),
        ("another cluster", Some(pb::Header { cluster: group ^ 1, from: 7, to: me, run })),
        ("another addressee", Some(pb::Header { cluster: group, from: 7, to: me ^ 1, run })),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_without_the_right_header_are_refused() {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let mut wrong = Vec::new();
    for node in [peace.leader(), (peace.leader() + 1) % 3] {
        for (told, header) in wrong_headers(&cluster, node).await {
            for method in METHODS.iter().filter(|method| !OPEN.contains(method)) {
                let message = framed(&harmful(method, header));
                let answer = call(cluster.port(node), &peer_path(method), GRPC, message).await;
                if answer.as_ref().is_some_and(Answer::is_success) {
                    wrong.push(format!("{method} with {told}: {answer:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "let in: {wrong:#?}");
    peace.expect_untouched(&cluster, "strangers with wrong headers").await;
}

/// A copy of a member's directory speaks with an older run, again and again; the alarm is
/// in the log, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_keeps_calling_does_not_flood_the_log() {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let (leader, other) = (peace.leader(), (peace.leader() + 1) % 3);
    let status = cluster.status(other).await.expect("answers");
    let from = id(&cluster.status(leader).await.expect("answers"), "memberId");
    let run = Some(pb::Run { starts: 0, nonce: 1 });
    let header = pb::Header { cluster: id(&status, "clusterId"), from, to: id(&status, "memberId"), run };
    for _ in 0..200 {
        let message = framed(&harmful("Vote", Some(header)));
        let answer = call(cluster.port(other), &peer_path("Vote"), GRPC, message).await;
        assert!(!answer.expect("answered").is_success());
    }
    let log = std::fs::read_to_string(cluster.log_path(cluster.name(other))).expect("a log");
    assert!(log.contains("copy of another node's data directory"), "no alarm:\n{log}");
    peace.expect_untouched(&cluster, "a copy's calls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_calls_of_peers_change_nothing() {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let port = cluster.port(peace.leader());
    for method in METHODS {
        for (told, body) in [
            ("no message", Vec::new()),
            ("half a prefix", vec![0, 0]),
            ("a message shorter than it says", [&[0, 0, 0, 10, 0][..], b"xyz"].concat()),
            ("a message of 4 GiB by its prefix", b"\x00\xff\xff\xff\xffxyz".to_vec()),
            ("a compressed message", b"\x01\x00\x00\x00\x03xyz".to_vec()),
            ("an unknown flag", b"\x09\x00\x00\x00\x03xyz".to_vec()),
            ("no protobuf", framed(&[0xff; 64])),
            ("groups 10,000 deep", framed(&[0x0b; 10_000])),
        ] {
            let answer = call(port, &peer_path(method), GRPC, body).await;
            let success = answer.as_ref().is_some_and(Answer::is_success);
            // A stream may end before it begins.
            let nothing = matches!(method, "Append" | "Ask") && told == "no message";
            assert!(!success || nothing, "{method} with {told}: {answer:?}");
        }
    }
    for path in
        ["/bellwether.peer.v1.Peer/Nonsense", "/bellwether.peer.v1.Peer/", "/bellwether.peer.v1.Other/Vote"]
    {
        let answer = call(port, path, GRPC, framed(&[])).await;
        assert!(!answer.as_ref().is_some_and(Answer::is_success), "{path}: {answer:?}");
    }
    let vote = framed(&harmful("Vote", None));
    let plain = call(port, &peer_path("Vote"), "application/json", vote).await;
    assert!(!plain.as_ref().is_some_and(Answer::is_success), "{plain:?}");
    peace.expect_untouched(&cluster, "malformed calls").await;
}

/// Random bytes are no header, or none that fits.
#[tokio::test(flavor = "multi_thread")]
async fn random_messages_of_strangers_change_nothing() {
    let seed = env_number("BELLWETHER_SEED", 1);
    println!("reproduce: BELLWETHER_SEED={seed} cargo test --test it random_messages_of_strangers");
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let mut rng = Rng::new(seed);
    for method in METHODS {
        for round in 0..RANDOM_MESSAGES {
            let mut message = harmful(method, Some(pb::Header::default()));
            match round % 2 {
                0 => message = (0..rng.below(300)).map(|_| rng.next().to_le_bytes()[0]).collect(),
                _ if message.is_empty() => {}
                _ => (0..3).for_each(|_| {
                    let at = rng.below(message.len());
                    message[at] ^= 1 << rng.below(8);
                }),
            }
            // Whatever the answer is: it must be one, and change nothing.
            call(cluster.port(round % 3), &peer_path(method), GRPC, framed(&message)).await;
        }
    }
    peace.expect_untouched(&cluster, "random messages").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_huge_message_is_refused_in_bounded_memory() {
    let _alone = alone().await;
    let cluster = Cluster::started(3, &[PATIENT]).await;
    let peace = Peace::of(&cluster).await;
    let memory = Peak::watch(cluster.pid(peace.leader()));
    for method in ["Vote", "Ask", "Append", "InstallSnapshot"] {
        // Beyond the largest message, and one just below it.
        for bytes in [17 << 20, 15 << 20] {
            let answer =
                call(cluster.port(peace.leader()), &peer_path(method), GRPC, framed(&vec![0; bytes])).await;
            assert!(!answer.as_ref().is_some_and(Answer::is_success), "{method}, {bytes} bytes: {answer:?}");
        }
    }
    let grown = memory.growth();
    assert!(grown < MAX_GROWTH_BYTES, "{grown} bytes");
    println!("{} MiB", grown >> 20);
    peace.expect_untouched(&cluster, "huge messages").await;
}

/// A stream that says nothing is ended, as silent clients are.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_stream_without_a_message_is_ended() {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let mut silent = Vec::new();
    for method in ["Append", "Ask", "InstallSnapshot"] {
        let mut client = Raw::connect(cluster.port(peace.leader())).await.expect("the leader listens");
        let path = peer_path(method);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {GRPC}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert!(client.send(head.as_bytes()).await);
        silent.push((method, client));
    }
    for (method, mut client) in silent {
        let heard = client.hear_head().await;
        assert!(heard.closed || heard.text().contains("grpc-status: 4"), "{method}: {heard:?}");
    }
    peace.expect_untouched(&cluster, "silent streams").await;
}
