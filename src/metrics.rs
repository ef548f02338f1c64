//! The node's counters and histograms, Prometheus names. A leaf: anybody may count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub struct Metrics {
    pub log_fsync_seconds: Histogram,
    pub log_written_bytes: Counter,
    pub log_appended_entries: Counter,
    pub apply_seconds: Histogram,
    pub store_flush_seconds: Histogram,
    pub elections_started: Counter,
    pub leader_changes: Counter,
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
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("bellwether");
        registry.register_with_unit(
            "log_fsync_duration",
            "Time of one fdatasync of the log",
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
    }
}
