//! Clients that read, write, delete and compare through the HTTP API, and record what
//! they were told: linearizable reads and all writes for the checker, reads that promise
//! less for [`Facts`].
//!
//! Every client talks to random nodes and lets them forward. Keys are used up one after
//! another, so that no key's history grows beyond what the checker decides at once.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bellwether_check::{Action, Call, Condition, Outcome, Recorder, Seen};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::{authority, host};
use crate::facts::{Facts, Found};
use crate::http::{Failure, Reply, Request};
use crate::plan::Plan;
use crate::trace;

/// Keys in use at one time: few, so that clients meet.
const KEYS_AT_ONCE: u64 = 4;
/// Operations after which the next keys are taken.
const OPS_A_WINDOW: u64 = KEYS_AT_ONCE * 100;
/// Between two operations of one client, at most.
const MAX_PAUSE_MS: u64 = 60;
/// The client's own deadline, which leaves the server the time to say what became of a call.
const TIMEOUT: Duration = Duration::from_millis(2500);
/// For `ack=all`, which waits for whoever is away.
const ALL_DEADLINE: &str = "300ms";
/// Keeps the clients' draws apart from all others made from the same seed.
const CLIENT_SALT: u64 = 0xc11e_4700;
/// Who reads in the end, in the recorded history.
const LAST_READER: u32 = 1000;

/// One thing that a client does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reads linearizably or writes; the text goes to the query.
    Call(Action, Ack),
    Look(Look),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ack {
    Quorum,
    /// It may be lost when it is acknowledged, so the history calls it unknown.
    Leader,
    All,
}

/// A read that promises less than linearizability.
#[derive(Clone, Copy, Debug)]
enum Look {
    Local,
    /// Nothing older than the newest revision that anybody told.
    MinRevision,
    /// The key as of a revision.
    Old(u64),
    /// All keys in use.
    List,
}

/// What all clients of a history share.
pub struct Workload {
    pub recorder: Recorder,
    pub facts: Facts,
    nodes: usize,
    /// What clients tell servers to wait at most, as it stands in a query.
    deadline: String,
    stopped: Cell<bool>,
    issued: Cell<u64>,
    /// When writes were acknowledged, in simulated time.
    acknowledged: RefCell<Vec<Duration>>,
}

