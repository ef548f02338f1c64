//! The JSON gateway: etcd's services for those who have nothing but curl.
//!
//! A `POST` to a path of [`ROUTES`] becomes a gRPC call on the same services: the JSON
//! becomes the call's message by the names in the descriptors ([`json`]), the call goes
//! through the service's own door, and each message of the answer becomes JSON again
//! ([`call`]). Bytes are base64, 64-bit numbers are strings, and what is not set is left
//! out. A stream answers with one JSON object a line, each under `result`.

mod call;
mod json;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use http::{Request, Response, StatusCode};

use super::MAX_MESSAGE_BYTES;
use call::Failure;
use json::Method;

/// Base64 makes four bytes of three.
const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES / 3 * 4;

/// etcd's paths, and what each calls.
const ROUTES: &[(&str, &str)] = &[
    ("/v3/kv/range", "etcdserverpb.KV/Range"),
    ("/v3/kv/put", "etcdserverpb.KV/Put"),
    ("/v3/kv/deleterange", "etcdserverpb.KV/DeleteRange"),
    ("/v3/kv/txn", "etcdserverpb.KV/Txn"),
    ("/v3/kv/compaction", "etcdserverpb.KV/Compact"),
    ("/v3/watch", "etcdserverpb.Watch/Watch"),
    ("/v3/lease/grant", "etcdserverpb.Lease/LeaseGrant"),
    ("/v3/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("/v3/kv/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("/v3/lease/keepalive", "etcdserverpb.Lease/LeaseKeepAlive"),
    ("/v3/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("/v3/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("/v3/kv/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("/v3/cluster/member/list", "etcdserverpb.Cluster/MemberList"),
    ("/v3/maintenance/alarm", "etcdserverpb.Maintenance/Alarm"),
    ("/v3/maintenance/status", "etcdserverpb.Maintenance/Status"),
    ("/v3/maintenance/hash", "etcdserverpb.Maintenance/HashKV"),
    ("/v3/lock/lock", "v3lockpb.Lock/Lock"),
    ("/v3/lock/unlock", "v3lockpb.Lock/Unlock"),
    ("/v3/election/campaign", "v3electionpb.Election/Campaign"),
    ("/v3/election/proclaim", "v3electionpb.Election/Proclaim"),
    ("/v3/election/leader", "v3electionpb.Election/Leader"),
    ("/v3/election/observe", "v3electionpb.Election/Observe"),
    ("/v3/election/resign", "v3electionpb.Election/Resign"),
];

#[derive(Clone)]
struct Door {
    services: axum::Router,
    method: Arc<Method>,
}

/// One route for each method that the descriptors know.
pub fn router(services: axum::Router) -> axum::Router {
    let known = ROUTES.iter().filter_map(|(path, call)| Some((path, Method::find(call)?)));
    known.fold(axum::Router::new(), |router, (path, method)| {
        let door = Door { services: services.clone(), method: Arc::new(method) };
        router.route(path, post(serve).with_state(door))
    })
}

async fn serve(State(door): State<Door>, request: Request<Body>) -> Response<Body> {
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await;
    let answer = match body {
        Ok(body) => call::call(door.services, door.method, &body).await,
        Err(_) => Err(Failure::too_large()),
    };
    answer.unwrap_or_else(|failure| failure.into_response(false))
}

/// A reply whose body is JSON, or lines of it.
fn reply(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_calls_a_method_that_exists() {
        for (path, call) in ROUTES {
            assert!(Method::find(call).is_some(), "{path} calls {call}");
        }
    }
}
