//! What reads that are not linearizable may show.
//!
//! The checker in `crates/check` judges linearizable histories. All other reads promise
//! less, and that is judged here, from what replies told about revisions:
//!
//! - A change is a fact: its revision, its key and its value are the same on every node,
//!   whoever tells them.
//! - A read that must have seen revision N shows the key as of N or later. N is what the
//!   client asked for with `min_revision`, or what this node had shown before the read
//!   began: local reads on one node never go back, not even over a restart.
//! - A read at a revision, and a listing, show exactly the state at that revision.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// What a read found: value and revision of the key's last change; `None`: no such key.
pub type Found = Option<(u64, u64)>;

/// Broken promises of a kind that are told; one is enough to fail.
const MAX_TOLD: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: String,
    /// `None`: deleted.
    value: Option<u64>,
}

struct Claim {
    key: String,
    found: Found,
    /// All changes of the key up to this revision were to be seen.
    at_least: u64,
    /// And none after it.
    exact: bool,
    told_by: String,
}

#[derive(Default)]
struct Known {
    changes: BTreeMap<u64, Change>,
    /// Keys with a delete whose revision nobody knows.
    perhaps_deleted: BTreeSet<String>,
    claims: Vec<Claim>,
    contradictions: Vec<String>,
}

pub struct Facts {
    known: RefCell<Known>,
    /// The highest revision that each node's store is known to have reached.
    shown: RefCell<Vec<u64>>,
}

impl Facts {
    pub fn new(nodes: usize) -> Self {
        Self { known: RefCell::default(), shown: RefCell::new(vec![0; nodes]) }
    }

    /// The highest revision that anybody told.
    pub fn newest(&self) -> u64 {
        self.known.borrow().changes.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// How far the node's store has come, as far as it was told.
    pub fn shown_by(&self, node: usize) -> u64 {
        self.shown.borrow()[node]
    }

    /// A reply of the node said that its store is at `revision`.
    pub fn note_shown(&self, node: usize, revision: u64) {
        let shown = &mut self.shown.borrow_mut()[node];
        *shown = revision.max(*shown);
    }

    /// Somebody told that `key` was changed at `revision`.
    pub fn note_change(&self, revision: u64, key: &str, value: Option<u64>) {
        let change = Change { key: key.to_owned(), value };
        let known = &mut *self.known.borrow_mut();
        let first = known.changes.entry(revision).or_insert_with(|| change.clone());
        if *first != change {
            known.contradictions.push(format!("revision {revision} is {first:?} and {change:?}"));
        }
    }

    /// A delete of `key` may have taken effect at a revision that nobody told.
    pub fn note_perhaps_deleted(&self, key: &str) {
        self.known.borrow_mut().perhaps_deleted.insert(key.to_owned());
    }

    /// A read that must have seen everything up to `at_least`.
    pub fn saw_at_least(&self, at_least: u64, key: &str, found: Found, told_by: String) {
        self.claim(Claim { key: key.to_owned(), found, at_least, exact: false, told_by });
    }

    /// A read of the state at exactly that revision.
    pub fn saw_at(&self, revision: u64, key: &str, found: Found, told_by: String) {
        self.claim(Claim { key: key.to_owned(), found, at_least: revision, exact: true, told_by });
    }

    fn claim(&self, claim: Claim) {
        if let Some((value, revision)) = claim.found {
            self.note_change(revision, &claim.key, Some(value));
        }
        self.known.borrow_mut().claims.push(claim);
    }

    /// The promises that were broken, in words.
    pub fn verdict(&self) -> Vec<String> {
        let known = self.known.borrow();
        let broken = known.claims.iter().filter_map(|claim| known.broken(claim));
        known.contradictions.iter().take(MAX_TOLD).cloned().chain(broken.take(MAX_TOLD)).collect()
    }
}

impl Known {
    fn broken(&self, claim: &Claim) -> Option<String> {
        let Claim { key, found, at_least, exact, told_by } = claim;
        let last = self.changes.range(..=at_least).rev().find(|(_, change)| change.key == *key);
        let said = || format!("{key}, {told_by}, showed {found:?}");
        match (found, last) {
            (Some((_, revision)), _) if *exact && revision > at_least => {
                Some(format!("{} although revision {at_least} was asked for", said()))
            }
            (Some((_, revision)), Some((newer, _))) if newer > revision => Some(format!(
                "{} although the key was changed at {newer}, and {at_least} was reached",
                said()
            )),
            (None, Some((at, Change { value: Some(_), .. })))
                if (*exact || !self.deleted_after(key, *at)) && !self.perhaps_deleted.contains(key) =>
            {
                Some(format!("{} although the key was written at {at}, and {at_least} was reached", said()))
            }
            _ => None,
        }
    }

    fn deleted_after(&self, key: &str, revision: u64) -> bool {
        self.changes.range(revision..).any(|(_, change)| change.key == key && change.value.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let facts = Facts::new(1);
        facts.note_change(2, "a", Some(10));
        facts.note_change(3, "b", Some(11));
        facts.note_change(4, "a", Some(12));
        facts.note_change(6, "a", None);
        facts
    }

    #[track_caller]
    fn judged(claim: impl FnOnce(&Facts), passes: bool) {
        let facts = facts();
        claim(&facts);
        assert_eq!(facts.verdict().is_empty(), passes, "{:?}", facts.verdict());
    }

    fn at_least(revision: u64, found: Found) -> impl FnOnce(&Facts) {
        move |facts| facts.saw_at_least(revision, "a", found, "a test".to_owned())
    }

    fn exactly(revision: u64, found: Found) -> impl FnOnce(&Facts) {
        move |facts| facts.saw_at(revision, "a", found, "a test".to_owned())
    }

    #[test]
    fn a_read_shows_what_was_reached_or_later() {
        judged(at_least(3, Some((10, 2))), true);
        judged(at_least(3, Some((12, 4))), true);
        judged(at_least(4, Some((10, 2))), false);
        judged(at_least(4, None), true);
        judged(at_least(6, Some((12, 4))), false);
    }

    #[test]
    fn a_read_at_a_revision_shows_exactly_that() {
        judged(exactly(3, Some((10, 2))), true);
        judged(exactly(3, Some((12, 4))), false);
        judged(exactly(5, Some((10, 2))), false);
        judged(exactly(5, None), false);
        judged(exactly(6, None), true);
        judged(exactly(1, None), true);
    }

    #[test]
    fn a_revision_is_one_change() {
        judged(|facts| facts.note_change(3, "b", Some(11)), true);
        judged(|facts| facts.note_change(3, "b", Some(12)), false);
        judged(|facts| facts.note_change(6, "a", Some(1)), false);
    }

    #[test]
    fn a_delete_that_nobody_answered_explains_an_absence() {
        judged(|facts| facts.saw_at_least(3, "b", None, String::new()), false);
        judged(
            |facts| {
                facts.note_perhaps_deleted("b");
                facts.saw_at_least(3, "b", None, String::new());
            },
            true,
        );
    }
}
