//! etcd's services, for its clients: the same names, texts and meanings, on the same store.
//!
//! A unary call goes through [`Api::unary`]: it is admitted, timed, and its error mapped;
//! in between a handler checks the request as etcd does, makes one call on the node, and
//! fills the reply with a [`header`]. Any member answers: writes and linearizable reads
//! are passed on to the leader, and wait for one while there is none, for as long as a
//! request may take. All refusals are a [`Refused`], which has etcd's texts and codes.
//!
//! Not here: what a request does (`storage/mvcc`), when (`node`). What differs from etcd
//! and why is in `docs/etcd-compatibility.md`.

mod check;
mod cluster;
mod convert;
mod error;
mod gateway;
mod header;
mod health;
mod kv;
mod maintenance;
mod reflection;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::HealthServer;

use super::admission::Admission;
use crate::metrics::RequestLabels;
use crate::node::{Node, WriteRequest};
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::log::{Command, command::Op};
use crate::storage::mvcc::Reply;
use crate::types::{Ack, Consistency};

pub use error::Refused;
pub use maintenance::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

/// The largest write, in bytes, as etcd counts: the encoded request. Larger ones are
/// refused; it must fit a log entry beside others.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;
/// What a message may have beyond that before it is not even read.
const REQUEST_OVERHEAD_BYTES: usize = 512 << 10;
/// Metadata by which a client asks to be refused at once by a member that knows no leader.
const REQUIRE_LEADER: &str = "hasleader";

type Answer<T> = Result<Response<T>, Status>;
type Result<T, E = Refused> = std::result::Result<T, E>;

/// What all services share.
#[derive(Clone)]
struct Api {
    node: Node,
    admission: Arc<Admission>,
}

/// The services, each under its own path, and the JSON gateway to them; there is no fallback.
pub fn router(node: Node, admission: Arc<Admission>) -> axum::Router {
    let services = services(Api { node, admission });
    services.clone().merge(gateway::router(services))
}

fn services(api: Api) -> axum::Router {
    let kv = KvServer::new(kv::Kv(api.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES + REQUEST_OVERHEAD_BYTES)
        .max_encoding_message_size(usize::MAX);
    axum::Router::new()
        .route_service("/etcdserverpb.KV/{*rpc}", kv)
        .route_service("/etcdserverpb.Cluster/{*rpc}", ClusterServer::new(cluster::Cluster(api.clone())))
        .route_service(
            "/etcdserverpb.Maintenance/{*rpc}",
            MaintenanceServer::new(maintenance::Maintenance(api.clone())),
        )
        .route_service("/grpc.health.v1.Health/{*rpc}", HealthServer::new(health::Health(api)))
        .merge(reflection::router())
}

impl Api {
    /// Every call with one request and one reply: `name` is its label in the metrics.
    async fn unary<Q, T, F: Future<Output = Result<T>>>(
        &self,
        name: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Q) -> F,
    ) -> Answer<T> {
        let began = Instant::now();
        let answer = match self.enter(&request) {
            Ok(_permit) => work(request.into_inner()).await,
            Err(refused) => Err(refused),
        };
        let answer = answer.map(Response::new).map_err(Status::from);
        let status = answer.as_ref().map_or_else(error::status_class, |_| "2xx");
        let labels = RequestLabels { method: "grpc", route: name, status };
        let seconds = began.elapsed().as_secs_f64();
        self.node.metrics().request_seconds.get_or_create(&labels).observe(seconds);
        answer
    }

    fn enter<Q>(&self, request: &Request<Q>) -> Result<super::admission::Permit<'_>> {
        self.require_leader(request)?;
        Ok(self.admission.enter()?)
    }

    /// Refuses a call that wants a member with a leader, when this one knows none.
    fn require_leader<Q>(&self, request: &Request<Q>) -> Result<()> {
        let asked = request.metadata().get(REQUIRE_LEADER).is_some_and(|value| value == "true");
        if asked && self.node.standing().leader.is_none() { Err(Refused::NoLeader) } else { Ok(()) }
    }

    fn timeout(&self) -> Duration {
        self.node.config().request_timeout
    }

    /// Replicates a command through whichever member leads; a refusal by the state is an
    /// error. The reply comes with the term in which it was committed.
    async fn write(&self, op: Op) -> Result<(Reply, u64)> {
        let command = Command { op: Some(op), precondition: None };
        let request = WriteRequest { command, ack: Ack::Quorum, timeout: self.timeout(), forward: true };
        let written = self.node.write_once_led(request).await?;
        match written.reply {
            Some(Reply::Refused { why }) => Err(why.into()),
            Some(reply) => Ok((reply, written.at.term)),
            None => Err(error::mixed_up()),
        }
    }

    /// Returns when this member's store may be read.
    async fn readable(&self, serializable: bool) -> Result<()> {
        let consistency = if serializable { Consistency::Local } else { Consistency::Linearizable };
        Ok(self.node.read_once_led(consistency, self.timeout()).await?)
    }
}
