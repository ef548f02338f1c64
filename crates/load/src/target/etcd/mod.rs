//! etcd's protocol, gRPC, as etcd and Bellwether both speak it.
//!
//! Clients share HTTP/2 connections: few of them let requests travel together, many come
//! closer to many applications. Which is faster depends on the load, so the number is
//! the caller's choice.

pub mod grpc;

use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use tokio::sync::Mutex;
use tokio::task::LocalSet;

use super::group::spread;
use super::{Address, Driver, Freshness, Group, Route, Session, Swap, Target, node_for, says_yes};
use grpc::{Channel, Replies, Requests};

#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

use proto::*;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Longer than any pause between two renewals; what is left behind goes by itself.
const LEASE_SECONDS: i64 = 60;
/// As a range's end: every key from its start on.
const NO_END: Bytes = Bytes::from_static(b"\0");

/// The nodes of one cluster.
pub struct EtcdTarget {
    nodes: Rc<[Address]>,
    /// Connections that all clients share; one each when `None`.
    connections: Option<usize>,
}

impl EtcdTarget {
    /// From `http://host:port`, one a node.
    pub fn new<S: AsRef<str>>(urls: &[S], connections: Option<usize>) -> Result<Self> {
        Ok(Self { nodes: Address::parse_all(urls)?.into(), connections })
    }

    async fn link(&self, node: usize, driver: Driver) -> Result<Rc<Link>> {
        Link::open(self.nodes.clone(), node, driver).await
    }

    async fn leads(&self, node: &Address) -> Result<bool> {
        let status = status(node).await?;
        let own = status.header.map(|header| header.member_id);
        Ok(status.leader != 0 && own == Some(status.leader))
    }

    /// The newest revision that the leader has applied.
    pub async fn revision(&self) -> Result<u64> {
        let leader = &self.nodes[self.leader().await?];
        let header = status(leader).await?.header.context("a reply without a header")?;
        Ok(header.revision.try_into()?)
    }

    /// Watches all keys that begin with `prefix`, from now on.
    pub async fn watch(&self, prefix: &str, route: Route, watchers: usize) -> Result<Vec<Watcher>> {
        let node = node_for(self, route).await?;
        let mut watching = Vec::with_capacity(watchers);
        for (connection, watchers) in spread(watchers, self.connections.unwrap_or(watchers)) {
            let channel = Channel::open(&self.nodes[node(connection)], Driver::Runtime).await?;
            for _ in 0..watchers {
                watching.push(Watcher::open(channel.clone(), prefix).await?);
            }
        }
        Ok(watching)
    }
}

impl Target for EtcdTarget {
    type Session = EtcdSession;

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    async fn leader(&self) -> Result<usize> {
        for (node, address) in self.nodes.iter().enumerate() {
            if says_yes(self.leads(address)).await {
                return Ok(node);
            }
        }
        bail!("no member says that it leads; see whether all endpoints are named and a majority runs")
    }

    async fn session(&self, route: Route) -> Result<EtcdSession> {
        let node = node_for(self, route).await?;
        Ok(EtcdSession::new(self.link(node(0), Driver::Runtime).await?).await)
    }

    async fn sessions(&self, route: Route, clients: usize) -> Result<Vec<Group<EtcdSession>>> {
        let node = node_for(self, route).await?;
        let spread = spread(clients, self.connections.unwrap_or(clients));
        let mut groups = Vec::with_capacity(spread.len());
        for (connection, clients) in spread {
            let tasks = LocalSet::new();
            let link = tasks.run_until(self.link(node(connection), Driver::Group)).await?;
            let mut sessions = Vec::new();
            for _ in 0..clients {
                sessions.push(EtcdSession::new(link.clone()).await);
            }
            groups.push(Group { tasks, sessions });
        }
        Ok(groups)
    }
}

async fn status(node: &Address) -> Result<StatusResponse> {
    Channel::open(node, Driver::Runtime).await?.call(STATUS, &StatusRequest {}).await
}

/// A connection that several sessions share, made anew by the first to miss it.
struct Link {
    nodes: Rc<[Address]>,
    driver: Driver,
    now: Mutex<Now>,
}

/// The connection that a link has now.
struct Now {
    node: usize,
    /// One more than the link's last one had.
    number: usize,
    channel: Channel,
}

impl Link {
    async fn open(nodes: Rc<[Address]>, node: usize, driver: Driver) -> Result<Rc<Self>> {
        let channel = Channel::open(nodes.get(node).context("no such node")?, driver).await?;
        Ok(Rc::new(Self { nodes, driver, now: Mutex::new(Now { node, number: 0, channel }) }))
    }

    /// A channel that may be used now. After a loss the next node is tried: any of them
    /// passes writes on to the leader. `hung` is a connection that a request got no answer on.
    async fn channel(&self, hung: Option<usize>) -> (usize, Channel) {
        let mut now = self.now.lock().await;
        if hung == Some(now.number) || !now.channel.lives().await {
            now.node = (now.node + 1) % self.nodes.len();
            // If that fails, the next request fails, too, and comes here again.
            if let Ok(channel) = Channel::open(&self.nodes[now.node], self.driver).await {
                now.number += 1;
                now.channel = channel;
            }
        }
        (now.number, now.channel.clone())
    }
}

pub struct EtcdSession {
    link: Rc<Link>,
    /// Which of the link's connections it is.
    number: usize,
    channel: Channel,
    /// The connection gave no answer: others that share it need not wait for that, too.
    hung: bool,
    /// Granted with the first renewal.
    lease: Option<Lease>,
}

