//! What is watched, and by whom, found by key.
//!
//! Single keys are found by hash, ranges in an interval tree, so a change costs what its
//! own watchers cost, however many watch other keys.

use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use interavl::IntervalTree;

use crate::storage::mvcc::{Change, KeyRange};

/// What a watcher wants to see. Watchers that want the same share one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    pub range: KeyRange,
    pub puts: bool,
    pub deletes: bool,
    /// With each event, what it replaced.
    pub previous: bool,
}

impl Subject {
    pub fn wants(&self, change: &Change) -> bool {
        self.admits(change) && self.range.contains(change.key())
    }

    /// Whether the filters let it through.
    fn admits(&self, change: &Change) -> bool {
        match change {
            Change::Put(_) => self.puts,
            Change::Delete { .. } => self.deletes,
        }
    }

    pub fn bytes(&self) -> usize {
        match &self.range {
            KeyRange::One(key) | KeyRange::From(key) => key.len(),
            KeyRange::Between(start, end) => start.len() + end.len(),
        }
    }
}

/// A place between keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// Right before this key or (true) right after it.
    At(Bytes, bool),
    End,
}

impl Edge {
    fn around(key: &Bytes) -> Range<Self> {
        Edge::At(key.clone(), false)..Edge::At(key.clone(), true)
    }
}

/// Groups, by number, and the subject of each.
#[derive(Default)]
pub struct Subjects {
    groups: HashMap<Subject, usize>,
    exact: HashMap<Bytes, Vec<usize>>,
    ranges: IntervalTree<Edge, Vec<usize>>,
    /// How many want to see what was replaced.
    with_previous: usize,
}

impl Subjects {
    pub fn group(&self, subject: &Subject) -> Option<usize> {
        self.groups.get(subject).copied()
    }

    pub fn any_with_previous(&self) -> bool {
        self.with_previous > 0
    }

    pub fn insert(&mut self, subject: &Subject, group: usize) {
        self.groups.insert(subject.clone(), group);
        self.with_previous += usize::from(subject.previous);
        match edges(&subject.range) {
            Err(key) => self.exact.entry(key.clone()).or_default().push(group),
            Ok(range) => match self.ranges.get_mut(&range) {
                Some(groups) => groups.push(group),
                None => drop(self.ranges.insert(range, vec![group])),
            },
        }
    }

    pub fn remove(&mut self, subject: &Subject) {
        let Some(group) = self.groups.remove(subject) else { return };
        self.with_previous -= usize::from(subject.previous);
        match edges(&subject.range) {
            Err(key) => {
                if let Some(groups) = self.exact.get_mut(key) {
                    groups.retain(|other| *other != group);
                    if groups.is_empty() {
                        self.exact.remove(key);
                    }
                }
            }
            Ok(range) => {
                if let Some(groups) = self.ranges.get_mut(&range) {
                    groups.retain(|other| *other != group);
                    if groups.is_empty() {
                        self.ranges.remove(&range);
                    }
                }
            }
        }
    }

    /// Adds the groups whose range has this key to `found`, always in the same order.
    pub fn find(&self, key: &Bytes, found: &mut Vec<usize>) {
        found.extend(self.exact.get(key).into_iter().flatten());
        let place = Edge::around(key);
        found.extend(self.ranges.iter_overlaps(&place).flat_map(|(_, groups)| groups));
    }
}

/// Where a range begins and ends, or the one key that it is.
fn edges(range: &KeyRange) -> Result<Range<Edge>, &Bytes> {
    match range {
        KeyRange::One(key) => Err(key),
        KeyRange::Between(start, end) => Ok(Edge::At(start.clone(), false)..Edge::At(end.clone(), false)),
        KeyRange::From(start) => Ok(Edge::At(start.clone(), false)..Edge::End),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Bytes> {
        "[a-c]{1,3}".prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            key().prop_map(KeyRange::One),
            key().prop_map(KeyRange::From),
            (key(), key())
                .prop_filter("not empty", |(a, b)| a < b)
                .prop_map(|(a, b)| KeyRange::Between(a, b)),
        ]
    }

    fn subject() -> impl Strategy<Value = Subject> {
        (range(), any::<bool>()).prop_map(|(range, previous)| Subject {
            range,
            puts: true,
            deletes: true,
            previous,
        })
    }

    proptest! {
        #[test]
        fn exactly_the_groups_of_a_key_are_found(
            subjects in proptest::collection::vec(subject(), 0..40),
            gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
            keys in proptest::collection::vec(key(), 1..10),
        ) {
            let mut all = Subjects::default();
            let mut there: Vec<(usize, Subject)> = Vec::new();
            for (group, subject) in subjects.into_iter().enumerate() {
                if all.group(&subject).is_none() {
                    all.insert(&subject, group);
                    there.push((group, subject));
                }
            }
            for index in gone {
                if !there.is_empty() {
                    let (_, subject) = there.swap_remove(index.index(there.len()));
                    all.remove(&subject);
                }
            }
            for key in keys {
                let mut found = Vec::new();
                all.find(&key, &mut found);
                found.sort_unstable();
                let mut expected: Vec<usize> =
                    there.iter().filter(|(_, s)| s.range.contains(&key)).map(|(group, _)| *group).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(all.any_with_previous(), there.iter().any(|(_, subject)| subject.previous));
        }
    }
}
