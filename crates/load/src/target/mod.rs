//! What a load can be put on: one trait, two protocols.
//!
//! A [`Target`] knows a cluster's addresses and hands out [`Session`]s, one a client. A
//! session does one thing at a time and waits for the answer; how many of them share a
//! connection is the target's affair, and told to it by the caller. Both implementations
//! do the least their protocol needs, so that what is measured is the server.

mod address;
pub mod etcd;
mod group;
pub mod http;
mod together;

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use tokio::time::timeout;

pub use address::Address;
pub use group::{Driver, Group, spawn_each};

/// Where a session's requests go.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// To the node that leads.
    Leader,
    /// To all nodes, client by client.
    Spread,
    /// To this one, by its place in the list of addresses.
    Node(usize),
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What the asked node has applied.
    Local,
    /// At least as new as every write acknowledged before.
    Linearizable,
}

/// What became of a compare-and-swap. Either way the reply tells the revision at which the
/// key was last modified, 0 when it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    Done(u64),
    /// Somebody else changed the key before.
    Lost(u64),
}

#[expect(async_fn_in_trait, reason = "sessions stay on the thread that made them")]
pub trait Target {
    type Session: Session + 'static;

    /// How many nodes there are.
    fn nodes(&self) -> usize;

    /// The place, in the list of addresses, of the node that leads now.
    async fn leader(&self) -> Result<usize>;

    /// A session by itself, connected.
    async fn session(&self, route: Route) -> Result<Self::Session>;

    /// Sessions for this many clients, connected, by the connection that they share.
    async fn sessions(&self, route: Route, clients: usize) -> Result<Vec<Group<Self::Session>>>;
}

#[expect(async_fn_in_trait, reason = "sessions stay on the thread that made them")]
pub trait Session {
    /// Returns when the write is acknowledged; an error when that is not known.
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()>;

    /// Reads the whole value; says whether the key exists.
    async fn get(&mut self, key: &str, freshness: Freshness) -> Result<bool>;

    /// Writes if the key was last modified at `seen`; 0: if it does not exist.
    async fn swap(&mut self, key: &str, value: &Bytes, seen: u64) -> Result<Swap>;

    /// Reads keys and values from `start` on, at most `limit`; says how many.
    async fn range(&mut self, start: &str, limit: u32, freshness: Freshness) -> Result<usize>;

    /// Renews a lease of this session's own.
    async fn keep_alive(&mut self) -> Result<()>;

    /// The last request's answer is awaited no more: its node may hang.
    fn give_up(&mut self);

    /// After an error: whatever makes the next request likely to succeed.
    async fn recover(&mut self);
}

/// How long a node may take to say whether it leads. One that hangs is passed over.
const LEADS_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a node that is asked so says that it leads, and in time: one that is down, or
/// hangs, doesn't lead; the others tell.
async fn says_yes(asking: impl Future<Output = Result<bool>>) -> bool {
    matches!(timeout(LEADS_TIMEOUT, asking).await, Ok(Ok(true)))
}

/// The node for a route; the leader is looked for only where it matters.
async fn node_for<T: Target>(target: &T, route: Route) -> Result<impl Fn(usize) -> usize + use<T>> {
    let nodes = target.nodes();
    // With one address the caller has chosen.
    let leader = if matches!(route, Route::Leader) && nodes > 1 { target.leader().await? } else { 0 };
    Ok(move |client: usize| match route {
        Route::Leader => leader,
        Route::Spread => client % nodes,
        Route::Node(node) => node,
    })
}