impl EtcdSession {
    async fn new(link: Rc<Link>) -> Self {
        let (number, channel) = link.channel(None).await;
        Self { link, number, channel, hung: false, lease: None }
    }

    /// Another client on the same connection.
    pub fn another(&self) -> Self {
        let (number, channel) = (self.number, self.channel.clone());
        Self { link: self.link.clone(), number, channel, hung: false, lease: None }
    }
}

impl Session for EtcdSession {
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        let _: PutResponse = self.channel.call(PUT, &put(key, value)).await?;
        Ok(())
    }

    async fn get(&mut self, key: &str, freshness: Freshness) -> Result<bool> {
        let request = RangeRequest { serializable: freshness == Freshness::Local, ..get(key) };
        let reply: RangeResponse = self.channel.call(RANGE, &request).await?;
        Ok(!reply.kvs.is_empty())
    }

    async fn swap(&mut self, key: &str, value: &Bytes, seen: u64) -> Result<Swap> {
        let request = TxnRequest {
            compare: vec![last_modified_at(key, seen)?],
            success: vec![op(request_op::Request::RequestPut(put(key, value)))],
            failure: vec![op(request_op::Request::RequestRange(get(key)))],
        };
        let reply: TxnResponse = self.channel.call(TXN, &request).await?;
        if reply.succeeded {
            let revision = reply.header.context("a reply without a header")?.revision;
            return Ok(Swap::Done(revision.try_into()?));
        }
        Ok(Swap::Lost(found_revision(reply)?))
    }

    async fn range(&mut self, start: &str, limit: u32, freshness: Freshness) -> Result<usize> {
        let serializable = freshness == Freshness::Local;
        let request = RangeRequest { range_end: NO_END, limit: limit.into(), serializable, ..get(start) };
        let reply: RangeResponse = self.channel.call(RANGE, &request).await?;
        Ok(reply.kvs.len())
    }

    async fn keep_alive(&mut self) -> Result<()> {
        match &mut self.lease {
            Some(lease) => lease.renew()?,
            None => self.lease = Some(Lease::grant(&mut self.channel).await?),
        }
        match &mut self.lease {
            Some(lease) => lease.renewed().await,
            None => bail!("a lease without a stream"),
        }
    }

    fn give_up(&mut self) {
        self.hung = true;
    }

    async fn recover(&mut self) {
        self.lease = None;
        let hung = self.hung.then_some(self.number);
        (self.number, self.channel) = self.link.channel(hung).await;
        self.hung = false;
    }
}

fn put(key: &str, value: &Bytes) -> PutRequest {
    PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: value.clone() }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() }
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn last_modified_at(key: &str, seen: u64) -> Result<Compare> {
    Ok(Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(compare::TargetUnion::ModRevision(seen.try_into()?)),
    })
}

/// What the other branch of a lost compare-and-swap read.
fn found_revision(reply: TxnResponse) -> Result<u64> {
    let read = reply.responses.into_iter().next().and_then(|op| op.response);
    let Some(response_op::Response::ResponseRange(read)) = read else { bail!("a read without a reply") };
    let Some(row) = read.kvs.into_iter().next() else { return Ok(0) };
    Ok(KeyValue::decode(row)?.mod_revision.try_into()?)
}

/// A lease and the stream that renews it.
struct Lease {
    id: i64,
    requests: Requests,
    replies: Replies,
}

impl Lease {
    /// Granted, and the first renewal sent.
    async fn grant(channel: &mut Channel) -> Result<Self> {
        let request = LeaseGrantRequest { ttl: LEASE_SECONDS };
        let granted: LeaseGrantResponse = channel.call(GRANT, &request).await?;
        ensure!(granted.error.is_empty(), "a lease was refused: {}", granted.error);
        let id = granted.id;
        let (requests, replies) = channel.stream(KEEP_ALIVE, &LeaseKeepAliveRequest { id }).await?;
        Ok(Self { id, requests, replies })
    }

    fn renew(&mut self) -> Result<()> {
        self.requests.send(&LeaseKeepAliveRequest { id: self.id })
    }

    async fn renewed(&mut self) -> Result<()> {
        let reply: LeaseKeepAliveResponse =
            self.replies.next().await?.context("the stream of renewals ended")?;
        ensure!(reply.id == self.id && reply.ttl > 0, "the lease is gone");
        Ok(())
    }
}

/// One watch on a stream of its own.
pub struct Watcher {
    replies: Replies,
    /// Kept: a stream whose requests end may end, too.
    _requests: Requests,
}

impl Watcher {
    async fn open(mut channel: Channel, prefix: &str) -> Result<Self> {
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        let create = WatchCreateRequest { key, range_end: after(prefix)? };
        let create = watch_request::RequestUnion::CreateRequest(create);
        let request = WatchRequest { request_union: Some(create) };
        let (requests, mut replies) = channel.stream(WATCH, &request).await?;
        let created: WatchResponse = replies.next().await?.context("the watch ended at once")?;
        ensure!(created.created && !created.canceled, "the watch was refused");
        Ok(Self { replies, _requests: requests })
    }

    /// The next events that come together, each still encoded.
    pub async fn events(&mut self) -> Result<Vec<Bytes>> {
        let reply: WatchResponse = self.replies.next().await?.context("the watch ended")?;
        ensure!(!reply.canceled, "the watch was canceled");
        Ok(reply.events)
    }
}

/// The value that an event tells.
pub fn told_value(event: Bytes) -> Result<Bytes> {
    Ok(Event::decode(event)?.kv.unwrap_or_default().value)
}

/// The first key behind all that begin with `prefix`.
fn after(prefix: &str) -> Result<Bytes> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().context("a prefix of nothing")? += 1;
    Ok(end.into())
}
