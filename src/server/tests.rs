//! The server over real sockets, around a toy application.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::env::net::{Net, RealNet};

struct Running {
    authority: String,
    metrics: Arc<Metrics>,
    /// `/slow` answers after a permit is added here.
    gate: Arc<Semaphore>,
    /// Has a permit for each `/slow` that was begun.
    begun: Arc<Semaphore>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

async fn start(limits: Limits) -> Running {
    let listener = RealNet.bind("127.0.0.1", 0).await.expect("a free port");
    let authority = listener.local_addr().expect("bound").to_string();
    let metrics = Arc::new(Metrics::default());
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let slow = {
        let (gate, begun) = (gate.clone(), begun.clone());
        move || async move {
            begun.add_permits(1);
            gate.acquire().await.expect("never closed").forget();
            "slow"
        }
    };
    let endless = || async { Body::from_stream(futures::stream::pending::<io::Result<Bytes>>()) };
    let flood = || async {
        let piece = || Ok::<_, io::Error>(Bytes::from_static(&[0; 16 << 10]));
        Body::from_stream(futures::stream::repeat_with(piece))
    };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/slow", get(slow.clone()))
        .route("/bellwether.peer.v1.Peer/Append", get(endless))
        .route("/etcdserverpb.Lease/LeaseKeepAlive", get(endless))
        .route("/etcdserverpb.Watch/Watch", get(flood))
        .route("/v3lockpb.Lock/Lock", get(slow));
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move { drop(stopped.await) };
    let ended = tokio::spawn(serve(listener, app, limits, metrics.clone(), shutdown));
    Running { authority, metrics, gate, begun, stop, ended }
}

impl Running {
    async fn connect(&self) -> BoxStream {
        RealNet.connect(&self.authority).await.expect("the server listens")
    }

    /// Whether a client that comes now is served.
    async fn is_served(&self) -> bool {
        let mut client = self.connect().await;
        // Cut off before it could speak: not served.
        let asked = client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        asked.is_ok() && read_all(&mut client).await.ends_with("hello")
    }

    fn refused(&self, reason: &'static str) -> u64 {
        let label = crate::metrics::RefusalLabels { reason };
        self.metrics.refused.get_or_create(&label).get()
    }

