//! What writes cost the disks: syncs of the log, and bytes, by the servers' own count and the
//! kernel's.

use anyhow::{Context, Result, ensure};
use bellwether_load::KEY_BYTES;
use bellwether_load::probe::process::written_bytes;
use bellwether_load::target::Address;
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::http::Link;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::samples::{Clients, Figure, Samples};
use crate::cluster::Cluster;

/// How each system calls the number of times that it synced its log.
const SYNCS: [&str; 2] =
    ["bellwether_log_fsync_duration_seconds_count ", "etcd_disk_wal_fsync_duration_seconds_count "];

/// Summed over all servers, since their start.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Each write makes one, whichever window it was in.
    revision: u64,
    syncs: f64,
    disk_bytes: u64,
}

impl Spent {
    pub async fn now(cluster: &Cluster) -> Result<Self> {
        let urls = cluster.urls();
        let mut syncs = 0.0;
        for url in &urls {
            syncs += synced(&Address::parse(url)?).await.with_context(|| format!("{url}/metrics"))?;
        }
        let disk_bytes = cluster.pids().into_iter().map(written_bytes).sum::<Result<u64>>()?;
        let revision = EtcdTarget::new(&urls, None)?.revision().await?;
        Ok(Self { revision, syncs, disk_bytes })
    }

    /// Adds what an average node spent since `before`, on writes of this size.
    pub fn record(
        &self,
        before: &Self,
        clients: Clients,
        value_bytes: usize,
        to: &mut Samples,
        nodes: usize,
    ) {
        let writes = (self.revision - before.revision) as f64 * nodes as f64;
        if writes == 0.0 {
            return;
        }
        let user_bytes = writes * (KEY_BYTES + value_bytes) as f64;
        to.add(Figure::SyncsPerWrite(clients), (self.syncs - before.syncs) / writes);
        let disk_bytes = (self.disk_bytes - before.disk_bytes) as f64;
        to.add(Figure::DiskBytesPerByte(clients), disk_bytes / user_bytes);
    }
}

async fn synced(node: &Address) -> Result<f64> {
    let request = node.request(Method::GET, "/metrics", Bytes::new())?;
    let reply = Link::open(node).await?.exchange(request).await?;
    ensure!(reply.status() == StatusCode::OK, "status {}", reply.status());
    count(std::str::from_utf8(reply.body())?).context("no count of syncs")
}

fn count(metrics: &str) -> Option<f64> {
    let value = metrics.lines().find_map(|line| SYNCS.iter().find_map(|name| line.strip_prefix(name)))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_systems_counts_are_found() {
        let ours = "# TYPE x histogram\nbellwether_log_fsync_duration_seconds_count 7\n";
        let theirs = "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"1\"} 3\n\
            etcd_disk_wal_fsync_duration_seconds_count 9\n";
        assert_eq!((count(ours), count(theirs), count("")), (Some(7.0), Some(9.0), None));
    }

    #[test]
    fn costs_are_an_average_node_s_by_write() {
        let at = |revision, syncs, disk_bytes| Spent { revision, syncs, disk_bytes };
        let mut samples = Samples::default();
        at(110, 30.0, 6000).record(&at(10, 0.0, 0), Clients::Most, 190, &mut samples, 3);
        assert_eq!(samples.median(Figure::SyncsPerWrite(Clients::Most)), Some(0.1));
        assert_eq!(samples.median(Figure::DiskBytesPerByte(Clients::Most)), Some(0.1));
    }
}
