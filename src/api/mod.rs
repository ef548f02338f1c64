//! What clients speak. Each protocol parses, makes one call on the node, and maps the
//! reply; none of them decides anything.
//!
//! - [`http`]: the chapter's routes, ours under `/v1`, health and metrics.

pub mod http;
