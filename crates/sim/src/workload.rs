//! Clients that read, write, delete and compare through the HTTP API, and record what
//! they were told for the checker.
//!
//! Every client talks to random nodes and lets them forward. Keys are used up one after another, so
//! that no key's history grows beyond what the checker decides at once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bellwether_check::{Action, Call, Condition, Outcome, Recorder, Seen};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::authority;
use crate::http::{Failure, Reply, Request};
use crate::plan::NODES;
use crate::trace;

/// Keys in use at one time: few, so that clients meet.
const KEYS_AT_ONCE: u64 = 4;
/// Operations after which the next keys are taken.
const OPS_A_WINDOW: u64 = KEYS_AT_ONCE * 100;
/// Between two operations of one client, at most.
const MAX_PAUSE_MS: u64 = 60;
/// The server's own deadline ...
const DEADLINE: &str = "1500ms";
/// ... and the client's, which leaves it the time to say so.
const TIMEOUT: Duration = Duration::from_millis(2500);
/// Keeps the clients' draws apart from all others made from the same seed.
const CLIENT_SALT: u64 = 0xc11e_4700;
/// Who reads in the end, in the recorded history.
const LAST_READER: u32 = 1000;

/// What all clients of a history share.
#[derive(Default)]
pub struct Workload {
    pub recorder: Recorder,
    stopped: Cell<bool>,
    issued: Cell<u64>,
    acknowledged: Cell<u64>,
}

impl Workload {
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    pub fn issued(&self) -> u64 {
        self.issued.get()
    }

    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// One client, until [`Workload::stop`].
    pub async fn client(self: Rc<Self>, seed: u64, id: u32) {
        let mut rng = SmallRng::seed_from_u64(seed ^ CLIENT_SALT ^ u64::from(id) << 32);
        let mut last_seen = 0;
        while !self.is_stopped() {
            let turn = self.issued.get();
            self.issued.set(turn + 1);
            let key = turn / OPS_A_WINDOW * KEYS_AT_ONCE + rng.random_range(0..KEYS_AT_ONCE);
            let action = random_action(&mut rng, turn, last_seen);
            let node = rng.random_range(0..NODES);
            let outcome = self.call(id, node, key, action).await;
            if let Outcome::Read(Some(Seen { revision: Some(at), .. })) = outcome {
                last_seen = at;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..MAX_PAUSE_MS))).await;
        }
    }

    /// A linearizable read of every key through `node`; an error names the key that
    /// could not be read.
    pub async fn read_everything(&self, node: usize) -> Result<(), String> {
        let windows = self.issued.get() / OPS_A_WINDOW + 1;
        for key in 0..windows * KEYS_AT_ONCE {
            let outcome = self.call(LAST_READER, node, key, Action::Get).await;
            if !matches!(outcome, Outcome::Read(_)) {
                return Err(format!("the last read of key {key} through node {node}: {outcome:?}"));
            }
        }
        Ok(())
    }

    async fn call(&self, client: u32, node: usize, key: u64, action: Action) -> Outcome {
        let key = format!("register-{key}");
        let op = self.recorder.begin(client, &key, action);
        let reply = request(&key, action).send(&authority(node), TIMEOUT).await;
        let outcome = outcome(action, &reply);
        let told = match &reply {
            Ok(reply) => format!("n{}, {}", node + 1, reply.status),
            Err(Failure::NotSent(why) | Failure::NoAnswer(why)) => format!("n{}, {why}", node + 1),
        };
        trace::event(|| format!("{key} {action:?} -> {outcome:?} ({told})"));
        if action.is_write() && matches!(outcome, Outcome::Done { .. }) {
            self.acknowledged.set(self.acknowledged.get() + 1);
        }
        self.recorder.end(op, outcome, told);
        outcome
    }
}

/// `turn` is unique, so every value is written once.
fn random_action(rng: &mut SmallRng, turn: u64, last_seen: u64) -> Action {
    match rng.random_range(0..10) {
        0..4 => Action::Get,
        4..7 => Action::put(turn),
        7 => Action::Put { value: turn, when: Some(Condition::Revision(last_seen)) },
        8 => Action::Put { value: turn, when: Some(Condition::Absent) },
        _ => Action::delete(),
    }
}

fn request(key: &str, action: Action) -> Request {
    let Call { method, target, header, body } = Call::new(key, action, DEADLINE);
    Request { method, target, header, body }
}

/// An answer that a client of this API should not have to understand ends the history.
fn outcome(action: Action, reply: &Result<Reply, Failure>) -> Outcome {
    match reply {
        Ok(reply) => bellwether_check::outcome(action, reply.status, reply.etag(), &reply.json())
            .unwrap_or_else(|why| panic!("{why}")),
        Err(Failure::NotSent(_)) => Outcome::NotApplied,
        Err(Failure::NoAnswer(_)) => Outcome::Unknown,
    }
}
