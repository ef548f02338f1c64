//! What a window saw, in the names and units that the output has.

use std::time::Duration;

use serde::Serialize;

use crate::keys::Distribution;
use crate::load::{Load, Pace, Workload};
use crate::tally::Tally;
use crate::window::Measured;

/// Flat, so that it is one JSON object and one line of CSV alike.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub workload: Workload,
    pub clients: usize,
    pub distribution: Distribution,
    pub value_bytes: usize,
    /// Requests a second that were intended; none in a closed loop.
    pub intended_per_second: Option<f64>,
    pub seconds: f64,
    /// Answered as wanted; of watchers, events that reached them.
    pub operations: u64,
    pub per_second: f64,
    pub errors: u64,
    /// Reads that found nothing.
    pub missing: u64,
    /// Compare-and-swaps that somebody else was faster than.
    pub lost_races: u64,
    /// Requests still under way at the end.
    pub unanswered: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// The longest time in which nothing was answered as wanted.
    pub longest_gap_us: u64,
    /// Of this process: processor seconds per 1,000 operations.
    pub client_cpu_per_1000: f64,
    /// The same, summed over the servers; none when their process ids are not known.
    pub server_cpu_per_1000: Option<f64>,
    /// Memory that the servers had in RAM at the end, summed.
    pub server_resident_bytes: Option<u64>,
    /// By how much that grew in the window, per operation.
    pub server_growth_bytes_per_operation: Option<f64>,
    /// The first error's text.
    pub first_error: Option<String>,
}

impl Outcome {
    pub(crate) fn new(load: &Load, tally: &Tally, measured: &Measured) -> Self {
        let latencies = tally.latencies.borrow();
        let operations = tally.operations.get();
        let seconds = measured.took.as_secs_f64();
        let per = |amount: f64| if operations == 0 { 0.0 } else { amount / operations as f64 };
        let per_1000 = |spent: Duration| per(spent.as_secs_f64() * 1000.0);
        let servers = measured.servers.as_ref();
        Self {
            workload: load.workload,
            clients: load.clients,
            distribution: load.distribution,
            value_bytes: load.value_bytes,
            intended_per_second: match load.pace {
                Pace::Open(rate) => Some(rate),
                Pace::Closed => None,
            },
            seconds,
            operations,
            per_second: operations as f64 / seconds,
            errors: tally.errors.get(),
            missing: tally.missing.get(),
            lost_races: tally.lost.get(),
            unanswered: tally.under_way.get(),
            p50_us: latencies.value_at_quantile(0.5),
            p90_us: latencies.value_at_quantile(0.9),
            p99_us: latencies.value_at_quantile(0.99),
            p999_us: latencies.value_at_quantile(0.999),
            max_us: latencies.max(),
            longest_gap_us: u64::try_from(tally.longest_gap().as_micros()).unwrap_or(u64::MAX),
            client_cpu_per_1000: per_1000(measured.own_cpu),
            server_cpu_per_1000: servers.map(|servers| per_1000(servers.cpu)),
            server_resident_bytes: servers.map(|servers| servers.resident_after),
            server_growth_bytes_per_operation: servers
                .map(|servers| per(servers.resident_after as f64 - servers.resident_before as f64)),
            first_error: tally.first_error.borrow().clone(),
        }
    }
}
