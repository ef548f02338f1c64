//! etcd over gRPC, its native protocol.
//!
//! Clients share HTTP/2 connections: few of them let requests travel together, many come
//! closer to many applications. Which is faster depends on the load, so the number is
//! the caller's choice.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};

use super::{Freshness, Route, Session, Target, node_of};

#[allow(missing_docs, clippy::all)]
pub mod proto {
    tonic::include_proto!("etcdserverpb");
}

use proto::kv_client::KvClient;
use proto::maintenance_client::MaintenanceClient;
use proto::{PutRequest, RangeRequest, StatusRequest};

/// The nodes of one etcd cluster.
pub struct EtcdTarget {
    endpoints: Vec<Endpoint>,
    /// Connections that all clients share; one each when `None`.
    connections: Option<usize>,
}

impl EtcdTarget {
    /// From `http://host:port`, one a node.
    pub fn new<S: AsRef<str>>(urls: &[S], connections: Option<usize>) -> Result<Self> {
        ensure!(!urls.is_empty(), "no endpoints");
        let parse = |url: &S| {
            let url = url.as_ref().trim();
            Endpoint::from_shared(url.to_owned()).with_context(|| format!("{url} is not a URL"))
        };
        Ok(Self { endpoints: urls.iter().map(parse).collect::<Result<_>>()?, connections })
    }

    async fn leads(&self, endpoint: &Endpoint) -> Result<bool> {
        let mut client = MaintenanceClient::new(endpoint.connect().await?);
        let status = client.status(StatusRequest {}).await?.into_inner();
        let own = status.header.map(|header| header.member_id);
        Ok(status.leader != 0 && own == Some(status.leader))
    }
}

impl Target for EtcdTarget {
    type Session = EtcdSession;

    fn nodes(&self) -> usize {
        self.endpoints.len()
    }

    async fn leader(&self) -> Result<usize> {
        for (node, endpoint) in self.endpoints.iter().enumerate() {
            // One that is down doesn't lead; the others tell.
            if self.leads(endpoint).await.unwrap_or(false) {
                return Ok(node);
            }
        }
        bail!("no member says that it leads")
    }

    async fn sessions(&self, route: Route, clients: usize) -> Result<Vec<EtcdSession>> {
        let leader = if matches!(route, Route::Leader) { self.leader().await? } else { 0 };
        let connections = self.connections.unwrap_or(clients).clamp(1, clients.max(1));
        let mut channels = Vec::with_capacity(connections);
        for connection in 0..connections {
            let node = node_of(route, connection, self.endpoints.len(), leader);
            channels.push(self.endpoints.get(node).context("no such node")?.connect().await?);
        }
        let session =
            |client: usize| EtcdSession { kv: KvClient::new(channels[client % connections].clone()) };
        Ok((0..clients).map(session).collect())
    }
}

pub struct EtcdSession {
    kv: KvClient<Channel>,
}

impl Session for EtcdSession {
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        let request = PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: value.clone() };
        self.kv.put(request).await?;
        Ok(())
    }

    async fn get(&mut self, key: &str, freshness: Freshness) -> Result<bool> {
        let serializable = freshness == Freshness::Local;
        let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), serializable };
        let reply = self.kv.range(request).await?.into_inner();
        Ok(!reply.kvs.is_empty())
    }

    async fn recover(&mut self) {
        // Channels reconnect by themselves, and any member passes writes on to the leader.
    }
}
