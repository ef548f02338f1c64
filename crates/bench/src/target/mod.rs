//! What a load can be put on: one trait, two systems.
//!
//! A [`Target`] knows a cluster's addresses and hands out [`Session`]s, one a client. A
//! session does one thing at a time and waits for the answer; how many of them share a
//! connection is the target's affair, and told to it by the caller. Both implementations
//! do the least their protocol needs, so that what is measured is the server.

pub mod etcd;
pub mod http;

use anyhow::Result;
use bytes::Bytes;

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

pub trait Target {
    type Session: Session + 'static;

    /// How many nodes there are.
    fn nodes(&self) -> usize;

    /// The place, in the list of addresses, of the node that leads now.
    async fn leader(&self) -> Result<usize>;

    /// Sessions for this many clients, connected.
    async fn sessions(&self, route: Route, clients: usize) -> Result<Vec<Self::Session>>;
}

pub trait Session {
    /// Returns when the write is acknowledged; an error when that is not known.
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()>;

    /// Reads the whole value; says whether the key exists.
    async fn get(&mut self, key: &str, freshness: Freshness) -> Result<bool>;

    /// After an error: whatever makes the next request likely to succeed.
    async fn recover(&mut self);
}

/// Which node a client's requests go to, for a target whose leader is known.
fn node_of(route: Route, client: usize, nodes: usize, leader: usize) -> usize {
    match route {
        Route::Leader => leader,
        Route::Spread => client % nodes,
        Route::Node(node) => node,
    }
}
