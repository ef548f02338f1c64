//! What the store should do, in the plainest way: a list of all changes ever made.

use std::collections::BTreeMap;

use super::*;
use crate::storage::mvcc::types::Change;

#[derive(Clone, Default)]
pub struct Model {
    /// All changes in order, each with its revision.
    pub changes: Vec<(Revision, Change)>,
    pub compacted: Revision,
}

impl Model {
    pub fn revision(&self) -> Revision {
        self.changes.last().map_or(1, |(revision, _)| *revision)
    }

    /// The keys as they were at `at`.
    pub fn state_at(&self, at: Revision) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for (_, change) in self.changes.iter().take_while(|(revision, _)| *revision <= at) {
            match change {
                Change::Put(kv) => drop(state.insert(kv.key.clone(), kv.clone())),
                Change::Delete { key, .. } => drop(state.remove(key)),
            }
        }
        state
    }

    pub fn apply(&mut self, command: &Command) -> Reply {
        let (revision, state) = (self.revision(), self.state_at(Revision::MAX));
        let key = match command.op.as_ref().expect("the tests make no empty commands") {
            Op::Compact(compact) => return self.compact(compact.revision),
            Op::StateCheck(_) => return Reply::Marked { revision },
            Op::Put(put) => &put.key,
            Op::Delete(delete) => &delete.key,
        };
        if let Some(is) = command.precondition.as_ref().and_then(|condition| condition.is) {
            let current = state.get(key).map(|kv| kv.mod_revision);
            let holds = match is {
                Is::ModRevision(wanted) => current == Some(wanted),
                Is::Exists(wanted) => current.is_some() == wanted,
            };
            if !holds {
                return Reply::PreconditionFailed { current, revision };
            }
        }
        match command.op.as_ref().expect("checked above") {
            Op::Put(put) => self.put(put, state.get(key).cloned()),
            Op::Delete(delete) => self.delete(delete, &state),
            Op::Compact(_) | Op::StateCheck(_) => unreachable!("returned above"),
        }
    }

    fn put(&mut self, put: &Put, previous: Option<KeyValue>) -> Reply {
        let revision = self.revision() + 1;
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            lease: put.lease,
        };
        let KeyValue { create_revision, version, .. } = kv;
        self.changes.push((revision, Change::Put(kv)));
        Reply::Put { revision, create_revision, version, previous: previous.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &Delete, state: &BTreeMap<Bytes, KeyValue>) -> Reply {
        let matches = |key: &Bytes| match &delete.range_end[..] {
            [] => *key == delete.key,
            [0] => *key >= delete.key,
            end => *key >= delete.key && key[..] < *end,
        };
        let previous: Vec<_> =
            state.iter().filter(|(key, _)| matches(key)).map(|(_, kv)| kv.clone()).collect();
        let revision = self.revision() + u64::from(!previous.is_empty());
        for kv in &previous {
            self.changes.push((revision, Change::Delete { key: kv.key.clone(), revision }));
        }
        let deleted = previous.len() as u64;
        Reply::Deleted { revision, deleted, previous: if delete.prev_kv { previous } else { Vec::new() } }
    }

    fn compact(&mut self, upto: Revision) -> Reply {
        if upto > self.revision() || upto <= self.compacted {
            return Reply::Refused { why: String::new() };
        }
        self.compacted = upto;
        Reply::Compacted { revision: self.revision() }
    }

    /// Whole revisions above `after`, as many as fit `limit`, at least one.
    pub fn changes_since(&self, after: Revision, limit: usize) -> Vec<Change> {
        let mut page: Vec<Change> = Vec::new();
        let mut rest = self.changes.iter().filter(|(revision, _)| *revision > after).peekable();
        while let Some(&&(revision, _)) = rest.peek() {
            let mut whole = Vec::new();
            while let Some((_, change)) = rest.next_if(|(other, _)| *other == revision) {
                whole.push(change.clone());
            }
            if !page.is_empty() && page.len() + whole.len() > limit {
                break;
            }
            page.extend(whole);
        }
        page
    }

    /// Everything that can be asked of the store gives the model's answer.
    pub fn check(&self, store: &Store) {
        assert_eq!(store.revision(), self.revision());
        let now = self.revision();
        assert_eq!(store.stats().keys, self.state_at(now).len() as u64);
        for at in self.compacted..=now {
            let state = self.state_at(at);
            let expected: Vec<_> = state.values().cloned().collect();
            let all = store.range(&everything(Some(at))).expect("readable");
            assert_eq!(all.kvs, expected, "range at revision {at}");
            assert_eq!((all.count, all.more, all.revision), (expected.len(), false, now));
            for kv in &expected {
                assert_eq!(store.get(&kv.key, Some(at)).expect("readable").as_ref(), Some(kv));
            }
            for limit in [1, 3, 1000] {
                let changes = store.changes_since(at, limit).expect("readable");
                assert_eq!(changes, self.changes_since(at, limit), "changes since {at}, at most {limit}");
            }
        }
        assert_eq!(
            store.range(&everything(None)).expect("readable"),
            store.range(&everything(Some(now))).expect("readable")
        );
        self.check_unreadable(store);
        self.check_parts(store);
    }

    fn check_unreadable(&self, store: &Store) {
        let future = ReadError::Future { current: self.revision() };
        assert_eq!(store.get(b"a", Some(self.revision() + 1)), Err(future));
        if let Some(below) = self.compacted.checked_sub(1) {
            let compacted = ReadError::Compacted { oldest: self.compacted };
            assert_eq!(store.get(b"a", Some(below)), Err(compacted.clone()));
            assert_eq!(store.range(&everything(Some(below))), Err(compacted.clone()));
            assert_eq!(store.changes_since(below, 0), Err(compacted));
        }
    }

    /// Limits, keys only, counts, and ranges that are not everything.
    fn check_parts(&self, store: &Store) {
        let state = self.state_at(self.revision());
        let inside: Vec<_> =
            state.range(Bytes::from("b")..Bytes::from("e")).map(|(_, kv)| kv.clone()).collect();
        let range = KeyRange::Between("b".into(), "e".into());
        let query = RangeQuery { range, limit: 2, ..everything(None) };
        let part = store.range(&query).expect("readable");
        assert_eq!(part.kvs, inside.iter().take(2).cloned().collect::<Vec<_>>());
        assert_eq!((part.count, part.more), (inside.len(), inside.len() > 2));
        let keys = store.range(&RangeQuery { keys_only: true, ..query.clone() }).expect("readable");
        for (keyed, full) in keys.kvs.iter().zip(&part.kvs) {
            assert_eq!(*keyed, KeyValue { value: Bytes::new(), ..full.clone() });
        }
        let count = store.range(&RangeQuery { count_only: true, ..query }).expect("readable");
        assert_eq!((count.kvs.len(), count.count, count.more), (0, inside.len(), false));
        let first = store.range(&RangeQuery { limit: 1, ..everything(None) }).expect("readable");
        assert_eq!(
            (first.kvs.len(), first.count, first.more),
            (state.len().min(1), state.len(), state.len() > 1)
        );
        let inverted = KeyRange::Between("e".into(), "b".into());
        let none = store.range(&RangeQuery { range: inverted, ..everything(None) }).expect("readable");
        assert_eq!(none.count, 0);
    }
}
