//! What is asked of a cluster: the settings of one measurement.

use std::time::Duration;

use serde::Serialize;

use crate::keys::Distribution;
use crate::target::{Freshness, Route};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Writes, to the leader
    Put,
    /// Reads, clients spread over all nodes
    Get,
    /// Nine reads for every write, at the leader
    Mixed,
    /// Compare-and-swap at the leader: a write if the key is as it was last seen
    Txn,
    /// Reads of many keys in a row, clients spread over all nodes
    Range,
    /// Writes, and watchers on all nodes that are told of each (with --etcd)
    Watch,
    /// Renewals of leases, one a client (with --etcd)
    Lease,
}

impl Workload {
    pub fn route(self) -> Route {
        match self {
            Self::Put | Self::Mixed | Self::Txn | Self::Watch | Self::Lease => Route::Leader,
            Self::Get | Self::Range => Route::Spread,
        }
    }
}

/// When a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// As soon as it has the last answer.
    Closed,
    /// So many requests a second, all clients together, however slow the answers are.
    Open(f64),
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Time(Duration),
    /// So many requests, begun after the warm-up.
    Requests(u64),
}

/// One measurement's settings.
#[derive(Clone, Debug)]
pub struct Load {
    pub workload: Workload,
    pub clients: usize,
    /// How many keys there are to choose from.
    pub keys: u64,
    pub distribution: Distribution,
    pub freshness: Freshness,
    pub value_bytes: usize,
    /// Keys in one range.
    pub range_size: u32,
    pub watchers: usize,
    pub pace: Pace,
    pub warmup: Duration,
    pub extent: Extent,
    /// A request that is not answered by then is given up. It counts as an error, though it
    /// may have been carried out, or may be yet.
    pub timeout: Duration,
    pub seed: u64,
}

/// Above what a server makes a request wait by itself, so that its own answer comes first.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Load {
    fn default() -> Self {
        Self {
            workload: Workload::Put,
            clients: 64,
            keys: 100_000,
            distribution: Distribution::Uniform,
            freshness: Freshness::Linearizable,
            value_bytes: 256,
            range_size: 1000,
            watchers: 100,
            pace: Pace::Closed,
            warmup: Duration::from_secs(1),
            extent: Extent::Time(Duration::from_secs(10)),
            timeout: ANSWER_TIMEOUT,
            seed: 1,
        }
    }
}
