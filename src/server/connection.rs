//! One connection: HTTP/1.1 by hyper or [`http2`], over a watched stream, under the deadlines
//! of [`Activity`].

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{BufMut, BytesMut};
use futures::FutureExt;
use futures::future::Either;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::activity::{Activity, Kind};
use super::gate::Gate;
use super::limits::Limits;
use super::reply::{ReplyBody, Tracked};
use super::{Application, FLUSH_TIMEOUT, RequestBody, Shared, http2};
use crate::env::net::BoxStream;

/// How HTTP/2 begins (RFC 9113, section 3.4); no HTTP/1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Where the peers' service lives. Its traffic is exempt from the connection cap:
/// elections must survive a crowd of clients.
const PEER_PATH: &str = "/bellwether.peer.v1.";
/// The peers' calls that may last for ever (`proto/peer.proto`).
const PEER_STREAMS: [&str; 3] = [
    "/bellwether.peer.v1.Peer/Append",
    "/bellwether.peer.v1.Peer/Ask",
    "/bellwether.peer.v1.Peer/InstallSnapshot",
];

/// Clients' calls that may last for ever, over HTTP/2, whose pings tell who is gone.
const ENDLESS: [&str; 6] = [
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Observe",
    "/v3lockpb.Lock/Lock",
    "/grpc.health.v1.Health/Watch",
];

/// Serves one connection to its end, or cuts it off. With `crowded` it is one of the reserve:
/// while the connection cap is passed only peers are served on it, all others hear 503.
pub async fn run<A: Application>(
    stream: BoxStream,
    shared: Arc<Shared<A>>,
    activity: Arc<Activity>,
    crowded: bool,
) {
    let io = Watched::new(stream, activity.clone(), shared.gate.clone());
    let requests = Requests { shared: shared.clone(), activity: activity.clone(), crowded };
    let mut speaking = pin!(speak(io, requests));
    let mut check = pin!(tokio::time::sleep(shared.limits.check_interval()));
    loop {
        tokio::select! {
            biased;
            () = speaking.as_mut() => return,
            () = check.as_mut() => match activity.check(&shared.limits, shared.is_crowded()) {
                Ok(again) => check.as_mut().reset(again),
                Err(cut) => {
                    if cut.is_refusal() {
                        shared.metrics.refuse(cut.as_str());
                    }
                    return;
                }
            },
            () = shared.ending.closing.cancelled() => {
                if !activity.only_peers() {
                    let _ = tokio::time::timeout(FLUSH_TIMEOUT, speaking.as_mut()).await;
                }
                return;
            }
        }
    }
}

/// In the protocol that the client begins with.
async fn speak<A: Application>(mut io: Watched, requests: Requests<A>) {
    let begins_http2 = tokio::select! {
        biased;
        begins = io.begins_http2() => begins,
        // Whoever has said nothing yet has nothing under way.
        () = requests.draining() => return,
    };
    match begins_http2 {
        Ok(true) => http2::serve(io, requests).await,
        Ok(false) => http1(io, requests).await,
        // The client is gone.
        Err(_) => {}
    }
}

async fn http1<A: Application>(io: Watched, requests: Requests<A>) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Activity` watches heads: hyper's timer would also cut idle connections.
        .header_read_timeout(None)
        .max_buf_size(requests.limits().max_header_bytes)
        .max_headers(requests.limits().max_headers);
    let service = service_fn(|request| requests.answer(request).map(Ok::<_, Infallible>));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        biased;
        // Errors are the client's (resets, broken requests); hyper has answered them.
        _ = connection.as_mut() => return,
        () = requests.draining() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Where a connection's requests go.
pub struct Requests<A> {
    shared: Arc<Shared<A>>,
    activity: Arc<Activity>,
    crowded: bool,
}

impl<A: Application> Requests<A> {
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Ready when no more requests are to be begun.
    pub fn draining(&self) -> impl Future<Output = ()> + '_ {
        self.shared.ending.draining.cancelled()
    }

    /// Hands one request to the application, and counts it until its reply is gone.
    pub fn answer<B: RequestBody>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Response<Tracked>> + Send + 'static + use<A, B> {
        let Self { shared, activity, crowded } = self;
        let guard = activity.begin(kind(&request));
        let is_refused = *crowded && shared.is_crowded() && !request.uri().path().starts_with(PEER_PATH);
        let answer = if is_refused {
            shared.metrics.refuse("connections");
            Either::Left(std::future::ready(crowded_reply()))
        } else {
            // A request's state is large, and it is moved often on its way to where it stays.
            Either::Right(Box::pin(shared.app.answer(request)))
        };
        answer.map(|response| response.map(|body| Tracked::new(body, guard)))
    }
}

/// By the path alone: a header is quickly written by somebody who wants to stay for ever.
fn kind<B>(request: &Request<B>) -> Kind {
    match request.uri().path() {
        path if PEER_STREAMS.contains(&path) => Kind::Stream,
        path if path.starts_with(PEER_PATH) => Kind::Call,
        path if request.version() == http::Version::HTTP_2 && ENDLESS.contains(&path) => Kind::Endless,
        _ => Kind::Request,
    }
}

fn crowded_reply() -> Response<ReplyBody> {
    const TEXT: &str = r#"{"error":"Too many connections","outcome":"not_applied","hint":"this node serves as many connections as it may; reuse connections, or try another node"}"#;
    let mut response = Response::new(Body::from(TEXT).into());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// A stream that reports what it hears, and hears clients only when it is their turn.
pub struct Watched {
    stream: BoxStream,
    activity: Arc<Activity>,
    gate: Arc<Gate>,
    /// Heard while it was not clear what the client speaks, and to be read again.
    first: BytesMut,
}

impl Watched {
    fn new(stream: BoxStream, activity: Arc<Activity>, gate: Arc<Gate>) -> Self {
        Self { stream, activity, gate, first: BytesMut::new() }
    }

    /// Whether the client begins as in HTTP/2.
    async fn begins_http2(&mut self) -> io::Result<bool> {
        let mut first = BytesMut::with_capacity(PREFACE.len());
        let begins = loop {
            let missing = PREFACE.len() - first.len();
            if self.read_buf(&mut (&mut first).limit(missing)).await? == 0 || !PREFACE.starts_with(&first) {
                break false;
            }
            if first.len() == PREFACE.len() {
                self.activity.speaks_http2();
                break true;
            }
        };
        self.first = first;
        Ok(begins)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let gated = !self.activity.is_peer();
        if gated && self.gate.poll_enter(cx).is_pending() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.heard();
        }
        if gated && polled.is_pending() {
            self.gate.give_back();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        // h2 then copies small replies one behind the other and writes them in one call; else
        // it would write each by itself. It asks once, after the first bytes were heard.
        !self.activity.is_http2() && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
