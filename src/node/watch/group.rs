//! Watchers of one subject, and the events that not all of them have taken yet.
//!
//! The events are there once, however many watch; a watcher is a place in them. What the
//! window has no room for is forgotten from the front: a watcher whose place is at or
//! before the `floor` must read the store.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::event::Encoded;
use super::subject::Subject;
use crate::types::Revision;

pub struct Group {
    pub subject: Subject,
    /// By their numbers.
    pub watchers: BTreeSet<usize>,
    /// Watchers that have something to take: here or, if they are slow, from the store.
    pub behind: usize,
    /// All events of this subject above this revision, up to the hub's, are in `events`.
    pub floor: Revision,
    events: VecDeque<Encoded>,
    bytes: usize,
}

impl Group {
    pub fn new(subject: Subject, floor: Revision) -> Self {
        let (watchers, events) = (BTreeSet::new(), VecDeque::new());
        Self { subject, watchers, behind: 0, floor, events, bytes: 0 }
    }

    /// What its events hold in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, event: Encoded) {
        self.bytes += event.cost();
        self.events.push_back(event);
    }

    /// Forgets the events up to and with a revision.
    pub fn forget(&mut self, upto: Revision) {
        while self.events.front().is_some_and(|event| event.revision <= upto) {
            self.bytes -= self.events.pop_front().map_or(0, |event| event.cost());
        }
        self.floor = self.floor.max(upto);
        if self.events.is_empty() {
            // The room of a burst is not kept for ever.
            self.events = VecDeque::new();
        }
    }

    /// The events from revision `from` on, whole revisions, until they pass `most` bytes;
    /// and the revision at which they were cut, if they were.
    pub fn take(&self, from: Revision, most: usize) -> (Vec<Bytes>, Option<Revision>) {
        let start = self.events.partition_point(|event| event.revision < from);
        let (mut taken, mut bytes, mut last) = (Vec::new(), 0, None);
        for event in self.events.range(start..) {
            if bytes >= most && last != Some(event.revision) {
                return (taken, last);
            }
            bytes += event.bytes.len();
            last = Some(event.revision);
            taken.push(event.bytes.clone());
        }
        (taken, None)
    }
}
