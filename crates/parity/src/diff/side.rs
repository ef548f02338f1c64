//! One of the two clusters, as a client of all its nodes.
//!
//! A request goes out in this side's numbers and its reply comes back in symbols. Before
//! anything that a node answers from what it has applied, the node is made to catch up:
//! what is compared is the answer, not how far a follower lags.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::op::{Action, Op, Outcome, Refusal, Reply};
use super::proto::*;
use super::symbols::Symbols;
use super::watches::{Marks, WatchStream};

/// Past this a request is not answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every key.
const ALL: &[u8] = b"\0";
/// Puts before the first sequence, so that there is a past to be compacted.
const PAST: usize = 5;

#[derive(Clone)]
struct Node {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
}

pub struct Side {
    nodes: Vec<Node>,
    pub symbols: Symbols,
    watches: Option<WatchStream>,
}

impl Side {
    pub async fn connect(urls: &[String]) -> Result<Self> {
        let mut nodes = Vec::new();
        for url in urls {
            let channel = Endpoint::from_shared(url.clone())?.connect_lazy();
            nodes.push(Node {
                kv: KvClient::new(channel.clone()),
                lease: LeaseClient::new(channel.clone()),
                watch: WatchClient::new(channel),
            });
        }
        ensure!(!nodes.is_empty(), "a cluster has nodes");
        let mut side = Self { nodes, symbols: Symbols::default(), watches: None };
        for _ in 0..PAST {
            side.nodes[0].kv.put(put(b"past".as_slice())).await.context("the first puts")?;
        }
        Ok(side)
    }

    /// Nothing is left of the sequence before: no keys, no leases, no history, no watch.
    pub async fn begin(&mut self) -> Result<()> {
        self.watches = None;
        self.symbols = Symbols::default();
        self.catch_up(0).await?;
        self.revoke_all().await.context("revoking leases")?;
        let kv = &mut self.nodes[0].kv;
        let all = DeleteRangeRequest { key: ALL.into(), range_end: ALL.into(), prev_kv: false };
        let deleted = in_time(kv.delete_range(all)).await?;
        self.symbols.base = deleted.header.context("a reply without a header")?.revision;
        let compaction = CompactionRequest { revision: self.symbols.base, physical: false };
        match in_time(kv.compact(compaction)).await {
            // It was compacted there before, and nothing has changed since.
            Err(refusal) if refusal.code() != Code::OutOfRange => Err(refusal).context("compacting"),
            _ => Ok(()),
        }
    }

