//! The node's counters and histograms, Prometheus names. A leaf: anybody may count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Names one histogram of answered requests. Routes are patterns, never paths, so that
/// clients can't make new series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub method: &'static str,
    pub route: &'static str,
    /// The status class: `2xx`, `4xx` ...
    pub status: &'static str,
}

/// Why something was refused or cut off before it was served.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    pub reason: &'static str,
}

/// What came of comparing this node's state with the others'.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    pub verdict: &'static str,
}

pub struct Metrics {
    pub log_fsync_seconds: Histogram,
    pub log_written_bytes: Counter,
    pub log_appended_entries: Counter,
    pub apply_seconds: Histogram,
    pub store_flush_seconds: Histogram,
    pub elections_started: Counter,
    pub leader_changes: Counter,
    pub state_checks: Family<VerdictLabels, Counter>,
    /// Connections that are open now, from clients and peers.
    pub connections: Gauge,
    /// Client requests being handled now.
    pub requests_inflight: Gauge,
    pub request_seconds: Family<RequestLabels, Histogram, fn() -> Histogram>,
    pub refused: Family<RefusalLabels, Counter>,
    /// Streams of watches, and the watches on them.
    pub watch_streams: Gauge,
    pub watchers: Gauge,
    /// Watchers that read the store because they are far behind.
    pub slow_watchers: Gauge,
    pub watch_events: Counter,
}

impl Metrics {
    /// Counts one refusal; `reason` is one of a handful of fixed words.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Counts one comparison of states; `verdict` is one of a handful of fixed words.
    pub fn count_state_check(&self, verdict: &'static str) {
        self.state_checks.get_or_create(&VerdictLabels { verdict }).inc();
    }
}

fn request_histogram() -> Histogram {
    // 50 microseconds (a read from memory) to 52 seconds (the longest wait a client may ask for).
    Histogram::new(exponential_buckets(0.000_05, 4.0, 11))
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 microseconds to 1.6 seconds: a fast NVMe fdatasync to a stalled disk.
        let disk_seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        Self {
            log_fsync_seconds: disk_seconds(),
            log_written_bytes: Counter::default(),
            log_appended_entries: Counter::default(),
            apply_seconds: disk_seconds(),
            store_flush_seconds: disk_seconds(),
            elections_started: Counter::default(),
            leader_changes: Counter::default(),
            state_checks: Family::default(),
            connections: Gauge::default(),
            requests_inflight: Gauge::default(),
            request_seconds: Family::new_with_constructor(request_histogram),
            refused: Family::default(),
            watch_streams: Gauge::default(),
            watchers: Gauge::default(),
            slow_watchers: Gauge::default(),
            watch_events: Counter::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("bellwether");
        registry.register_with_unit(
            "log_fsync_duration",
            "Time of one write to the log that is on disk when it returns",
            Unit::Seconds,
            self.log_fsync_seconds.clone(),
        );
        registry.register("log_written_bytes", "Bytes written to the log", self.log_written_bytes.clone());
        registry.register(
            "log_appended_entries",
            "Entries appended to the log",
            self.log_appended_entries.clone(),
        );
        registry.register_with_unit(
            "apply_duration",
            "Time to apply one log entry, which may carry many commands",
            Unit::Seconds,
            self.apply_seconds.clone(),
        );
        registry.register_with_unit(
            "store_flush_duration",
            "Time of one background flush of applied rows into the table",
            Unit::Seconds,
            self.store_flush_seconds.clone(),
        );
        registry.register(
            "elections_started",
            "Campaigns begun by this node",
            self.elections_started.clone(),
        );
        registry.register(
            "leader_changes",
            "Changes of leader that this node saw",
            self.leader_changes.clone(),
        );
        registry.register(
            "state_checks",
            "Comparisons of this node's state with the others', by what came of them",
            self.state_checks.clone(),
        );
        self.register_server(registry);
        self.register_watching(registry);
    }

    fn register_watching(&self, registry: &mut Registry) {
        registry.register("watch_streams", "Open streams of watches", self.watch_streams.clone());
        registry.register("watchers", "Watches on all streams", self.watchers.clone());
        registry.register(
            "slow_watchers",
            "Watches that are far behind, or began in the past, and read from the store",
            self.slow_watchers.clone(),
        );
        registry.register("watch_events", "Events given to watchers", self.watch_events.clone());
    }

    fn register_server(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections, clients' and peers'", self.connections.clone());
        registry.register(
            "requests_inflight",
            "Client requests being handled",
            self.requests_inflight.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time to answer a client's request",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register(
            "refused",
            "Requests and connections refused or cut off before they were served",
            self.refused.clone(),
        );
    }
}
