//! Concurrent clients that read, write, delete and compare, and record what they saw.
//!
//! Every client talks to random nodes and lets them forward. Keys are used up one after another, so
//! that no key's history grows beyond what the checker decides at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bellwether_check::{Action, Call, Condition, DEFAULT_STEPS, Op, Outcome, Recorder, Seen, check};
use tokio::task::JoinHandle;

use super::http::{Failure, Reply, Request};
use super::{Cluster, Rng, eventually};

/// Keys in use at one time: few, so that clients meet.
const KEYS_AT_ONCE: u64 = 4;
/// Operations after which the next keys are taken.
const OPS_A_WINDOW: u64 = KEYS_AT_ONCE * 200;
/// Between two operations of one client: leaves the two cores time for the servers.
const PAUSE: Duration = Duration::from_millis(3);
/// The server's own deadline, and a bound on how long one call is undecided.
const DEADLINE: &str = "2s";

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    /// At most ten: the checker's cost grows with calls under way at one moment.
    pub clients: u32,
}

/// Clients at work; [`Workload::finish`] ends them and judges.
pub struct Workload {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    cluster: Arc<Cluster>,
    recorder: Recorder,
    stop: AtomicBool,
    issued: AtomicU64,
    acknowledged: AtomicU64,
}

impl Workload {
    pub fn start(cluster: &Arc<Cluster>, settings: Settings) -> Self {
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            recorder: Recorder::new(),
            stop: AtomicBool::new(false),
            issued: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        });
        let client = |id| {
            let rng = Rng::new(settings.seed.wrapping_mul(31).wrapping_add(u64::from(id)));
            tokio::spawn(shared.clone().client(id, rng))
        };
        let clients = (0..settings.clients).map(client).collect();
        Self { shared, clients }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for that many acknowledged writes more: the cluster serves.
    pub async fn wait_progress(&self, writes: u64) {
        let goal = self.acknowledged() + writes;
        eventually(super::PATIENCE, || async {
            let now = self.acknowledged();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal} writes acknowledged")) }
        })
        .await;
    }

    /// Stops the clients, reads every key once more, and checks the whole history.
    pub async fn finish(self) -> Vec<Op> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client of the workload panicked");
        }
        let windows = self.shared.issued.load(Ordering::Relaxed) / OPS_A_WINDOW + 1;
        for key in 0..windows * KEYS_AT_ONCE {
            eventually(super::PATIENCE, || self.shared.final_read(key)).await;
        }
        let history = self.shared.recorder.history();
        assert!(self.shared.acknowledged.load(Ordering::Relaxed) > 0, "no write ever succeeded");
        check(&history, DEFAULT_STEPS).expect_ok();
        history
    }
}

impl Shared {
    async fn client(self: Arc<Self>, id: u32, mut rng: Rng) {
        let mut last_seen = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let turn = self.issued.fetch_add(1, Ordering::Relaxed);
            let key = turn / OPS_A_WINDOW * KEYS_AT_ONCE + rng.next() % KEYS_AT_ONCE;
            // Written once: the turn is unique.
            let action = match rng.below(10) {
                0..4 => Action::Get,
                4..7 => Action::put(turn),
                7 => Action::Put { value: turn, when: Some(Condition::Revision(last_seen)) },
                8 => Action::Put { value: turn, when: Some(Condition::Absent) },
                _ => Action::delete(),
            };
            let node = rng.below(self.cluster.len());
            if let Outcome::Read(Some(Seen { revision: Some(at), .. })) =
                self.call(id, node, &key_name(key), action).await
            {
                last_seen = at;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn call(&self, client: u32, node: usize, key: &str, action: Action) -> Outcome {
        let op = self.recorder.begin(client, key, action);
        let reply = self.cluster.send(node, request(key, action)).await;
        let outcome = outcome(action, &reply);
        let told = match &reply {
            Ok(reply) => format!("{}, {}", self.cluster.name(node), reply.status.as_u16()),
            Err(e) => format!("{}, {e}", self.cluster.name(node)),
        };
        if action.is_write() && matches!(outcome, Outcome::Done { .. }) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.recorder.end(op, outcome, told);
        outcome
    }

    async fn final_read(&self, key: u64) -> Result<(), String> {
        let node = (0..self.cluster.len()).find(|i| self.cluster.runs(*i)).ok_or("no node runs")?;
        match self.call(u32::MAX, node, &key_name(key), Action::Get).await {
            Outcome::Read(_) => Ok(()),
            other => Err(format!("the last read of key {key}: {other:?}")),
        }
    }
}

fn key_name(key: u64) -> String {
    format!("register-{key}")
}

fn request(key: &str, action: Action) -> Request {
    let call = Call::new(key, action, DEADLINE);
    let request = Request::new(call.method, call.target).body(call.body);
    match call.header {
        Some((name, value)) => request.header(name, value),
        None => request,
    }
}

fn outcome(action: Action, reply: &Result<Reply, Failure>) -> Outcome {
    match reply {
        Ok(reply) => {
            let body = serde_json::from_slice(&reply.body).unwrap_or_default();
            bellwether_check::outcome(action, reply.status.as_u16(), reply.etag(), &body)
                .unwrap_or_else(|why| panic!("{why}"))
        }
        Err(Failure::NotSent(_)) => Outcome::NotApplied,
        Err(Failure::NoAnswer(_)) => Outcome::Unknown,
    }
}
