//! A cluster whose network and disks can be spoilt: started with `--lab`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Cluster, Request};

/// A cluster with a laboratory.
pub struct Lab {
    pub cluster: Arc<Cluster>,
}

impl Lab {
    pub async fn started() -> Self {
        Self::started_with(&[]).await
    }

    pub async fn started_with(env: &[(&str, &str)]) -> Self {
        let env = [&[("LAB", "true")], env].concat();
        Self { cluster: Arc::new(Cluster::started(3, &env).await) }
    }

    /// Sets what befalls messages between `at` and `peer`, at `at`.
    pub async fn spoil(&self, at: usize, peer: usize, rules: Value) {
        let target = format!("/v1/lab/network/{}", self.cluster.name(peer));
        self.cluster.ask(at, Request::put(target, rules.to_string())).await.expect(200);
    }

    pub async fn heal(&self) {
        for i in 0..self.cluster.len() {
            self.cluster.ask(i, Request::delete("/v1/lab/network")).await.expect(200);
        }
    }

    /// How often faults of this kind have struck at `at`.
    pub async fn struck(&self, at: usize, kind: &str) -> u64 {
        let network = self.cluster.get(at, "/v1/lab/network").await.expect(200).json();
        let links = network["links"].as_array().expect("links").iter();
        let ways = links.flat_map(|link| [&link["send"], &link["receive"]]);
        ways.map(|way| way["counts"][kind].as_u64().expect("a count")).sum()
    }

    pub async fn expect_struck(&self, at: usize, kind: &str) {
        assert!(self.struck(at, kind).await > 0, "{kind} never struck at {}", self.cluster.name(at));
    }

    pub async fn term(&self, i: usize) -> u64 {
        let status = self.cluster.status(i).await.expect("the node answers");
        status["term"].as_u64().expect("a number")
    }

    pub fn others(&self, one: usize) -> [usize; 2] {
        [(one + 1) % 3, (one + 2) % 3]
    }

    /// After healing: one leader, the same on all, the same state, writes go on.
    pub async fn expect_whole(&self) {
        let leader = self.cluster.wait_leader().await;
        self.cluster.put(leader, "/key/after", "1").await.expect(200);
        self.cluster.wait_equal_hashes().await;
    }
}

pub fn cut() -> Value {
    json!({"send": {"cut": true}, "receive": {"cut": true}})
}

pub fn slow(delay_ms: u64) -> Value {
    json!({"send": {"delayMs": delay_ms}})
}
