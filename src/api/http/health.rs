//! `/livez`: should this process be restarted? `/readyz`: should it get traffic?
//! Words for people by default, JSON to those who accept it. `/health` and `/version` are
//! etcd's, for those who ask its questions.

use axum::body::Body;
use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;

use super::error::ApiResult;
use super::reply;
use crate::api::etcd::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::node::{Node, Status};

pub fn live(node: &Node) -> ApiResult {
    Ok(match node.alive() {
        Ok(()) => reply::text(StatusCode::OK, "ok\n".into()),
        Err(error) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    })
}

pub fn ready(node: &Node, parts: &Parts) -> ApiResult {
    Ok(ready_reply(&node.status(), reply::accepts(&parts.headers, "application/json")))
}

#[derive(Serialize)]
struct ReadyReply<'a> {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn ready_reply(status: &Status, json: bool) -> Response<Body> {
    let stopping = status.draining.then_some("this node is stopping");
    let reason = stopping.or(status.not_ready.as_deref());
    let code = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match reason {
        _ if json => reply::json(code, &ReadyReply { ready: reason.is_none(), reason }),
        None => reply::text(code, "ready\n".into()),
        Some(why) => reply::text(code, format!("not ready: {why}\n")),
    }
}

/// As etcd spells it.
#[derive(Serialize)]
struct HealthReply<'a> {
    health: &'static str,
    reason: &'a str,
}

pub fn health(node: &Node) -> ApiResult {
    Ok(health_reply(&node.status()))
}

fn health_reply(status: &Status) -> Response<Body> {
    let reason = match status.not_ready.as_deref() {
        _ if status.in_alarm => "ALARM CORRUPT",
        Some(_) if status.leader.is_none() => "RAFT NO LEADER",
        Some(why) => why,
        None => "",
    };
    let (code, health) = match reason {
        "" => (StatusCode::OK, "true"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    reply::json(code, &HealthReply { health, reason })
}

#[derive(Serialize)]
struct VersionReply {
    etcdserver: &'static str,
    etcdcluster: &'static str,
    bellwether: &'static str,
}

/// Whose interface this is, for clients that look before they call; and who we are.
pub fn version() -> ApiResult {
    let (etcdserver, bellwether) = (ETCD_VERSION, env!("CARGO_PKG_VERSION"));
    Ok(reply::json(
        StatusCode::OK,
        &VersionReply { etcdserver, etcdcluster: ETCD_CLUSTER_VERSION, bellwether },
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::http::reply::body_of;
    use crate::api::http::status::tests::example;

    #[tokio::test]
    async fn says_why_not() {
        let ready = ready_reply(&example(), true);
        assert_eq!(ready.status(), StatusCode::OK);
        assert_eq!(body_of(ready).await, json!({"ready": true}));
        let waiting = Status { not_ready: Some("waiting for node-2".into()), ..example() };
        let reply = ready_reply(&waiting, true);
        assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body_of(reply).await, json!({"ready": false, "reason": "waiting for node-2"}));
        assert_eq!(health_reply(&example()).status(), StatusCode::OK);
        assert_eq!(body_of(health_reply(&waiting)).await["health"], json!("false"));
        let stopping = Status { draining: true, ..example() };
        assert_eq!(ready_reply(&stopping, false).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
