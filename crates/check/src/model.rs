//! One key as the client sees it: the sequential specification that the search replays.
//!
//! A write that was never answered has a revision nobody knows, so a state may hold a
//! value without one; a condition on it may then hold or fail, and both are allowed.

use crate::history::{Action, Condition, Outcome, Revision, Seen};

/// What the key holds between two operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub value: Option<Held>,
    /// The highest revision any write of this key is known to have had: the next write's
    /// is higher.
    pub floor: Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub value: u64,
    pub revision: Option<Revision>,
}

/// An operation ready to be placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub action: Action,
    pub outcome: Outcome,
    /// The revision a write had, from its own reply or from a read of its value.
    pub revision: Option<Revision>,
}

impl State {
    /// The state after `step`, if its outcome is possible here. An unknown write is
    /// only ever asked to take effect: that it never does is the search's other choice.
    pub fn after(&self, step: &Step) -> Option<State> {
        match (step.action, step.outcome) {
            (Action::Get, Outcome::Read(seen)) => self.read(seen),
            (Action::Put { value, when }, Outcome::Done { .. } | Outcome::Unknown) => {
                let held = Held { value, revision: step.revision };
                self.may_hold(when).then(|| self.write(Some(held), step.revision)).flatten()
            }
            (Action::Delete { when }, Outcome::Done { .. } | Outcome::Unknown) => {
                let possible = self.value.is_some() && self.may_hold(when);
                possible.then(|| self.write(None, step.revision)).flatten()
            }
            (Action::Delete { .. }, Outcome::NotFound) => self.value.is_none().then_some(*self),
            (
                Action::Put { when: Some(when), .. } | Action::Delete { when: Some(when) },
                Outcome::PreconditionFailed,
            ) => self.may_fail(when).then_some(*self),
            _ => None,
        }
    }

    fn read(&self, seen: Option<Seen>) -> Option<State> {
        match (self.value, seen) {
            (None, None) => Some(*self),
            (Some(held), Some(seen)) if held.value == seen.value => {
                match (held.revision, seen.revision) {
                    (Some(held), Some(seen)) => (held == seen).then_some(*self),
                    (_, None) => Some(*self),
                    // The read tells what the write's own reply did not.
                    (None, Some(at)) => {
                        let held = Held { revision: Some(at), ..held };
                        self.write(Some(held), Some(at))
                    }
                }
            }
            _ => None,
        }
    }

    fn write(&self, value: Option<Held>, revision: Option<Revision>) -> Option<State> {
        match revision {
            Some(at) if at <= self.floor => None,
            Some(at) => Some(State { value, floor: at }),
            None => Some(State { value, floor: self.floor }),
        }
    }

    fn may_hold(&self, when: Option<Condition>) -> bool {
        match (when, self.value) {
            (None, _) | (Some(Condition::Exists), Some(_)) | (Some(Condition::Absent), None) => true,
            (Some(Condition::Revision(at)), Some(held)) => held.revision.is_none_or(|held| held == at),
            _ => false,
        }
    }

    fn may_fail(&self, when: Condition) -> bool {
        match (when, self.value) {
            (Condition::Exists | Condition::Revision(_), None) | (Condition::Absent, Some(_)) => true,
            (Condition::Revision(at), Some(held)) => held.revision != Some(at),
            _ => false,
        }
    }
}