impl Workload {
    pub fn new(plan: &Plan) -> Self {
        let nodes = plan.nodes();
        Self {
            recorder: Recorder::default(),
            facts: Facts::new(nodes),
            nodes,
            deadline: format!("{}ms", plan.deadline.as_millis()),
            stopped: Cell::default(),
            issued: Cell::default(),
            acknowledged: RefCell::default(),
        }
    }

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
        self.acknowledged.borrow().len() as u64
    }

    pub fn acknowledged_within(&self, span: Range<Duration>) -> bool {
        self.acknowledged.borrow().iter().any(|at| span.contains(at))
    }

    /// A number that is used once: for what a client does next, and as the value it writes.
    fn turn(&self) -> u64 {
        let turn = self.issued.get();
        self.issued.set(turn + 1);
        turn
    }

    /// One client, until [`Workload::stop`].
    pub async fn client(self: Rc<Self>, seed: u64, id: u32) {
        let mut rng = SmallRng::seed_from_u64(seed ^ CLIENT_SALT ^ u64::from(id) << 32);
        let mut last_seen = 0;
        while !self.is_stopped() {
            let turn = self.turn();
            let key = turn / OPS_A_WINDOW * KEYS_AT_ONCE + rng.random_range(0..KEYS_AT_ONCE);
            let node = rng.random_range(0..self.nodes);
            match random_step(&mut rng, turn, last_seen, self.facts.newest()) {
                Step::Look(look) => self.look(node, key, look).await,
                Step::Call(action, ack) => {
                    let outcome = self.call(id, node, key, action, ack).await;
                    if let Outcome::Read(Some(Seen { revision: Some(at), .. })) = outcome {
                        last_seen = at;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..MAX_PAUSE_MS))).await;
        }
    }

    /// A linearizable read of every key through `node`; an error names the key that
    /// could not be read.
    pub async fn read_everything(&self, node: usize) -> Result<(), String> {
        let windows = self.issued.get() / OPS_A_WINDOW + 1;
        for key in 0..windows * KEYS_AT_ONCE {
            let outcome = self.call(LAST_READER, node, key, Action::Get, Ack::Quorum).await;
            if !matches!(outcome, Outcome::Read(_)) {
                return Err(format!("the last read of key {key} through {}: {outcome:?}", host(node)));
            }
        }
        Ok(())
    }

    /// A write through `node`, which must be acknowledged.
    pub async fn write_afresh(&self, node: usize) -> Result<(), String> {
        let turn = self.turn();
        let key = turn / OPS_A_WINDOW * KEYS_AT_ONCE;
        match self.call(LAST_READER, node, key, Action::put(turn), Ack::Quorum).await {
            Outcome::Done { .. } => Ok(()),
            other => Err(format!("the last write through {}: {other:?}", host(node))),
        }
    }

    async fn call(&self, client: u32, node: usize, key: u64, action: Action, ack: Ack) -> Outcome {
        let key = name(key);
        let op = self.recorder.begin(client, &key, action);
        let reply = self.request(&key, action, ack).send(&authority(node), TIMEOUT).await;
        let told = outcome(action, &reply);
        let note = note(node, &reply);
        trace::event(|| format!("{key} {action:?} {ack:?} -> {told:?} ({note})"));
        if action.is_write() && matches!(told, Outcome::Done { .. }) {
            self.acknowledged.borrow_mut().push(turmoil::sim_elapsed().unwrap_or_default());
        }
        self.learn(node, &key, action, told, &reply);
        let told =
            if ack == Ack::Leader && matches!(told, Outcome::Done { .. }) { Outcome::Unknown } else { told };
        self.recorder.end(op, told, note);
        told
    }

    fn request(&self, key: &str, action: Action, ack: Ack) -> Request {
        let deadline = if ack == Ack::All { ALL_DEADLINE } else { &self.deadline };
        let Call { method, mut target, header, body } = Call::new(key, action, deadline);
        match ack {
            Ack::Quorum => {}
            Ack::Leader => target.push_str("&ack=leader"),
            Ack::All => target.push_str("&ack=all"),
        }
        Request { method, target, header, body }
    }

    /// What a call tells about changes, beside what the checker makes of it.
    fn learn(&self, node: usize, key: &str, action: Action, told: Outcome, reply: &Result<Reply, Failure>) {
        match (action, told) {
            (Action::Put { value, .. }, Outcome::Done { revision: Some(at) }) => {
                self.facts.note_change(at, key, Some(value));
            }
            (Action::Delete { .. }, Outcome::Done { revision: Some(at) }) => {
                self.facts.note_change(at, key, None)
            }
            (Action::Delete { .. }, Outcome::Unknown) => self.facts.note_perhaps_deleted(key),
            (Action::Get, Outcome::Read(seen)) => {
                if let Some(Seen { value, revision: Some(at) }) = seen {
                    self.facts.note_change(at, key, Some(value));
                }
                if let Some(at) = reply.as_ref().ok().and_then(Reply::store_revision) {
                    self.facts.note_shown(node, at);
                }
            }
            _ => {}
        }
    }

    async fn look(&self, node: usize, key: u64, look: Look) {
        let key = name(key);
        let shown_before = self.facts.shown_by(node);
        let newest = self.facts.newest();
        let deadline = &self.deadline;
        let path = match look {
            Look::Local => format!("/key/{key}?timeout={deadline}"),
            Look::MinRevision => format!("/key/{key}?min_revision={newest}&timeout={deadline}"),
            Look::Old(revision) => format!("/key/{key}?revision={revision}&timeout={deadline}"),
            Look::List => format!("/v1/keys?prefix=register-&limit=1000&timeout={deadline}"),
        };
        let reply = Request::get(path).send(&authority(node), TIMEOUT).await;
        let told_by = format!("{look:?} ({})", note(node, &reply));
        trace::event(|| format!("{key} {told_by}"));
        let Ok(reply) = reply else { return };
        if let Some(at) = reply.store_revision().filter(|_| reply.status == 200) {
            self.facts.note_shown(node, at);
        }
        match look {
            Look::List if reply.status == 200 => self.learn_list(&reply, shown_before, &told_by),
            Look::List => {}
            Look::Local => self.learn_read(&reply, &key, |facts, found| {
                facts.saw_at_least(shown_before, &key, found, told_by);
            }),
            Look::MinRevision => self.learn_read(&reply, &key, |facts, found| {
                facts.saw_at_least(shown_before.max(newest), &key, found, told_by);
            }),
            Look::Old(revision) => self.learn_read(&reply, &key, |facts, found| {
                facts.saw_at(revision, &key, found, told_by);
            }),
        }
    }

    fn learn_read(&self, reply: &Reply, key: &str, learn: impl FnOnce(&Facts, Found)) {
        let body = reply.json();
        match (reply.status, body["value"].as_u64(), reply.etag()) {
            (200, Some(value), Some(revision)) => learn(&self.facts, Some((value, revision))),
            (404, ..) => learn(&self.facts, None),
            // Not there yet, or no leader was heard: an answer, too.
            (400 | 503 | 504, ..) => {}
            _ => panic!("an unexpected answer to a read of {key}: {} {body}", reply.status),
        }
    }

    fn learn_list(&self, reply: &Reply, shown_before: u64, told_by: &str) {
        let body = reply.json();
        let revision = body["revision"].as_u64().expect("a listing says its revision");
        let rows = body["keys"].as_array().expect("a listing has rows");
        let find = |key: &str| rows.iter().find(|row| row["key"] == *key);
        // Earlier keys change no more, and a listing need not be judged by them again.
        let window = self.issued.get() / OPS_A_WINDOW;
        for key in window * KEYS_AT_ONCE..(window + 1) * KEYS_AT_ONCE {
            let key = name(key);
            let found = find(&key).and_then(|row| Some((row["value"].as_u64()?, row["revision"].as_u64()?)));
            self.facts.saw_at(revision, &key, found, told_by.to_owned());
            self.facts.saw_at_least(shown_before, &key, found, told_by.to_owned());
        }
    }
}

