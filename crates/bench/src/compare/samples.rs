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

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    Put,
    LocalGet,
    Get,
    Mixed,
}

impl Job {
    pub fn load(self, clients: Clients, plan: &Plan) -> Load {
        let workload = match self {
            Self::Put => Workload::Put,
            Self::LocalGet | Self::Get => Workload::Get,
            Self::Mixed => Workload::Mixed,
        };
        Load {
            workload,
            clients: clients.count(),
            keys: plan.keys,
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
    /// Writes/s by the way in which clients are connected.
    PutsByWay(Clients, usize),
    Rate(Job, Clients),
    P50(Job, Clients),
    P99(Job, Clients),
    ServerCpu(Job, Clients),
    ClientCpu(Job, Clients),
    Failover,
    MemoryIdle,
    MemoryFilled,
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
        assert_eq!(samples.median(Figure::Failover), None);
        for value in [5.0, 1.0, 3.0] {
            samples.add(Figure::Failover, value);
        }
        assert_eq!(samples.median(Figure::Failover), Some(3.0));
        samples.add(Figure::Failover, 4.0);
        assert_eq!(samples.median(Figure::Failover), Some(3.5));
        assert_eq!(samples.max(Figure::Failover), Some(5.0));
        assert_eq!(samples.spread(Figure::Failover), Some(4.0 / 3.5));
    }
}
