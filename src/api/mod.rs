//! What clients speak. Each protocol parses, makes one call on the node, and maps the
//! reply; none of them decides anything.
//!
//! - [`http`]: the chapter's routes, ours under `/v1`, health and metrics.
//! - [`etcd`]: etcd's services, for its clients.
//!
//! [`admission`] counts the requests of all together.

mod admission;
pub mod etcd;
pub mod http;

use std::sync::Arc;

use crate::node::Node;
use admission::Admission;

/// Everything that clients may ask for on a node's port, as a router; and the HTTP API, which
/// is in it, once more by itself, for whoever asks it without a router ([`http::Api`]).
pub fn doors(node: Node) -> (http::Api, axum::Router) {
    let admission = Admission::new(node.config().max_inflight_requests, node.metrics().clone());
    let admission = Arc::new(admission);
    let api = http::Api::new(node.clone(), admission.clone());
    let router = api.router().merge(etcd::router(node, admission));
    (api, router)
}
