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

/// Everything that clients may ask for on a node's port.
pub fn router(node: Node) -> axum::Router {
    let admission = Admission::new(node.config().max_inflight_requests, node.metrics().clone());
    let admission = Arc::new(admission);
    http::router(node.clone(), admission.clone()).merge(etcd::router(node, admission))
}
