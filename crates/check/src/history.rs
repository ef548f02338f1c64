//! What a history is made of, and the recorder that numbers its moments.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A moment: any clock that never goes back. [`Recorder`] counts 1, 2, 3 ..., which is
/// exact; equal moments are taken as "at the same time", so neither came first.
pub type Time = u64;
/// Names a value. Tests write each value once.
pub type ValueId = u64;
/// The store's version, as the server reports it.
pub type Revision = u64;

/// What a write demands of the key before it takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `If-Match`: the key was last modified at this revision.
    Revision(Revision),
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match: *`.
    Exists,
}

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Get,
    Put { value: ValueId, when: Option<Condition> },
    Delete { when: Option<Condition> },
}

impl Action {
    pub fn put(value: ValueId) -> Self {
        Action::Put { value, when: None }
    }

    pub fn delete() -> Self {
        Action::Delete { when: None }
    }

    pub fn is_write(self) -> bool {
        self != Action::Get
    }
}

/// A value as a read returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub value: ValueId,
    /// The key's modification revision, when the reply told it.
    pub revision: Option<Revision>,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write was acknowledged; with its revision when the reply told it.
    Done { revision: Option<Revision> },
    /// A delete found no such key.
    NotFound,
    /// A read was answered; `None`: there is no such key.
    Read(Option<Seen>),
    /// A write was refused because its condition did not hold.
    PreconditionFailed,
    /// The server says that nothing was changed (or read): it must stay without effect.
    NotApplied,
    /// Nobody knows: the write takes effect later, or did, or never will.
    Unknown,
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: u32,
    pub key: String,
    pub action: Action,
    pub outcome: Outcome,
    pub invoked_at: Time,
    /// `None`: no answer ever came; the outcome is then unknown, whatever it says.
    pub completed_at: Option<Time>,
    /// For people: the node that was asked, the status code.
    pub note: String,
}

impl Op {
    /// The outcome, with a call that never ended taken as unknown.
    pub(crate) fn settled(&self) -> Outcome {
        if self.completed_at.is_some() { self.outcome } else { Outcome::Unknown }
    }

    /// The revision this write is known to have made.
    pub(crate) fn written_at(&self) -> Option<Revision> {
        match self.settled() {
            Outcome::Done { revision } => revision,
            _ => None,
        }
    }

    /// The latest moment at which the call can have taken effect.
    pub(crate) fn ends(&self) -> Time {
        match self.settled() {
            Outcome::Unknown => Time::MAX,
            _ => self.completed_at.unwrap_or(Time::MAX),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.completed_at.map_or_else(|| "...".to_owned(), |at| at.to_string());
        write!(f, "[{:>6} {:>6}] client {:<2} ", self.invoked_at, end, self.client)?;
        match self.action {
            Action::Get => write!(f, "get")?,
            Action::Put { value, .. } => write!(f, "put {value}")?,
            Action::Delete { .. } => write!(f, "delete")?,
        }
        if let Action::Put { when: Some(when), .. } | Action::Delete { when: Some(when) } = self.action {
            match when {
                Condition::Revision(at) => write!(f, " if at revision {at}")?,
                Condition::Absent => write!(f, " if absent")?,
                Condition::Exists => write!(f, " if it exists")?,
            }
        }
        match self.settled() {
            Outcome::Done { revision: Some(at) } => write!(f, " -> done, revision {at}")?,
            Outcome::Done { revision: None } => write!(f, " -> done")?,
            Outcome::NotFound | Outcome::Read(None) => write!(f, " -> no such key")?,
            Outcome::Read(Some(Seen { value, revision: Some(at) })) => {
                write!(f, " -> {value}, revision {at}")?
            }
            Outcome::Read(Some(Seen { value, .. })) => write!(f, " -> {value}")?,
            Outcome::PreconditionFailed => write!(f, " -> precondition failed")?,
            Outcome::NotApplied => write!(f, " -> not applied")?,
            Outcome::Unknown => write!(f, " -> unknown")?,
        }
        if self.note.is_empty() { Ok(()) } else { write!(f, "  ({})", self.note) }
    }
}

/// A call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId(usize);

/// Collects a history from concurrent clients of one process.
#[derive(Debug, Default)]
pub struct Recorder {
    state: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    now: Time,
    ops: Vec<Op>,
}

impl Recorder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Call this before the first byte is sent.
    pub fn begin(&self, client: u32, key: &str, action: Action) -> OpId {
        let mut state = self.lock();
        state.now += 1;
        let op = Op {
            client,
            key: key.to_owned(),
            action,
            outcome: Outcome::Unknown,
            invoked_at: state.now,
            completed_at: None,
            note: String::new(),
        };
        state.ops.push(op);
        OpId(state.ops.len() - 1)
    }

    /// Call this when the whole answer is there.
    pub fn end(&self, id: OpId, outcome: Outcome, note: impl Into<String>) {
        let mut state = self.lock();
        state.now += 1;
        let now = state.now;
        let op = &mut state.ops[id.0];
        op.outcome = outcome;
        op.completed_at = Some(now);
        op.note = note.into();
    }

    /// Everything so far; calls still under way are unknown.
    pub fn history(&self) -> Vec<Op> {
        self.lock().ops.clone()
    }

    /// A client that panicked while it recorded leaves a usable history behind.
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
