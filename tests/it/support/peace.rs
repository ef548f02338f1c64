//! What hostile clients must not change: the data, the leader, the term, and a log that
//! people can read.

use std::fs;

use serde_json::Value;

use super::Cluster;

/// Lines that one node may add to its log, whatever is done to it in one test.
const MAX_LOG_LINES: usize = 20;

/// A cluster as it was before the disturbance.
pub struct Peace {
    leader: usize,
    term: Value,
    hash: Value,
    pids: Vec<u32>,
    log_lines: Vec<usize>,
}

impl Peace {
    pub async fn of(cluster: &Cluster) -> Self {
        let leader = cluster.wait_leader().await;
        let hash = cluster.wait_equal_hashes().await;
        let status = cluster.status(leader).await.expect("the leader answers");
        let pids = (0..cluster.len()).map(|i| cluster.pid(i)).collect();
        Self { leader, term: status["term"].clone(), hash, pids, log_lines: log_lines(cluster) }
    }

    pub fn leader(&self) -> usize {
        self.leader
    }

    /// No data was changed. The log may have grown by entries that change none.
    pub async fn expect_untouched(&self, cluster: &Cluster, told: &str) {
        self.expect_kept(cluster, told).await;
        assert_eq!(cluster.wait_equal_hashes().await["hash"], self.hash["hash"], "{told} changed the state");
    }

    /// The same processes, the same leader in the same term, no flood of log lines.
    pub async fn expect_kept(&self, cluster: &Cluster, told: &str) {
        for (i, pid) in self.pids.iter().enumerate() {
            assert!(cluster.runs(i) && cluster.pid(i) == *pid, "{} did not survive {told}", cluster.name(i));
            let status = cluster.status(i).await.unwrap_or_else(|why| panic!("after {told}: {why}"));
            assert_eq!(status["term"], self.term, "{told} made an election: {status}");
            assert_eq!(status["leaderId"], cluster.name(self.leader), "{told}: {status}");
        }
        for (i, (now, before)) in log_lines(cluster).iter().zip(&self.log_lines).enumerate() {
            let added = now - before;
            assert!(added <= MAX_LOG_LINES, "{told} made {} write {added} lines", cluster.name(i));
        }
    }
}

fn log_lines(cluster: &Cluster) -> Vec<usize> {
    let lines = |i| fs::read_to_string(cluster.log_path(cluster.name(i))).unwrap_or_default().lines().count();
    (0..cluster.len()).map(lines).collect()
}
