//! What the store should do, in the plainest way: a list of all changes ever made.

use std::collections::BTreeMap;

use super::*;
use crate::storage::mvcc::types::Change;

#[derive(Clone, Default)]
pub struct Model {
    /// All changes in order, each with its revision.
    pub changes: Vec<(Revision, Change)>,
    pub compacted: Revision,
    pub leases: BTreeMap<i64, Lease>,
    pub lease_clock_ms: u64,
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
            Op::Put(put) => &put.key,
            Op::Delete(delete) => &delete.key,
            other => return self.apply_other(other),
        };
        if matches!(&command.op, Some(Op::Put(put)) if self.lacks_lease(put)) {
            return Reply::Refused { why: Refusal::LeaseNotFound };
        }
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
            Op::Put(put) => self.put(put, revision + 1),
            Op::Delete(delete) => self.delete(delete, revision + 1),
            _ => unreachable!("returned above"),
        }
    }

    fn apply_other(&mut self, op: &Op) -> Reply {
        let revision = self.revision();
        match op {
            Op::Put(_) | Op::Delete(_) => unreachable!("not here"),
            Op::Compact(compact) => self.compact(compact.revision),
            Op::StateCheck(_) => Reply::Marked { revision },
            Op::LeaseTick(_) => Reply::Ticked { revision },
            Op::Txn(txn) => self.txn(txn),
            Op::LeaseGrant(grant) if self.leases.contains_key(&grant.id) => {
                Reply::Refused { why: Refusal::LeaseExists }
            }
            Op::LeaseGrant(LeaseGrant { id, ttl_s }) => self.start_lease(*id, *ttl_s),
            Op::LeaseRenew(LeaseRenew { id }) => match self.leases.get(id) {
                Some(lease) => self.start_lease(*id, lease.ttl_s),
                None => Reply::Refused { why: Refusal::LeaseNotFound },
            },
            Op::LeaseRevoke(LeaseRevoke { id }) if !self.leases.contains_key(id) => {
                Reply::Refused { why: Refusal::LeaseNotFound }
            }
            Op::LeaseRevoke(LeaseRevoke { id }) => self.end_leases(&[*id]),
            Op::LeaseExpire(LeaseExpire { ids, until_ms }) => {
                let over = |id: &i64| self.leases.get(id).is_some_and(|lease| lease.deadline_ms <= *until_ms);
                let ids: Vec<i64> = ids.iter().copied().filter(over).collect();
                self.end_leases(&ids)
            }
        }
    }

    fn start_lease(&mut self, id: i64, ttl_s: i64) -> Reply {
        let deadline_ms = self.lease_clock_ms + ttl_s.unsigned_abs() * 1000;
        self.leases.insert(id, Lease { ttl_s, deadline_ms });
        Reply::Lease { revision: self.revision(), ttl_s }
    }

    fn end_leases(&mut self, ids: &[i64]) -> Reply {
        for id in ids {
            if self.leases.remove(id).is_none() {
                continue;
            }
            let revision = self.revision() + 1;
            for kv in self.state_at(Revision::MAX).into_values().filter(|kv| kv.lease == *id) {
                self.changes.push((revision, Change::Delete { key: kv.key, revision }));
            }
        }
        Reply::LeasesEnded { revision: self.revision() }
    }

    /// Of the kind that the tests make: one comparison of a version, and no nesting.
    fn txn(&mut self, txn: &Txn) -> Reply {
        let before = self.state_at(Revision::MAX);
        let holds = |compare: &Compare| match &compare.with {
            Some(With::Version(version)) => {
                before.get(&compare.key).map_or(0, |kv| kv.version) == version.unsigned_abs()
            }
            other => panic!("the model does not compare {other:?}"),
        };
        let succeeded = txn.compares.iter().all(holds);
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let lost = |op: &TxnOp| matches!(&op.op, Some(txn_op::Op::Put(put)) if self.lacks_lease(put));
        if ops.iter().any(lost) {
            return Reply::Refused { why: Refusal::LeaseNotFound };
        }
        let revision = self.revision() + 1;
        let replies = ops.iter().map(|op| match op.op.as_ref().expect("made by the tests") {
            txn_op::Op::Put(put) => self.put(put, revision),
            txn_op::Op::Delete(delete) => self.delete(delete, revision),
            txn_op::Op::Range(_) => {
                let kvs: Vec<_> = self.state_at(Revision::MAX).into_values().collect();
                let (count, revision) = (kvs.len(), self.revision());
                Reply::Range(RangeResult { kvs, count, more: false, revision })
            }
            txn_op::Op::Txn(_) => panic!("the model does not nest"),
        });
        let replies = replies.collect();
        Reply::Txn { revision: self.revision(), succeeded, replies }
    }

    fn lacks_lease(&self, put: &Put) -> bool {
        put.lease != 0 && !self.leases.contains_key(&put.lease)
    }

    fn put(&mut self, put: &Put, revision: Revision) -> Reply {
        let previous = self.state_at(Revision::MAX).get(&put.key).cloned();
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

    /// At `revision`, if it deletes anything.
    fn delete(&mut self, delete: &Delete, revision: Revision) -> Reply {
        let state = self.state_at(Revision::MAX);
        let matches = |key: &Bytes| match &delete.range_end[..] {
            [] => *key == delete.key,
            [0] => *key >= delete.key,
            end => *key >= delete.key && key[..] < *end,
        };
        let previous: Vec<_> =
            state.iter().filter(|(key, _)| matches(key)).map(|(_, kv)| kv.clone()).collect();
        for kv in &previous {
            self.changes.push((revision, Change::Delete { key: kv.key.clone(), revision }));
        }
        let (deleted, revision) = (previous.len() as u64, self.revision());
        Reply::Deleted { revision, deleted, previous: if delete.prev_kv { previous } else { Vec::new() } }
    }

    fn compact(&mut self, upto: Revision) -> Reply {
        let (asked, current, oldest) = (upto, self.revision(), self.compacted);
        if upto > current {
            return Reply::Refused { why: Refusal::FutureRevision { asked, current } };
        }
        if upto <= oldest {
            return Reply::Refused { why: Refusal::Compacted { asked, oldest } };
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
        let leases = store.leases_by_deadline(usize::MAX);
        assert_eq!(leases.len(), self.leases.len());
        for (id, lease) in &self.leases {
            assert_eq!(store.lease(*id), Some(*lease));
            let state = self.state_at(Revision::MAX);
            let keys: Vec<Bytes> =
                state.into_values().filter(|kv| kv.lease == *id).map(|kv| kv.key).collect();
            assert_eq!(store.lease_keys(*id), keys, "keys of lease {id}");
        }
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
