//! etcd's protocol, as its clients speak it to one node.

use std::time::Duration;

use bellwether::proto::etcdserverpb::kv_client::KvClient;
use bellwether::proto::etcdserverpb::lease_client::LeaseClient;
use bellwether::proto::etcdserverpb::*;
use bellwether::proto::mvccpb::KeyValue;
use bellwether::proto::v3electionpb::election_client::ElectionClient;
use bellwether::proto::v3lockpb::LockRequest;
use bellwether::proto::v3lockpb::lock_client::LockClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{Cluster, PATIENCE, eventually};

/// A connection to a node that may be paused: whatever takes longer has failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Etcd(pub(super) Channel);

impl Etcd {
    pub fn at(cluster: &Cluster, i: usize) -> Self {
        let endpoint = Endpoint::from_shared(cluster.url(i)).expect("a node's URL");
        Self(endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.0.clone())
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.0.clone())
    }

    pub fn lock(&self) -> LockClient<Channel> {
        LockClient::new(self.0.clone())
    }

    pub fn election(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.0.clone())
    }

    pub async fn put(&self, key: &str, value: &str, lease: i64) -> Result<PutResponse, Status> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = PutRequest { key, value, lease, ..PutRequest::default() };
        Ok(self.kv().put(request).await?.into_inner())
    }

    pub async fn get(&self, key: &str) -> Result<RangeResponse, Status> {
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        Ok(self.kv().range(request).await?.into_inner())
    }

    /// All keys with the prefix, at a revision (0: now), the oldest first.
    pub async fn by_age(&self, prefix: &str, revision: i64) -> Result<Vec<KeyValue>, Status> {
        let mut range_end = prefix.as_bytes().to_vec();
        *range_end.last_mut().expect("a prefix") += 1;
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: range_end.into(),
            revision,
            sort_order: range_request::SortOrder::Ascend.into(),
            sort_target: range_request::SortTarget::Create.into(),
            ..RangeRequest::default()
        };
        Ok(self.kv().range(request).await?.into_inner().kvs)
    }

    /// A put that happens only if `key` still is the one created at `created`.
    pub async fn put_if_created(
        &self,
        guard: (&[u8], i64),
        key: &str,
        value: &str,
    ) -> Result<TxnResponse, Status> {
        let (guard, created) = guard;
        let compare = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Create.into(),
            key: guard.to_vec().into(),
            target_union: Some(compare::TargetUnion::CreateRevision(created)),
            ..Compare::default()
        };
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let put = request_op::Request::RequestPut(PutRequest { key, value, ..PutRequest::default() });
        let success = vec![RequestOp { request: Some(put) }];
        let request = TxnRequest { compare: vec![compare], success, failure: vec![] };
        Ok(self.kv().txn(request).await?.into_inner())
    }

    pub async fn grant(&self, ttl: i64) -> Result<i64, Status> {
        Ok(self.lease().lease_grant(LeaseGrantRequest { ttl, id: 0 }).await?.into_inner().id)
    }

    pub async fn revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Status> {
        Ok(self.lease().lease_revoke(LeaseRevokeRequest { id }).await?.into_inner())
    }

    pub async fn time_to_live(&self, id: i64) -> Result<LeaseTimeToLiveResponse, Status> {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        Ok(self.lease().lease_time_to_live(request).await?.into_inner())
    }

    /// One keep-alive, on a stream of its own: the seconds that the lease has from now.
    pub async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = futures::stream::iter([LeaseKeepAliveRequest { id }]);
        let mut replies = self.lease().lease_keep_alive(requests).await?.into_inner();
        let reply = replies.message().await?.expect("a reply to each keep-alive");
        assert_eq!(reply.id, id);
        Ok(reply.ttl)
    }

    pub async fn acquire(&self, name: &str, lease: i64) -> Result<Vec<u8>, Status> {
        let request = LockRequest { name: name.to_owned().into(), lease };
        Ok(self.lock().lock(request).await?.into_inner().key.to_vec())
    }

    /// Waits until the key is gone, and returns the store's revision then.
    pub async fn wait_gone(&self, key: &str) -> i64 {
        eventually(PATIENCE, || async {
            let found = self.get(key).await.map_err(|status| status.to_string())?;
            match found.kvs.is_empty() {
                true => Ok(found.header.expect("a header").revision),
                false => Err(format!("{key} is still there")),
            }
        })
        .await
    }
}
