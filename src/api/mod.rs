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
#[cfg(test)]
mod testing;

use std::sync::Arc;

use crate::node::Node;
use admission::Admission;

/// Everything that clients may ask for on a node's port.
pub struct Doors {
    /// All of it.
    pub router: axum::Router,
    /// What is asked most, without a router in between: requests for a key over HTTP
    /// ([`http::Api::is_for_a_key`]) and calls of etcd's KV ([`etcd::Direct::takes`]).
    pub keys: http::Api,
    pub kv: etcd::Direct,
}

impl Doors {
    pub fn new(node: Node) -> Self {
        let admission = Admission::new(node.config().max_inflight_requests, node.metrics().clone());
        let admission = Arc::new(admission);
        let keys = http::Api::new(node.clone(), admission.clone());
        let (kv, services) = etcd::doors(node, admission);
        Self { router: keys.router().merge(services), keys, kv }
    }
}
