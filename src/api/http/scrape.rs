//! `/metrics`: what is counted ([`crate::metrics`]) and what is looked up when asked.

use std::fmt;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::error::{ApiError, ApiResult};
use super::reply;
use crate::node::{Node, Status};
use crate::storage::mvcc::StoreStats;
use crate::types::Role;

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub struct Scrape(Registry);

impl Scrape {
    pub fn new(node: Node) -> Self {
        let mut registry = Registry::default();
        node.metrics().register(&mut registry);
        registry.register_collector(Box::new(Figures(node)));
        Self(registry)
    }

    pub fn page(&self) -> ApiResult {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)
            .map_err(|_| ApiError::unexpected("the metrics could not be written"))?;
        Ok(page(text))
    }
}

fn page(text: String) -> Response<Body> {
    reply::bytes(StatusCode::OK, OPENMETRICS, text.into())
}

/// Gauges of a node, taken at the moment of the scrape.
struct Figures(Node);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&self.0.status(), &self.0.store().stats(), &mut encoder)?;
        let name = "bellwether_log_disk_bytes";
        let gauge = encoder.encode_descriptor(name, "Bytes of the log on disk", None, MetricType::Gauge)?;
        as_gauge(self.0.log_disk_bytes()).encode(gauge)
    }
}

fn encode(status: &Status, stats: &StoreStats, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut plain = |name: &str, help: &str, value: u64| {
        let name = format!("bellwether_{name}");
        as_gauge(value).encode(encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?)
    };
    plain("is_leader", "1 when this node leads, backed by a quorum", (status.role == Role::Leader).into())?;
    plain("has_leader", "1 when this node knows a leader", status.leader.is_some().into())?;
    plain("ready", "1 when this node is ready to serve", status.not_ready.is_none().into())?;
    plain("state_mismatch", "1 in alarm: the state differs from the others'", status.in_alarm.into())?;
    plain("term", "The current term", status.term)?;
    plain("log_last_index", "The last entry in the log", status.last_log.unwrap_or(0))?;
    plain("log_committed_index", "The last committed entry", status.committed.unwrap_or(0))?;
    plain("log_applied_index", "The last applied entry", status.applied.unwrap_or(0))?;
    plain("store_revision", "The store's revision", stats.revision)?;
    plain("store_compacted_revision", "The revision up to which history is compacted", stats.compacted)?;
    plain("store_keys", "Keys", stats.keys)?;
    plain("store_tail_rows", "Applied rows not yet in the table", stats.tail_rows)?;
    plain("store_tail_bytes", "Bytes of applied rows not yet in the table", stats.tail_bytes)?;
    plain("store_disk_bytes", "Bytes of the table on disk", stats.disk_bytes)?;
    roles(status, encoder)?;
    lags(status, encoder)
}

type Labels<'a> = [(&'static str, &'a str)];

fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[(&Labels<'_>, u64)],
) -> fmt::Result {
    let name = format!("bellwether_{name}");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        as_gauge(*value).encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}

/// Indexes and revisions stay far below `i64::MAX`.
fn as_gauge(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// One series a role, 1 for the one that this node plays.
fn roles(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let all = [Role::Leader, Role::Follower, Role::Candidate];
    let labels = all.map(|role| [("role", role.as_str())]);
    let rows = std::array::from_fn::<_, 3, _>(|i| (&labels[i][..], u64::from(all[i] == status.role)));
    labelled(encoder, "role", "1 for the role this node plays", &rows)
}

/// How far each member is behind; only the leader knows.
fn lags(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let last = status.last_log.unwrap_or(0);
    let others = status.members.iter().filter(|member| Some(member.id) != status.member);
    let lags: Vec<_> = others
        .filter(|_| status.role == Role::Leader)
        .map(|member| {
            // Nothing matched yet: behind by everything, entry 0 included.
            let lag = member.matched.map_or(last + 1, |matched| last.saturating_sub(matched));
            ([("peer", member.name.as_str())], lag)
        })
        .collect();
    let rows: Vec<_> = lags.iter().map(|(labels, lag)| (&labels[..], *lag)).collect();
    labelled(encoder, "follower_lag_entries", "Entries not yet known to be on that member's disk", &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::status::tests::example;

    #[derive(Debug)]
    struct Fixed(Status);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(&self.0, &StoreStats::default(), &mut encoder)
        }
    }

    fn scrape(status: Status) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(status)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("written");
        text
    }

    #[test]
    fn the_leader_shows_each_followers_lag() {
        let text = scrape(example());
        for line in [
            "bellwether_is_leader 1",
            "bellwether_term 3",
            "bellwether_role{role=\"leader\"} 1",
            "bellwether_role{role=\"follower\"} 0",
            "bellwether_follower_lag_entries{peer=\"node-2\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("peer=\"node-1\""));
        assert!(!scrape(Status { role: Role::Follower, ..example() }).contains("peer="));
    }

    #[test]
    fn all_counters_can_be_scraped() {
        let metrics = crate::metrics::Metrics::default();
        metrics.refuse("inflight");
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("written");
        assert!(text.contains("bellwether_refused_total{reason=\"inflight\"} 1"), "{text}");
    }
}
