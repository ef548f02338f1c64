//! etcd's services, for its clients: the same names, texts and meanings, on the same store.
//!
//! A stream of [`watch`]es is served by the node's hub; the rest are unary.
//!
//! A unary call goes through [`Api::answer`], from tonic's services or, when it is one of those
//! that are made all the time, from [`Direct`]: it is admitted, timed, and its error mapped;
//! in between a handler checks the request as etcd does, makes one call on the node, and
//! fills the reply with a [`header`]. Any member answers: writes and linearizable reads
//! are passed on to the leader, and wait for one while there is none, for as long as a
//! request may take. All refusals are a [`Refused`], which has etcd's texts and codes.
//!
//! Not here: what a request does (`storage/mvcc`), when (`node`). What differs from etcd
//! and why is in `docs/etcd-compatibility.md`.

mod check;
mod cluster;
mod contend;
mod convert;
mod direct;
mod election;
mod error;
mod gateway;
mod header;
mod health;
mod kv;
mod lease;
mod lock;
mod long_calls;
mod maintenance;
mod reflection;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::HealthServer;

use super::admission::Admission;
use crate::metrics::RequestLabels;
use crate::node::{Node, WriteRequest};
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::log::{Command, command::Op};
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;
use crate::storage::mvcc::Reply;
use crate::types::{Ack, Consistency};

pub use direct::Direct;
pub use error::Refused;
use long_calls::LongCalls;
pub use maintenance::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

/// The largest write, in bytes, as etcd counts: the encoded request. Larger ones are
/// refused; it must fit a log entry beside others.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;
/// The largest message that is read at all.
const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + (512 << 10);
/// Metadata by which a client asks to be refused at once by a member that knows no leader.
const REQUIRE_LEADER: HeaderName = HeaderName::from_static("hasleader");

type Answer<T> = Result<Response<T>, Status>;
type Result<T, E = Refused> = std::result::Result<T, E>;

/// What all services share.
#[derive(Clone)]
struct Api {
    node: Node,
    admission: Arc<Admission>,
    long_calls: LongCalls,
}

/// The services, each under its own path, and the JSON gateway to them, without a fallback;
/// and the way past that router to what is called most.
pub fn doors(node: Node, admission: Arc<Admission>) -> (Direct, axum::Router) {
    let api = Api { node, admission, long_calls: LongCalls::default() };
    let services = services(api.clone());
    let direct = Direct::new(api, services.clone());
    (direct, services.clone().merge(gateway::router(services)))
}

fn services(api: Api) -> axum::Router {
    let kv = KvServer::new(kv::Kv(api.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX);
    let lease = LeaseServer::new(lease::Lease(api.clone())).max_encoding_message_size(usize::MAX);
    let lock = LockServer::new(lock::Lock(api.clone()));
    let election = ElectionServer::new(election::Election(api.clone())).max_encoding_message_size(usize::MAX);
    let cluster = ClusterServer::new(cluster::Cluster(api.clone()));
    let maintenance = MaintenanceServer::new(maintenance::Maintenance(api.clone()));
    axum::Router::new()
        .route_service("/etcdserverpb.KV/{*rpc}", kv)
        .route_service(watch::PATH, watch::service(api.clone(), MAX_MESSAGE_BYTES))
        .route_service("/etcdserverpb.Lease/{*rpc}", lease)
        .route_service("/v3lockpb.Lock/{*rpc}", lock)
        .route_service("/v3electionpb.Election/{*rpc}", election)
        .route_service("/etcdserverpb.Cluster/{*rpc}", cluster)
        .route_service("/etcdserverpb.Maintenance/{*rpc}", maintenance)
        .route_service("/grpc.health.v1.Health/{*rpc}", HealthServer::new(health::Health(api)))
        .merge(reflection::router())
        .layer(axum::middleware::map_response(async |response| error::as_go_says(response)))
}

impl Api {
    /// Every call with one request and one reply: `name` is its label in the metrics.
    async fn unary<Q, T, F: Future<Output = Result<T>>>(
        &self,
        name: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Q) -> F,
    ) -> Answer<T> {
        let (metadata, _, message) = request.into_parts();
        self.answer(name, metadata.as_ref(), message, work).await.map(Response::new)
    }

    /// The same, whatever carries the message.
    async fn answer<Q, T, F: Future<Output = Result<T>>>(
        &self,
        name: &'static str,
        headers: &HeaderMap,
        message: Q,
        work: impl FnOnce(Q) -> F,
    ) -> Result<T, Status> {
        let began = Instant::now();
        let answer = match self.enter(headers) {
            Ok(_permit) => work(message).await,
            Err(refused) => Err(refused),
        };
        let answer = answer.map_err(Status::from);
        self.count(name, began, &answer);
        answer
    }

    fn count<T>(&self, name: &'static str, began: Instant, answer: &Result<T, Status>) {
        let status = answer.as_ref().map_or_else(error::status_class, |_| "2xx");
        let labels = RequestLabels { method: "grpc", route: name, status };
        let seconds = began.elapsed().as_secs_f64();
        self.node.metrics().request_seconds.get_or_create(&labels).observe(seconds);
    }

    fn enter(&self, headers: &HeaderMap) -> Result<super::admission::Permit<'_>> {
        self.require_leader(headers)?;
        Ok(self.admission.enter()?)
    }

    /// Refuses a call that wants a member with a leader, when this one knows none.
    fn require_leader(&self, headers: &HeaderMap) -> Result<()> {
        if requires_leader(headers) && self.node.standing().leader.is_none() {
            Err(Refused::NoLeader)
        } else {
            Ok(())
        }
    }

    fn timeout(&self) -> Duration {
        self.node.config().request_timeout
    }

    /// Replicates a command through whichever member leads; a refusal by the state is an
    /// error. The reply comes with the term in which it was committed.
    async fn write(&self, op: Op) -> Result<(Reply, u64)> {
        self.write_within(self.timeout(), op).await
    }

    async fn write_within(&self, timeout: Duration, op: Op) -> Result<(Reply, u64)> {
        let command = Command { op: Some(op), precondition: None };
        let request = WriteRequest { command, ack: Ack::Quorum, timeout, forward: true };
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

fn requires_leader(headers: &HeaderMap) -> bool {
    headers.get(&REQUIRE_LEADER).is_some_and(|value| value == "true")
}
