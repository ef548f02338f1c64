//! HTTP/2, as the h2 crate speaks it.
//!
//! A connection first reads all that has come, then takes each new request's first step
//! itself: local reads and refusals are done in one. Only what has to wait becomes a task.
//! hyper would put a task, a body on the heap and a look at the clock or two between h2 and
//! each request; docs/adr/0019 says what that takes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Response, header};
use hyper::body::Frame;
use tokio::time::{Instant, Sleep};

use super::Application;
use super::activity::Activity;
use super::connection::{Requests, Watched};
use super::limits::{self, Limits};
use super::reply::Tracked;

/// What is queued for the client beyond its windows, in bytes, before a stream waits.
const MAX_QUEUED_BYTES: usize = 400 * 1024;
/// Streams that were broken off here, and that a client may go on sending to: more, and it is
/// cut off.
const MAX_BROKEN_OFF: usize = 1024;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::H2_FRAME_BYTES)
        .max_concurrent_streams(limits::H2_MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(MAX_QUEUED_BYTES)
        .max_local_error_reset_streams(Some(MAX_BROKEN_OFF));
    builder
}

/// Serves the connection until it ends, the client is gone, or, once the server drains, the
/// requests under way are answered.
pub async fn serve<A: Application>(io: Watched, requests: Requests<A>) {
    // An error is the client's here and below; h2 has told it.
    let Ok(mut connection) = builder(requests.limits()).handshake(io).await else { return };
    let mut pings = connection.ping_pong().map(|pings| Pings::new(pings, requests.limits()));
    let mut draining = pin!(requests.draining());
    let (mut drains, mut begun) = (false, Vec::new());
    poll_fn(|cx| {
        if !drains && draining.as_mut().poll(cx).is_ready() {
            drains = true;
            connection.graceful_shutdown();
        }
        let accepted = poll_accepted(&mut connection, &requests, &mut begun, cx);
        begin(&mut begun);
        if accepted.is_pending()
            && let Some(pings) = &mut pings
        {
            return pings.poll_gone(requests.activity(), cx);
        }
        accepted
    })
    .await;
}

/// Takes all requests that have come; ready when the connection has ended.
fn poll_accepted<A: Application>(
    connection: &mut Connection<Watched, Bytes>,
    requests: &Requests<A>,
    begun: &mut Vec<Work>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while let Some(Ok((request, reply))) = ready!(connection.poll_accept(cx)) {
        let answer = requests.answer(request.map(Received));
        begun.push(Box::pin(async move { drop(respond(answer, reply).await) }));
    }
    Poll::Ready(())
}

/// Takes the first step of each. A reply wakes the connection.
fn begin(works: &mut Vec<Work>) {
    for mut work in works.drain(..) {
        // Nobody needs to be woken: a task asks again.
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(work);
        }
    }
}

/// Sends the answer, unless the client gives up before.
async fn respond(
    answer: impl Future<Output = Response<Tracked>>,
    mut reply: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut answer = pin!(answer);
    let response = unless_reset(|cx| answer.as_mut().poll(cx), |cx| reply.poll_reset(cx));
    let (mut head, body) = response.await?.into_parts();
    // HTTP/2 has no such header.
    head.headers.remove(header::CONNECTION);
    let is_whole = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !is_whole) {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let sent = reply.send_response(Response::from_parts(head, ()), is_whole);
    let stream = sent.inspect_err(|_| reply.send_reset(Reason::INTERNAL_ERROR))?;
    if is_whole { Ok(()) } else { send(body, stream).await }
}

/// Sends the body, as fast as the client takes it.
async fn send(mut body: Tracked, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
    loop {
        let frame = unless_reset(|cx| Pin::new(&mut body).poll_frame(cx), |cx| stream.poll_reset(cx));
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => return stream.send_data(Bytes::new(), true),
        };
        match frame.into_data() {
            Ok(data) => {
                if !data.is_empty() {
                    room(&mut stream).await?;
                }
                let is_last = body.is_end_stream();
                stream.send_data(data, is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// What the work comes to, unless the client breaks the stream off before.
async fn unless_reset<T>(
    mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
    mut reset: impl FnMut(&mut Context<'_>) -> Poll<Result<Reason, h2::Error>>,
) -> Result<T, h2::Error> {
    poll_fn(|cx| match work(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => Poll::Ready(Err(ready!(reset(cx))?.into())),
    })
    .await
}

/// Waits until the client takes something of this stream. One byte is asked for: what is in
/// hand may then be queued, and streams that wait claim nothing of the connection's window
/// that others could use.
async fn room(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(more) => more?,
            // Broken off.
            None => return Err(Reason::CANCEL.into()),
        };
    }
    Ok(())
}

/// A request's body.
pub struct Received(RecvStream);

impl HttpBody for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.0.poll_data(cx)) {
            Some(data) => {
                let data = data?;
                self.0.flow_control().release_capacity(data.len())?;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            None => Poll::Ready(ready!(self.0.poll_trailers(cx))?.map(Frame::trailers).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Tells a client that is gone from one that has nothing to say: it answers pings.
struct Pings {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    /// When the ping was sent that was not answered yet.
    sent: Option<Instant>,
    /// When to look again.
    timer: Pin<Box<Sleep>>,
}

impl Pings {
    fn new(pings: PingPong, limits: &Limits) -> Self {
        let (interval, timeout) = (limits.ping_interval, limits.ping_timeout);
        Self { pings, interval, timeout, sent: None, timer: Box::pin(tokio::time::sleep(interval)) }
    }

    /// Ready when the client is gone.
    fn poll_gone(&mut self, activity: &Activity, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.sent.is_some() && self.pings.poll_pong(cx).is_ready() {
                self.sent = None;
            }
            ready!(self.timer.as_mut().poll(cx));
            let (now, heard) = (Instant::now(), activity.heard_at());
            let next = match self.sent {
                // Whatever is heard is a sign of life; the answer may lie behind a long body.
                Some(sent) => heard.max(sent) + self.timeout,
                None => heard + self.interval,
            };
            if next > now {
                self.timer.as_mut().reset(next);
            } else if self.sent.is_some() || self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            } else {
                self.sent = Some(now);
                self.timer.as_mut().reset(now + self.timeout);
            }
        }
    }
}
