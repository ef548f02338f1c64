//! One server: the node and its listener, from start to drained stop.
//!
//! [`run`] is the process; [`run_in`] is the same in any world, which is what a
//! simulation calls. Both are restartable: everything they start ends with them.

use std::future::Future;
use std::io;
use std::pin::pin;

use ::http::{Request, Response};
use futures::FutureExt;
use futures::future::Either;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::api::{Doors, etcd, http};
use crate::config::Config;
use crate::env::net::Listener;
use crate::env::{World, open_files};
use crate::node::{Exit, Node, peer_service};
use crate::server::{self, Application, Limits, ReplyBody, RequestBody};

/// Where peers' messages go; clients' paths are everything else.
const PEER_ROUTE: &str = "/bellwether.peer.v1.Peer/{*rpc}";

/// Files that a node needs beside its clients' connections: log segments (17 with the
/// default sizes, each of them opened twice), the table, a snapshot, connections to peers,
/// and room for more segments.
const FILES_KEPT: usize = 256;
/// However few files there may be, some clients are let in.
const MIN_CONNECTIONS: usize = 16;

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(mut config: Config) -> anyhow::Result<()> {
    fit_connections(&mut config);
    let world = World::real(&config.data_dir)
        .map_err(|error| anyhow::anyhow!("DATA_DIR {}: {error}", config.data_dir.display()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_in(config, world, stop).await
}

/// Connections are open files, too. A node that has no file left cannot begin its next log
/// segment and must stop, so clients get no more than the process can spare.
fn fit_connections(config: &mut Config) {
    let limit = open_files::raise_limit();
    let spare = limit.saturating_sub(FILES_KEPT + server::RESERVED_CONNECTIONS).max(MIN_CONNECTIONS);
    if spare < config.max_connections {
        tracing::warn!(
            "MAX_CONNECTIONS is {spare} instead of {}: this process may open only {limit} files; raise that limit (ulimit -Hn, LimitNOFILE) or lower the setting",
            config.max_connections
        );
        config.max_connections = spare;
    }
}

/// Runs until `stop` is ready, then drains; an error says why the node could not go on.
pub async fn run_in(config: Config, world: World, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut stop = pin!(stop);
    loop {
        let listener = bind(&config, &world).await?;
        let config = Config { port: listener.local_addr()?.port(), ..config.clone() };
        let node = Node::open(config, world.clone())?;
        introduce(node.config());
        match run_once(&node, listener, stop.as_mut()).await? {
            End::Stopped => return Ok(()),
            End::StartAfresh => tracing::info!("Starting afresh"),
        }
    }
}

/// Everything that is spoken on the port.
struct Front(Doors);

impl Front {
    fn of(node: &Node) -> Self {
        let mut doors = Doors::new(node.clone());
        doors.router = doors.router.route_service(PEER_ROUTE, peer_service::service(node));
        Self(doors)
    }
}

impl Application for Front {
    fn answer<B: RequestBody>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Response<ReplyBody>> + Send + 'static + use<B> {
        let Doors { router, keys, kv } = &self.0;
        if http::Api::is_for_a_key(&request) {
            let reply = keys.clone().dispatch(request);
            Either::Left(Either::Left(reply.map(|reply| reply.map(ReplyBody::from))))
        } else if etcd::Direct::takes(&request) {
            Either::Left(Either::Right(kv.clone().dispatch(request)))
        } else {
            Either::Right(router.answer(request))
        }
    }
}

enum End {
    Stopped,
    StartAfresh,
}

async fn bind(config: &Config, world: &World) -> anyhow::Result<Box<dyn Listener>> {
    world.net.bind(&config.listen, config.port).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use by another process: stop it, or set PORT to another one",
            config.port
        ),
        _ => anyhow::anyhow!(
            "cannot listen on {}:{}: {error}; check LISTEN and PORT",
            config.listen,
            config.port
        ),
    })
}

/// The chapter's first lines.
fn introduce(config: &Config) {
    tracing::info!("Store Node listening on port {}", config.port);
    let peers = if config.peers.is_empty() { "none".to_owned() } else { config.peers.join(", ") };
    tracing::info!("Peers: {peers}");
    tracing::info!("Data: {}", config.data_dir.display());
}

async fn run_once(
    node: &Node,
    listener: Box<dyn Listener>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<End> {
    let app = Front::of(node);
    let (close, closed) = oneshot::channel::<()>();
    let until_closed = async {
        // Dropped or sent: both mean that it is over.
        let _ = closed.await;
    };
    let limits = Limits::from(node.config());
    let mut serving = pin!(server::serve(listener, app, limits, node.metrics().clone(), until_closed));
    let mut running = pin!(node.run());
    tokio::select! { biased;
        exit = &mut running => return ended(exit),
        served = &mut serving => return Err(served.err().map_or_else(|| anyhow::anyhow!("the server ended"), Into::into)),
        () = stop => tracing::info!("Stopping: draining requests"),
    }
    let draining = async {
        node.drain().await;
        drop(close);
        serving.await
    };
    tokio::select! { biased;
        exit = &mut running => return ended(exit),
        drained = draining => drained?,
    }
    node.stop().await;
    tracing::info!("Stopped");
    Ok(End::Stopped)
}

fn ended(exit: Exit) -> anyhow::Result<End> {
    match exit {
        Exit::StartAfresh => Ok(End::StartAfresh),
        Exit::Failed(why) => Err(anyhow::anyhow!(why)),
    }
}