    async fn until_connections(&self, count: i64) {
        while self.metrics.connections.get() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A limit that a test waits for; nothing else in that test depends on time.
const SHORT: Duration = Duration::from_millis(40);
const HELLO: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

/// Everything until the server closes.
async fn read_all(stream: &mut BoxStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One whole reply of the toy application.
async fn read_hello(stream: &mut BoxStream) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"hello") {
        assert_ne!(stream.read_buf(&mut bytes).await.expect("open"), 0, "closed early");
    }
}

type Http2 = hyper::client::conn::http2::SendRequest<http_body_util::Empty<Bytes>>;

async fn http2(running: &Running) -> Http2 {
    let io = TokioIo::new(running.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn request(path: &str, content_type: &str) -> http::Request<http_body_util::Empty<Bytes>> {
    let uri = format!("http://bellwether{path}");
    let request = http::Request::get(uri).header("content-type", content_type);
    request.body(http_body_util::Empty::new()).expect("valid request")
}

#[tokio::test]
async fn both_http_versions_on_one_port() {
    let running = start(Limits::default()).await;
    let mut one = running.connect().await;
    for _ in 0..2 {
        one.write_all(HELLO).await.expect("sent");
        read_hello(&mut one).await;
    }
    let reply = http2(&running).await.send_request(request("/", "text/plain")).await.expect("answered");
    assert_eq!(reply.version(), http::Version::HTTP_2);
    assert_eq!(reply.into_body().collect().await.expect("a body").to_bytes(), "hello");
}

/// What HTTP/2 begins with, and the settings frame that must follow, without any.
const HTTP2_HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_preface_in_pieces_is_one() {
    let running = start(Limits::default()).await;
    let mut client = running.connect().await;
    for piece in HTTP2_HELLO.chunks(5) {
        client.write_all(piece).await.expect("sent");
        client.flush().await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 9];
    client.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer[3], 4, "no settings frame: {answer:?}");
}

#[tokio::test]
async fn what_only_begins_like_http2_is_http1() {
    let running = start(Limits::default()).await;
    let mut client = running.connect().await;
    client.write_all(b"PRI / HTTP/1.1\r\nConnection: close\r\n\r\n").await.expect("sent");
    let reply = read_all(&mut client).await;
    assert!(reply.starts_with("HTTP/1.1 4"), "{reply}");
}

/// Over HTTP/2 a client that is gone is told by pings from one that only waits.
#[tokio::test]
async fn who_answers_no_ping_is_cut_off_and_who_answers_stays() {
    let running = start(Limits { ping_interval: SHORT, ping_timeout: SHORT, ..Limits::default() }).await;
    let mut waiting = http2(&running).await;
    let call = waiting.send_request(request(KEEP_ALIVE, "application/grpc")).await.expect("served");
    for _ in 0..2 {
        let mut gone = running.connect().await;
        gone.write_all(HTTP2_HELLO).await.expect("sent");
        read_all(&mut gone).await;
    }
    // The one that waits was asked as often.
    let mut body = call.into_body();
    assert!(futures::poll!(std::pin::pin!(body.frame())).is_pending());
    assert!(!waiting.is_closed());
}

#[tokio::test]
async fn a_silent_client_is_cut_off() {
    let running = start(Limits { first_byte_timeout: SHORT, ..Limits::default() }).await;
    let mut silent = running.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
    assert_eq!(running.refused("silent_connection"), 1);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_cut_off() {
    let running = start(Limits { header_read_timeout: SHORT, ..Limits::default() }).await;
    let mut slow = running.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("sent");
    assert_eq!(read_all(&mut slow).await, "");
    assert_eq!(running.refused("slow_head"), 1);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_and_a_call_is_not() {
    let running = start(Limits { request_life: SHORT, ..Limits::default() }).await;
    let mut peer = http2(&running).await;
    let call = request("/bellwether.peer.v1.Peer/Append", "application/grpc");
    let mut call = peer.send_request(call).await.expect("served").into_body();
    let mut stuck = running.connect().await;
    stuck.write_all(SLOW).await.expect("sent");
    assert_eq!(read_all(&mut stuck).await, "");
    assert_eq!(running.refused("slow_request"), 1);
    // The call was begun before, so its time has passed as well.
    assert!(futures::poll!(std::pin::pin!(call.frame())).is_pending());
    assert!(!peer.is_closed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_used_one_served() {
    let limits = Limits { idle_timeout: SHORT, ..Limits::default() };
    let running = start(limits).await;
    let mut stream = running.connect().await;
    stream.write_all(HELLO).await.expect("sent");
    assert!(read_all(&mut stream).await.ends_with("hello"));
    assert_eq!(running.refused("idle_connection"), 0);
}

#[tokio::test]
async fn past_the_cap_clients_hear_503_and_peers_are_served() {
    let limits = Limits { max_connections: 1, reserved_connections: 1, ..Limits::default() };
    let running = start(limits).await;
    let mut first = running.connect().await;
    first.write_all(HELLO).await.expect("sent");
    read_hello(&mut first).await;

    let mut second = running.connect().await;
    second.write_all(HELLO).await.expect("sent");
    let refusal = read_all(&mut second).await;
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("retry-after: 1"), "{refusal}");
    running.until_connections(1).await;

    let mut peer = http2(&running).await;
    let stream = request("/bellwether.peer.v1.Peer/Append", "application/grpc");
    assert_eq!(peer.send_request(stream).await.expect("served").status(), 200);
    // On one of the reserve's connections only peers are served while the crowd lasts.
    let refused = peer.send_request(request("/", "text/plain")).await.expect("answered");
    assert_eq!(refused.status(), 503);
    // Now the reserve is used up, too.
    let mut third = running.connect().await;
    let _ = third.write_all(HELLO).await;
    assert_eq!(read_all(&mut third).await, "");
    drop(first);
    running.until_connections(1).await;
    assert_eq!(peer.send_request(request("/", "text/plain")).await.expect("answered").status(), 200);
}

/// Strangers who connect and stay silent, as many as come, do not keep a peer out.
#[tokio::test]
async fn in_the_reserve_a_newcomer_takes_a_silent_stranger_s_place() {
    let limits = Limits { max_connections: 1, reserved_connections: 2, ..Limits::default() };
    let running = start(limits).await;
    let mut first = running.connect().await;
    first.write_all(HELLO).await.expect("sent");
    read_hello(&mut first).await;
    let mut peer = http2(&running).await;
    let append = request("/bellwether.peer.v1.Peer/Append", "application/grpc");
    let _stream = peer.send_request(append).await.expect("served");
    let mut strangers = Vec::new();
    for _ in 0..8 {
        strangers.push(running.connect().await);
    }
    // All but the last had to go; the peer's stream is untouched.
    let last = strangers.pop().expect("some");
    for mut stranger in strangers {
        assert_eq!(read_all(&mut stranger).await, "");
    }
    let mut other = http2(&running).await;
    let append = request("/bellwether.peer.v1.Peer/Append", "application/grpc");
    assert_eq!(other.send_request(append).await.expect("served").status(), 200);
    assert!(!peer.is_closed());
    drop(last);
}

#[tokio::test]
async fn in_a_crowd_idle_connections_make_room() {
    let limits = Limits {
        max_connections: 1,
        first_byte_timeout: SHORT,
        crowded_idle_timeout: SHORT,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut idle = running.connect().await;
    idle.write_all(HELLO).await.expect("sent");
    read_hello(&mut idle).await;
    let mut newcomer = running.connect().await;
    newcomer.write_all(HELLO).await.expect("sent");
    assert!(read_all(&mut newcomer).await.starts_with("HTTP/1.1 503"));
    // It has had a crowd around it for a moment; without one it may stay for long.
    while !running.is_served().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(read_all(&mut idle).await, "");
}

/// Only a peer's path makes a stream that may last; a header any client can write.
#[tokio::test]
async fn a_client_does_not_stay_for_ever_by_calling_itself_grpc() {
    let running = start(Limits { request_life: SHORT, ..Limits::default() }).await;
    let mut client = running.connect().await;
    let slow = b"GET /slow HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n";
    client.write_all(slow).await.expect("sent");
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(running.refused("slow_request"), 1);
}

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

#[tokio::test]
async fn an_endless_call_has_no_deadline() {
    let running = start(Limits { request_life: SHORT, ..Limits::default() }).await;
    let mut client = http2(&running).await;
    let call = request(KEEP_ALIVE, "application/grpc");
    let mut call = client.send_request(call).await.expect("served").into_body();
    let waiting = tokio::spawn(client.send_request(request("/v3lockpb.Lock/Lock", "application/grpc")));
    running.begun.acquire().await.expect("never closed").forget();
    let mut stuck = running.connect().await;
    stuck.write_all(SLOW).await.expect("sent");
    assert_eq!(read_all(&mut stuck).await, "");
    // They were begun before, so their time would have passed as well.
    assert!(futures::poll!(std::pin::pin!(call.frame())).is_pending());
    running.gate.add_permits(2);
    assert_eq!(waiting.await.expect("no panic").expect("answered").status(), 200);
}

/// Without pings nobody would notice that the client is gone.
#[tokio::test]
async fn over_http1_no_call_is_endless() {
    let running = start(Limits { request_life: SHORT, ..Limits::default() }).await;
    let mut client = running.connect().await;
    client.write_all(b"GET /v3lockpb.Lock/Lock HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(running.refused("slow_request"), 1);
}

#[tokio::test]
async fn who_does_not_read_an_endless_reply_is_cut_off_and_who_reads_is_not() {
    let running = start(Limits { unread_timeout: SHORT, ..Limits::default() }).await;
    let mut reader = http2(&running).await;
    let reading = reader.send_request(request(WATCH, "application/grpc")).await.expect("served");
    let read = tokio::spawn(async move {
        let mut body = reading.into_body();
        while let Some(Ok(_)) = body.frame().await {
            // Others have their turn on this thread.
            tokio::task::yield_now().await;
        }
    });
    let mut lazy = http2(&running).await;
    let reply = lazy.send_request(request(WATCH, "application/grpc")).await.expect("served");
    while running.refused("unread_stream") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut body = reply.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    assert!(!read.is_finished() && !reader.is_closed());
    assert_eq!(running.refused("unread_stream"), 1);
    read.abort();
}

/// Past the cap an endless call is a client's like any other.
#[tokio::test]
async fn an_endless_call_has_no_rights_of_a_peer() {
    let limits = Limits { max_connections: 1, reserved_connections: 1, ..Limits::default() };
    let running = start(limits).await;
    let mut first = running.connect().await;
    first.write_all(HELLO).await.expect("sent");
    read_hello(&mut first).await;
    let mut client = http2(&running).await;
    let call = request(KEEP_ALIVE, "application/grpc");
    assert_eq!(client.send_request(call).await.expect("answered").status(), 503);
}

#[tokio::test]
async fn stopping_does_not_wait_for_endless_calls() {
    let running = start(Limits { drain_timeout: Duration::from_secs(3600), ..Limits::default() }).await;
    let mut client = http2(&running).await;
    let call = request(KEEP_ALIVE, "application/grpc");
    let mut call = client.send_request(call).await.expect("served").into_body();
    running.stop.send(()).expect("running");
    running.ended.await.expect("no panic").expect("drained");
    assert!(call.frame().await.is_none_or(|frame| frame.is_err()));
}

#[tokio::test]
async fn stopping_waits_for_requests_under_way() {
    let running = start(Limits::default()).await;
    let mut idle = running.connect().await;
    idle.write_all(HELLO).await.expect("sent");
    read_hello(&mut idle).await;
    let mut silent = running.connect().await;
    let mut peer = http2(&running).await;
    let endless = request("/bellwether.peer.v1.Peer/Append", "application/grpc");
    let _endless = peer.send_request(endless).await.expect("served");
    let mut busy = http2(&running).await;
    let reply = tokio::spawn(busy.send_request(request("/slow", "text/plain")));
    running.begun.acquire().await.expect("never closed").forget();

    running.stop.send(()).expect("running");
    // The idle connections' ends say that draining has begun.
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut silent).await, "");
    running.gate.add_permits(1);
    let reply = reply.await.expect("no panic").expect("answered");
    assert_eq!(reply.into_body().collect().await.expect("a body").to_bytes(), "slow");
    running.ended.await.expect("no panic").expect("drained");
    assert!(RealNet.connect(&running.authority).await.is_err());
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let limits = Limits { drain_timeout: SHORT, ..Limits::default() };
    let running = start(limits).await;
    let mut stuck = running.connect().await;
    stuck.write_all(SLOW).await.expect("sent");
    running.begun.acquire().await.expect("never closed").forget();
    running.stop.send(()).expect("running");
    running.ended.await.expect("no panic").expect("drained");
    assert_eq!(read_all(&mut stuck).await, "");
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let running = start(Limits::default()).await;
    let mut stream = running.connect().await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEADER_BYTES));
    let _ = stream.write_all(head.as_bytes()).await;
    let reply = read_all(&mut stream).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");
}
