//! Watches who says that it leads, all the time, beside whatever the test does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::http::Request;

/// Short against an election (150 ms), so that no leader is missed for long.
const INTERVAL: Duration = Duration::from_millis(25);
/// A paused node must not hold up the watch of the others.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// Who led, by term, over the whole history of a cluster.
pub struct Observer {
    leaders: Arc<Mutex<BTreeMap<u64, BTreeSet<String>>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Observer {
    pub fn start(ports: &[u16]) -> Self {
        let leaders = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let tasks = ports.iter().map(|port| tokio::spawn(watch(*port, leaders.clone()))).collect();
        Self { leaders, tasks }
    }

    /// Terms in which somebody led, and who.
    pub fn leaders(&self) -> BTreeMap<u64, BTreeSet<String>> {
        self.leaders.lock().expect("watchers do not panic").clone()
    }

    #[track_caller]
    pub fn expect_one_leader_a_term(&self) {
        let leaders = self.leaders();
        assert!(!leaders.is_empty(), "nobody was ever seen leading: the watch proves nothing");
        assert!(leaders.values().all(|names| names.len() == 1), "two leaders in one term: {leaders:?}");
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Polls one node, which is believed about itself only: others may lag.
async fn watch(port: u16, leaders: Arc<Mutex<BTreeMap<u64, BTreeSet<String>>>>) {
    loop {
        if let Ok(reply) = Request::get("/status").timeout(ANSWER_TIMEOUT).send(port).await
            && let Ok(status) = serde_json::from_slice::<serde_json::Value>(&reply.body)
            && status["role"] == "leader"
            && let (Some(term), Some(name)) = (status["term"].as_u64(), status["nodeId"].as_str())
        {
            let mut leaders = leaders.lock().expect("watchers do not panic");
            leaders.entry(term).or_default().insert(name.to_owned());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