    async fn revoke_all(&mut self) -> Result<(), Status> {
        let lease = &mut self.nodes[0].lease;
        let all = in_time(lease.lease_leases(LeaseLeasesRequest {})).await?.leases;
        for LeaseStatus { id } in all {
            match in_time(lease.lease_revoke(LeaseRevokeRequest { id })).await {
                Err(refusal) if refusal.code() != Code::NotFound => return Err(refusal),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes so many revisions.
    pub async fn advance(&mut self, revisions: i64) -> Result<()> {
        for _ in 0..revisions {
            in_time(self.nodes[0].kv.put(put(b"advance".as_slice()))).await?;
        }
        Ok(())
    }

    pub async fn play(&mut self, op: &Op) -> Outcome {
        let node = op.node % self.nodes.len();
        let reply = self.ask(node, &op.action).await.map_err(Refusal::from)?;
        Ok(self.in_symbols(reply))
    }

    pub fn watches(&self) -> bool {
        self.watches.is_some()
    }

    async fn ask(&mut self, node: usize, action: &Action) -> Result<Reply, Status> {
        let symbols = &self.symbols;
        let kv = &mut self.nodes[node].kv.clone();
        Ok(match action {
            Action::Range(request) => {
                if request.serializable {
                    self.catch_up(node).await?;
                }
                Reply::Range(in_time(kv.range(self.symbols.range(request.clone()))).await?)
            }
            Action::Put(request) => Reply::Put(in_time(kv.put(symbols.put(request.clone()))).await?),
            Action::DeleteRange(request) => {
                Reply::DeleteRange(in_time(kv.delete_range(request.clone())).await?)
            }
            Action::Txn(request) => {
                if !changes(request) {
                    self.catch_up(node).await?;
                }
                Reply::Txn(in_time(kv.txn(self.symbols.txn(request.clone()))).await?)
            }
            Action::Compact(request) => {
                let revision = symbols.number(request.revision);
                Reply::Compact(in_time(kv.compact(CompactionRequest { revision, ..*request })).await?)
            }
            Action::Watch(request) => Reply::Control(self.watch(node, request).await?),
            Action::Settle => Reply::Settled(self.settle().await?),
            Action::Agree => Reply::Held(self.held().await?),
            lease => self.ask_lease(node, lease).await?,
        })
    }

    async fn ask_lease(&mut self, node: usize, action: &Action) -> Result<Reply, Status> {
        let number = |id: i64| self.symbols.lease_number(id);
        let lease = &mut self.nodes[node].lease.clone();
        Ok(match action {
            Action::Grant(request) => {
                let granted = in_time(lease.lease_grant(*request)).await?;
                if request.id == 0 {
                    self.symbols.chosen.push(granted.id);
                }
                Reply::Grant(granted)
            }
            Action::Revoke(request) => {
                let request = LeaseRevokeRequest { id: number(request.id) };
                Reply::Revoke(in_time(lease.lease_revoke(request)).await?)
            }
            Action::TimeToLive(request) => {
                let request = LeaseTimeToLiveRequest { id: number(request.id), ..*request };
                self.catch_up(node).await?;
                Reply::TimeToLive(in_time(lease.lease_time_to_live(request)).await?)
            }
            Action::KeepAlive(request) => {
                let request = LeaseKeepAliveRequest { id: number(request.id) };
                self.catch_up(node).await?;
                let replies = lease.lease_keep_alive(tokio_stream::iter([request]));
                Reply::KeepAlive(in_time(replies).await?.message().await?)
            }
            _ => {
                self.catch_up(node).await?;
                Reply::Leases(in_time(lease.lease_leases(LeaseLeasesRequest {})).await?)
            }
        })
    }

    async fn watch(&mut self, node: usize, request: &WatchRequest) -> Result<Vec<WatchResponse>, Status> {
        let mut request = request.clone();
        if let Some(WatchUnion::CreateRequest(create)) = &mut request.request_union {
            create.start_revision = self.symbols.number(create.start_revision);
        }
        if let Some(stream) = &self.watches {
            let node = stream.node;
            self.catch_up(node).await?;
        }
        if let Some(stream) = &mut self.watches {
            return stream.control(request).await;
        }
        self.catch_up(node).await?;
        let (stream, control) = WatchStream::open(node, &mut self.nodes[node].watch, request).await?;
        self.watches = Some(stream);
        Ok(control)
    }

    /// Makes a last change below every watch, and waits until each has told it.
    async fn settle(&mut self) -> Result<Vec<super::watches::Watched>, Status> {
        let Some(stream) = &mut self.watches else { return Ok(vec![]) };
        let kv = &mut self.nodes[stream.node].kv;
        let mut marks = BTreeMap::new();
        for key in stream.keys() {
            let put = in_time(kv.put(put(key.clone()))).await?;
            let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
            let deleted = in_time(kv.delete_range(delete)).await?;
            let at = |header: Option<ResponseHeader>| header.map_or(0, |header| header.revision);
            marks.insert(key, Marks { put: at(put.header), deleted: at(deleted.header) });
        }
        stream.settle(&marks).await.map_err(|error| Status::unavailable(format!("{error:#}")))
    }

    /// What each node has in its own store, when it has applied everything.
    async fn held(&mut self) -> Result<Vec<RangeResponse>, Status> {
        let mut held = Vec::new();
        for node in 0..self.nodes.len() {
            self.catch_up(node).await?;
            let all = RangeRequest {
                key: ALL.into(),
                range_end: ALL.into(),
                serializable: true,
                ..RangeRequest::default()
            };
            held.push(in_time(self.nodes[node].kv.range(all)).await?);
        }
        Ok(held)
    }

    /// Whether all nodes hold the same.
    pub async fn agrees(&mut self) -> Result<bool> {
        let held = self.held().await?;
        match self.in_symbols(Reply::Held(held)) {
            Reply::Held(held) => Ok(held.len() == 1),
            _ => Ok(false),
        }
    }

    /// Makes a node apply all that was acknowledged before.
    async fn catch_up(&mut self, node: usize) -> Result<(), Status> {
        let read = RangeRequest { key: b"?".as_slice().into(), ..RangeRequest::default() };
        in_time(self.nodes[node].kv.range(read)).await.map(drop)
    }

    fn in_symbols(&self, mut reply: Reply) -> Reply {
        let symbols = &self.symbols;
        match &mut reply {
            Reply::Range(reply) => symbols.hide_range(reply),
            Reply::Held(replies) => {
                replies.iter_mut().for_each(|reply| symbols.hide_range(reply));
                replies.dedup();
            }
            Reply::Put(reply) => symbols.hide_put(reply),
            Reply::DeleteRange(reply) => symbols.hide_delete(reply),
            Reply::Txn(reply) => symbols.hide_txn(reply),
            Reply::Compact(reply) => symbols.hide_header(&mut reply.header),
            Reply::Revoke(reply) => symbols.hide_header(&mut reply.header),
            Reply::Grant(LeaseGrantResponse { header, id, .. })
            | Reply::TimeToLive(LeaseTimeToLiveResponse { header, id, .. })
            | Reply::KeepAlive(Some(LeaseKeepAliveResponse { header, id, .. })) => {
                symbols.hide_header(header);
                symbols.hide_lease(id);
            }
            Reply::Leases(reply) => {
                symbols.hide_header(&mut reply.header);
                reply.leases.iter_mut().for_each(|lease| symbols.hide_lease(&mut lease.id));
            }
            Reply::Control(replies) => replies.iter_mut().for_each(|reply| symbols.hide_watch(reply)),
            Reply::Settled(watched) => watched.iter_mut().for_each(|watched| {
                let mut told =
                    WatchResponse { events: std::mem::take(&mut watched.events), ..WatchResponse::default() };
                symbols.hide_watch(&mut told);
                watched.events = told.events;
                watched.ended.iter_mut().for_each(|ended| symbols.hide_watch(ended));
            }),
            Reply::KeepAlive(None) => {}
        }
        reply
    }
}

/// Whether a transaction is for the leader. Any other may be answered with what a node has
/// applied: by etcd 3.5.1 it is if each of its ranges may, thus also if it has none.
fn changes(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(RequestKind::RequestPut(_) | RequestKind::RequestDeleteRange(_)) => true,
        Some(RequestKind::RequestTxn(nested)) => changes(nested),
        Some(RequestKind::RequestRange(_)) | None => false,
    })
}

fn put(key: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: b"mark".as_slice().into(), ..PutRequest::default() }
}

async fn in_time<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(reply) => reply.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}
