//! The names of etcd's messages that this module speaks, in one place.

pub use crate::proto::etcdserverpb::compare::{CompareResult, TargetUnion};
pub use crate::proto::etcdserverpb::kv_client::KvClient;
pub use crate::proto::etcdserverpb::lease_client::LeaseClient;
pub use crate::proto::etcdserverpb::range_request::SortTarget;
pub use crate::proto::etcdserverpb::request_op::Request as RequestKind;
pub use crate::proto::etcdserverpb::response_op::Response as ResponseKind;
pub use crate::proto::etcdserverpb::watch_client::WatchClient;
pub use crate::proto::etcdserverpb::watch_create_request::FilterType;
pub use crate::proto::etcdserverpb::watch_request::RequestUnion as WatchUnion;
pub use crate::proto::etcdserverpb::*;
pub use crate::proto::mvccpb::{Event, KeyValue};
