//! The observer: looks at every node all the time, and in the end, when everything is
//! healed, waits until the cluster is whole again and says what is missing if it never is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Failures, authority, host};
use crate::http::Request;
use crate::plan::Plan;
use crate::trace::{self, Leaders};
use crate::workload::Workload;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
pub struct Observer {
    nodes: usize,
    settling: Duration,
    /// Members that called themselves leader in `/status`, by term.
    leaders: BTreeMap<u64, BTreeSet<String>>,
}

impl Observer {
    pub fn new(plan: &Plan) -> Self {
        Self { nodes: plan.nodes(), settling: plan.settling, leaders: BTreeMap::new() }
    }

    /// Runs beside the clients until they have ended, then judges.
    pub async fn run(mut self, workload: Rc<Workload>, failures: Failures) {
        while !workload.is_stopped() {
            for node in 0..self.nodes {
                self.look(node).await;
            }
            tokio::time::sleep(PERIOD).await;
        }
        if let Err(why) = self.settle(&workload).await {
            failures.borrow_mut().push(why);
        }
        self.judge_leaders(&failures);
    }

    async fn look(&mut self, node: usize) -> Option<Value> {
        let reply = Request::get("/status?limit=0").send(&authority(node), ANSWER_TIMEOUT).await.ok()?;
        let status = reply.json();
        if status["role"] == "leader" {
            let member = status["memberId"].as_str().unwrap_or("?").to_owned();
            self.leaders.entry(status["term"].as_u64()?).or_default().insert(member);
        }
        Some(status)
    }

    /// Whole again: one leader, all voters, equal states, every key readable, and fresh
    /// writes accepted through every node.
    async fn settle(&mut self, workload: &Workload) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + self.settling;
        loop {
            let seen = match self.is_whole().await {
                Ok(()) => self.read_everything(workload).await,
                other => other,
            };
            match seen {
                Ok(()) => return Ok(()),
                Err(why) if tokio::time::Instant::now() > deadline => {
                    return Err(format!("not whole {:?} after everything was healed: {why}", self.settling));
                }
                Err(_) => tokio::time::sleep(PERIOD).await,
            }
        }
    }

    async fn read_everything(&self, workload: &Workload) -> Result<(), String> {
        for node in 0..self.nodes {
            workload.read_everything(node).await?;
            workload.write_afresh(node).await?;
        }
        Ok(())
    }

    async fn is_whole(&mut self) -> Result<(), String> {
        let mut statuses = Vec::new();
        for node in 0..self.nodes {
            let status = self.look(node).await.ok_or_else(|| format!("{} does not answer", host(node)))?;
            check_status(&status, self.nodes)?;
            statuses.push(status);
        }
        let leaders = statuses.iter().filter(|status| status["role"] == "leader").count();
        if leaders != 1 {
            return Err(format!("{leaders} nodes lead"));
        }
        for field in ["term", "leaderId", "clusterId"] {
            if statuses.iter().any(|status| status[field] != statuses[0][field]) {
                return Err(format!("the nodes differ in {field}"));
            }
        }
        equal_hashes(self.nodes).await
    }

    /// One leader a term, over the whole history and over both sources.
    fn judge_leaders(&self, failures: &Failures) {
        let Leaders { by_term, .. } = trace::leaders();
        if by_term.is_empty() {
            failures.borrow_mut().push("no node's log said that it became leader".to_owned());
        }
        for (source, by_term) in [("narrated", &by_term), ("in /status", &self.leaders)] {
            for (term, leaders) in by_term.iter().filter(|(_, leaders)| leaders.len() > 1) {
                failures
                    .borrow_mut()
                    .push(format!("term {term} had several leaders ({source}): {leaders:?}"));
            }
        }
    }
}

fn check_status(status: &Value, nodes: usize) -> Result<(), String> {
    let name = &status["nodeId"];
    if status["ready"] != true {
        return Err(format!("{name} is not ready: {}", status["notReady"]));
    }
    let members = status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let voters = members.iter().filter(|member| member["voter"] == true).count();
    if (voters, members.len()) != (nodes, nodes) {
        return Err(format!("{name} sees {voters} voters among {} members", members.len()));
    }
    Ok(())
}

async fn equal_hashes(nodes: usize) -> Result<(), String> {
    let mut hashes = Vec::new();
    for node in 0..nodes {
        let reply = Request::get("/v1/state-hash").send(&authority(node), ANSWER_TIMEOUT).await;
        hashes.push(reply.map_err(|why| format!("no hash from {}: {why:?}", host(node)))?.text());
    }
    match hashes.iter().all(|hash| *hash == hashes[0]) {
        true => Ok(()),
        false => Err(format!("the states differ: {}", hashes.join(" "))),
    }
}