fn name(key: u64) -> String {
    format!("register-{key}")
}

fn note(node: usize, reply: &Result<Reply, Failure>) -> String {
    match reply {
        Ok(reply) => format!("{}, {}", host(node), reply.status),
        Err(Failure::NotSent(why) | Failure::NoAnswer(why)) => format!("{}, {why}", host(node)),
    }
}

/// `turn` is unique, so every value is written once.
fn random_step(rng: &mut SmallRng, turn: u64, last_seen: u64, newest: u64) -> Step {
    let put = |when| Action::Put { value: turn, when };
    let quorum = |action| Step::Call(action, Ack::Quorum);
    match rng.random_range(0..100) {
        0..32 => quorum(Action::Get),
        32..42 => Step::Look(Look::Local),
        42..45 => Step::Look(Look::MinRevision),
        45..48 if newest > 0 => Step::Look(Look::Old(rng.random_range(1..=newest))),
        45..52 => Step::Look(Look::List),
        52..72 => quorum(put(None)),
        72..75 => Step::Call(put(None), Ack::Leader),
        75..78 => Step::Call(put(None), Ack::All),
        78..85 => quorum(put(Some(Condition::Revision(last_seen)))),
        85..92 => quorum(put(Some(Condition::Absent))),
        _ => quorum(Action::delete()),
    }
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
