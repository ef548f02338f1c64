//! One connection: hyper over a watched stream, under the deadlines of [`Activity`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures::FutureExt;
use futures::future::Either;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{Activity, Guard, Kind};
use super::begin::Begin;
use super::gate::Gate;
use super::limits::{self, Limits};
use super::{Application, FLUSH_TIMEOUT, Shared};
use crate::env::net::BoxStream;

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

fn builder(limits: &Limits, begin: Begin) -> Builder<Begin> {
    let mut builder = Builder::new(begin);
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` watches heads: hyper's timer would also cut idle connections.
        .header_read_timeout(None)
        .max_buf_size(limits.max_header_bytes)
        .max_headers(limits.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::H2_MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits::H2_PING_INTERVAL)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT);
    builder
}

/// Serves one connection to its end. With `crowded` it is one of the reserve: while the
/// connection cap is passed only peers are served on it, all others hear 503.
pub async fn run<A: Application>(
    stream: BoxStream,
    shared: Arc<Shared<A>>,
    activity: Arc<Activity>,
    crowded: bool,
) {
    let io = TokioIo::new(Watched { stream, activity: activity.clone(), gate: shared.gate.clone() });
    let service = hyper::service::service_fn({
        let (shared, activity) = (shared.clone(), activity.clone());
        move |request| serve(&shared, &activity, crowded, request)
    });
    let begin = Begin::default();
    let builder = builder(&shared.limits, begin.clone());
    let connection = builder.serve_connection(io, service);
    drive(connection, &begin, &shared, &activity).await;
}

/// Polls the connection until it ends, is cut off, or the server stops.
async fn drive<A, S>(
    connection: hyper_util::server::conn::auto::Connection<'_, TokioIo<Watched>, S, Begin>,
    begin: &Begin,
    shared: &Shared<A>,
    activity: &Activity,
) where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<Tracked>,
            Error = std::convert::Infallible,
        >,
    S::Future: Send + 'static,
{
    tokio::pin!(connection);
    let check = tokio::time::sleep(shared.limits.check_interval());
    tokio::pin!(check);
    let ending = &shared.ending;
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            // Errors are the client's (resets, broken requests); hyper has answered them.
            () = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                begin.begin_all();
                polled.map(drop)
            }) => return,
            () = check.as_mut() => match activity.check(&shared.limits, shared.is_crowded()) {
                Ok(again) => check.as_mut().reset(again),
                Err(cut) => {
                    if cut.is_refusal() {
                        shared.metrics.refuse(cut.as_str());
                    }
                    return;
                }
            },
            () = ending.closing.cancelled() => {
                if !activity.only_peers() {
                    let _ = tokio::time::timeout(FLUSH_TIMEOUT, connection.as_mut()).await;
                }
                return;
            }
            () = ending.draining.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

type Served = Result<Response<Tracked>, std::convert::Infallible>;

/// Hands one request to the application, and counts it until its reply is gone.
fn serve<A: Application>(
    shared: &Shared<A>,
    activity: &Arc<Activity>,
    crowded: bool,
    request: Request<Incoming>,
) -> impl Future<Output = Served> + Send + 'static + use<A> {
    let guard = activity.begin(request.version(), kind(&request));
    let answer = if crowded && shared.is_crowded() && !request.uri().path().starts_with(PEER_PATH) {
        shared.metrics.refuse("connections");
        Either::Left(std::future::ready(crowded_reply()))
    } else {
        // A request's state is large, and it is moved often on its way to where it stays.
        Either::Right(Box::pin(shared.app.answer(request)))
    };
    answer.map(|response| Ok(response.map(|body| Tracked { body, guard })))
}

/// By the path alone: a header is quickly written by somebody who wants to stay for ever.
fn kind(request: &Request<Incoming>) -> Kind {
    match request.uri().path() {
        path if PEER_STREAMS.contains(&path) => Kind::Stream,
        path if path.starts_with(PEER_PATH) => Kind::Call,
        path if request.version() == http::Version::HTTP_2 && ENDLESS.contains(&path) => Kind::Endless,
        _ => Kind::Request,
    }
}

fn crowded_reply() -> Response<Body> {
    const TEXT: &str = r#"{"error":"Too many connections","outcome":"not_applied","hint":"this node serves as many connections as it may; reuse connections, or try another node"}"#;
    let mut response = Response::new(Body::from(TEXT));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// A reply's body; the request counts as under way until it is dropped.
pub struct Tracked {
    body: Body,
    guard: Guard,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // hyper asks only when the client has room for more.
        self.guard.asked_for_more();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = frame {
            self.guard.sent();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that reports what it hears, and hears clients only when it is their turn.
struct Watched {
    stream: BoxStream,
    activity: Arc<Activity>,
    gate: Arc<Gate>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gated = !self.activity.is_peer();
        if gated && self.gate.poll_enter(cx).is_pending() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.heard(&buf.filled()[before..]);
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
        !self.activity.is_h2() && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
