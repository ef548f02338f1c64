//! What is measured, and the values found in the rounds.

use std::collections::BTreeMap;

use bellwether_load::target::Freshness;
use bellwether_load::{Extent, Load, Workload};
use serde::{Serialize, Serializer};

use super::Plan;

/// How many clients at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clients {
    /// Latency: nothing to batch.
    One,
    /// The load that the targets speak of.
    Many,
    /// Batching at its best.
    Most,
}

impl Clients {
    pub const ALL: [Self; 3] = [Self::One, Self::Many, Self::Most];

    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Many => 64,
            Self::Most => 256,
        }
    }
}

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// One connection a client.
    Own,
    /// All clients on few connections.
    Shared,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    Put,
    LocalGet,
    Get,
    Mixed,
    Swap,
    Watch,
}

/// Compare-and-swaps draw from fewer keys: the warm-up has to see nearly all of them, so that
/// what is lost is lost to others, not to never having looked.
const SWAPPED_KEYS: u64 = 10_000;

impl Job {
    pub fn load(self, clients: Clients, plan: &Plan) -> Load {
        let workload = match self {
            Self::Put => Workload::Put,
            Self::LocalGet | Self::Get => Workload::Get,
            Self::Mixed => Workload::Mixed,
            Self::Swap => Workload::Txn,
            Self::Watch => Workload::Watch,
        };
        Load {
            workload,
            clients: clients.count(),
            keys: if self == Self::Swap { plan.keys.min(SWAPPED_KEYS) } else { plan.keys },
            freshness: if self == Self::LocalGet { Freshness::Local } else { Freshness::Linearizable },
            value_bytes: plan.value_bytes,
            warmup: plan.warmup,
            extent: Extent::Time(plan.window),
            ..Load::default()
        }
    }
}

/// One measured quantity. Rates are a second, processor times in seconds per 1,000
/// operations, latencies in milliseconds, other times in seconds, memory in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    SyncsByOne,
    SyncsByThree,
    /// Median time of one sync, one writer; in milliseconds.
    SyncTime,
    /// Writes/s by the way in which clients are connected.
    PutsByWay(Clients, Way),
    Rate(Job, Clients),
    P50(Job, Clients),
    P99(Job, Clients),
    ServerCpu(Job, Clients),
    ClientCpu(Job, Clients),
    /// Of the log, an average node's.
    SyncsPerWrite(Clients),
    /// Bytes that went to disk for each byte of key and value, an average node's.
    DiskBytesPerByte(Clients),
    /// The longest time without an accepted write, around the leader's end.
    KilledGap,
    TerminatedGap,
    PausedGap,
    /// From the start of a node that missed writes until it has them.
    CatchUp,
    /// From the start of a node with many keys until it shows the newest.
    StartFull,
    MemoryIdle,
    MemoryFilled,
    MemoryLoaded,
    /// Cores, summed over the three servers.
    IdleCpu,
    StartToWrite,
    UpToWrite,
}

/// Every value found, by figure.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<Figure, Vec<f64>>);

impl Samples {
    pub fn add(&mut self, figure: Figure, value: f64) {
        self.0.entry(figure).or_default().push(value);
    }

    pub fn of(&self, figure: Figure) -> &[f64] {
        self.0.get(&figure).map_or(&[], Vec::as_slice)
    }

    pub fn median(&self, figure: Figure) -> Option<f64> {
        let mut sorted = self.of(figure).to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    pub fn max(&self, figure: Figure) -> Option<f64> {
        self.of(figure).iter().copied().max_by(f64::total_cmp)
    }

    /// The distance between the lowest and the highest value, as a part of the median.
    pub fn spread(&self, figure: Figure) -> Option<f64> {
        let min = self.of(figure).iter().copied().min_by(f64::total_cmp)?;
        Some((self.max(figure)? - min) / self.median(figure)?)
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(figure, values)| (format!("{figure:?}"), values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(Figure::CatchUp), None);
        for value in [5.0, 1.0, 3.0] {
            samples.add(Figure::CatchUp, value);
        }
        assert_eq!(samples.median(Figure::CatchUp), Some(3.0));
        samples.add(Figure::CatchUp, 4.0);
        assert_eq!(samples.median(Figure::CatchUp), Some(3.5));
        assert_eq!(samples.max(Figure::CatchUp), Some(5.0));
        assert_eq!(samples.spread(Figure::CatchUp), Some(4.0 / 3.5));
    }
}
