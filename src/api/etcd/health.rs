//! The gRPC health service: whether this member is ready to serve, as `/readyz` says.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as Service;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Answer, Api};

/// How often a watched member looks at itself.
const LOOK: Duration = Duration::from_millis(500);
/// The services that may be asked for; empty is the server as a whole.
const SERVICES: [&str; 8] = [
    "",
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "v3lockpb.Lock",
    "v3electionpb.Election",
];

pub struct Health(pub Api);

impl Health {
    fn serving(api: &Api) -> ServingStatus {
        let status = api.node.status();
        let ready = status.not_ready.is_none() && !status.draining;
        if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Service for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(Self::serving(&self.0))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let api = self.0.clone();
        let changes = async_stream::stream! {
            let mut told = None;
            loop {
                let now = if known { Self::serving(&api) } else { ServingStatus::ServiceUnknown };
                if told != Some(now) {
                    told = Some(now);
                    yield Ok(response(now));
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        Ok(Response::new(Box::pin(changes)))
    }
}
