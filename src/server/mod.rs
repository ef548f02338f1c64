//! The accept loop, its limits, and the graceful end.
//!
//! [`serve`] owns the listener and every connection's task. A connection speaks
//! HTTP/1.1 or HTTP/2, told apart by its first bytes, so clients, peers and scrapers share
//! one port. What a connection is doing, and by when it must have done it, is
//! [`activity`]; how it is driven, [`connection`]; the numbers and their reasons,
//! [`limits`]. Why not `axum::serve`: it installs no timer and caps nothing.
//!
//! What a request *means*, how large its body may be and how many are handled at once
//! is the application's business (`api`): only it knows which routes are a client's.
//! The peers' traffic passes the limits here: past the connection cap a reserve of
//! connections ([`reserve`]) serves peers alone, their streams have no deadline, and they do
//! not wait at the [`gate`] where clients are let in, a few at a time. Some calls of clients
//! may last for ever as well: they have none of these rights, and must be read.
//!
//! The end, in two steps: draining stops accepting and lets requests under way finish,
//! bounded; closing flushes what is written and drops the rest.

mod activity;
mod connection;
mod gate;
mod http2;
mod limits;
mod reply;
mod reserve;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Bytes, HttpBody};
use http::{Request, Response};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::env::net::{BoxStream, Listener};
use crate::metrics::Metrics;
use activity::{Activity, Busy};
use gate::Gate;
pub use limits::*;
pub use reply::ReplyBody;
use reserve::Reserve;

/// After a failed accept (no file descriptors left, most likely): long enough for some
/// connection to end, short enough to go unnoticed.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How often a draining server looks whether the last request has ended.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// For the last reply's bytes to leave a connection that is being closed.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// The two steps of a server's end.
#[derive(Default)]
struct Ending {
    /// No new requests; those under way finish.
    draining: CancellationToken,
    /// What is written leaves, then every connection closes.
    closing: CancellationToken,
}

/// A body as it comes from a client, or as a router has boxed it.
pub trait RequestBody: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static {}
impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static> RequestBody for B {}

/// What answers the requests.
///
/// A router is one; what is asked often may be answered without it, for it puts every
/// request's work on the heap, in several pieces.
pub trait Application: Send + Sync + 'static {
    fn answer<B: RequestBody>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Response<ReplyBody>> + Send + 'static + use<Self, B>;
}

impl Application for axum::Router {
    fn answer<B: RequestBody>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Response<ReplyBody>> + Send + 'static + use<B> {
        let reply = tower::Service::call(&mut self.clone(), request);
        async move { reply.await.unwrap_or_else(|never: Infallible| match never {}).map(ReplyBody::from) }
    }
}

/// What all connections of one server share.
struct Shared<A> {
    app: A,
    limits: Limits,
    metrics: Arc<Metrics>,
    busy: Busy,
    gate: Arc<Gate>,
    /// Connections that are open now.
    open: AtomicUsize,
    ending: Ending,
}

impl<A> Shared<A> {
    fn set_open(&self, connections: usize) {
        self.open.store(connections, Ordering::Relaxed);
        self.metrics.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Looked at for each request, so that a client on a connection of the reserve is
    /// served again once the crowd is gone.
    fn is_crowded(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.limits.max_connections
    }
}

/// Serves `app` on `listener` until `shutdown` resolves, then drains; returns when
/// every connection is closed.
pub async fn serve<A: Application>(
    mut listener: Box<dyn Listener>,
    app: A,
    limits: Limits,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (busy, open, ending) = (Busy::default(), AtomicUsize::new(0), Ending::default());
    let gate = Arc::<Gate>::default();
    let shared = Arc::new(Shared { app, limits, metrics, busy, gate, open, ending });
    // Ends with this function: it is aborted when the set is dropped.
    let mut rounds = JoinSet::new();
    rounds.spawn({
        let gate = shared.gate.clone();
        async move { gate.run().await }
    });
    let mut connections = Connections::default();
    let mut accepts = true;
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = shutdown.as_mut() => break,
            Some(_) = connections.tasks.join_next() => {
                shared.set_open(connections.tasks.len());
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    accepts = true;
                    connections.admit(stream, &shared);
                }
                Err(error) => {
                    // Twenty times a second for as long as it lasts, but said once.
                    if std::mem::take(&mut accepts) {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
    drop(listener);
    drain(&shared, connections.tasks).await;
    Ok(())
}

/// All connections, and those beyond the cap once more.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    reserve: Reserve,
}

impl Connections {
    /// Starts a connection's task, unless even the reserve is full, of peers.
    fn admit<A: Application>(&mut self, stream: BoxStream, shared: &Arc<Shared<A>>) {
        let Limits { max_connections, reserved_connections, .. } = shared.limits;
        let crowded = self.tasks.len() >= max_connections;
        if crowded && !self.reserve.make_room(reserved_connections) {
            shared.metrics.refuse("connections");
            return;
        }
        let activity = Activity::new(shared.busy.clone());
        let running = connection::run(stream, shared.clone(), activity.clone(), crowded);
        let task = self.tasks.spawn(running);
        if crowded {
            self.reserve.add(activity, task);
        }
        shared.set_open(self.tasks.len());
    }
}

async fn drain<A>(shared: &Shared<A>, mut connections: JoinSet<()>) {
    shared.ending.draining.cancel();
    let deadline = Instant::now() + shared.limits.drain_timeout;
    while !shared.busy.is_idle() && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_CHECK_INTERVAL).await;
    }
    if !shared.busy.is_idle() {
        tracing::warn!("closing with requests still under way");
    }
    shared.ending.closing.cancel();
    // Every connection bounds its own end by `FLUSH_TIMEOUT`.
    while connections.join_next().await.is_some() {}
    shared.set_open(0);
}
