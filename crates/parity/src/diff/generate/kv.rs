//! Ranges, puts, deletes, transactions, compactions.

use super::*;

/// etcd's limit on a request is 1.5 MiB: one value below it, one above, and one above
/// what its transport takes.
const BIG_VALUES: [usize; 3] = [1_500_000, 1_600_000, 2_200_000];
/// One put in so many is big: they are slow.
const BIG_ONCE_IN: u32 = 500;
/// The operations that a transaction may have, and one more.
const MANY_OPS: [usize; 2] = [128, 129];
/// One more than there are.
const UNKNOWN_ORDER: i32 = 3;
/// Transactions within transactions.
const DEPTH: usize = 2;

impl Generator {
    pub(super) fn range(&mut self) -> RangeRequest {
        let order = self.rng.random_range(0..3);
        let target = self.rng.random_range(0..5);
        let sorted = self.once_in(2);
        RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if self.once_in(3) { self.one_of(&[1, 2, 3, 100, -1, i64::MIN]) } else { 0 },
            revision: self.revision_once_in(4),
            sort_order: if self.once_in(60) { UNKNOWN_ORDER } else { i32::from(sorted) * order },
            // A target that does not exist ends etcd 3.5.1 with a panic.
            sort_target: i32::from(sorted) * target,
            serializable: self.once_in(5),
            keys_only: self.once_in(6),
            count_only: self.once_in(8),
            min_mod_revision: self.revision_once_in(12),
            max_mod_revision: self.revision_once_in(12),
            min_create_revision: self.revision_once_in(12),
            max_create_revision: self.revision_once_in(12),
        }
    }

    pub(super) fn put(&mut self) -> PutRequest {
        let ignore_value = self.once_in(10);
        let ignore_lease = self.once_in(10);
        // What is to be kept is mostly not given, as it must be.
        let (no_value, no_lease) = (ignore_value && !self.once_in(4), ignore_lease && !self.once_in(4));
        let with_lease = self.once_in(4) && !no_lease;
        PutRequest {
            key: self.key(),
            value: if no_value { Bytes::new() } else { self.value_or_a_big_one() },
            lease: if with_lease { self.lease() } else { 0 },
            prev_kv: self.once_in(3),
            ignore_value,
            ignore_lease,
        }
    }

    fn value_or_a_big_one(&mut self) -> Bytes {
        if self.once_in(BIG_ONCE_IN) { vec![0; self.one_of(&BIG_VALUES)].into() } else { self.value() }
    }

    pub(super) fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.once_in(2) }
    }

    pub(super) fn compact(&mut self) -> CompactionRequest {
        let revision = if self.once_in(10) { 0 } else { self.revision() };
        self.compacted.push(revision);
        CompactionRequest { revision, physical: self.once_in(4) }
    }

    pub(super) fn txn(&mut self, depth: usize) -> TxnRequest {
        if self.once_in(60) {
            return self.long_txn();
        }
        self.deleted_the_rest &= depth > 0;
        TxnRequest {
            compare: self.some(3, Self::compare),
            success: self.some(4, |drawn| drawn.request(depth)),
            failure: self.some(3, |drawn| drawn.request(depth)),
        }
    }

    /// At the limit and past it, in either branch or in the comparisons.
    fn long_txn(&mut self) -> TxnRequest {
        let many = self.one_of(&MANY_OPS);
        let read = RangeRequest { key: self.key(), ..RangeRequest::default() };
        let op = RequestOp { request: Some(RequestKind::RequestRange(read)) };
        let mut txn = TxnRequest::default();
        match self.rng.random_range(0..3) {
            0 => txn.success = vec![op; many],
            1 => txn.failure = vec![op; many],
            _ => txn.compare = vec![self.compare(); many],
        }
        txn
    }

    fn some<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.rng.random_range(0..=most);
        (0..count).map(|_| draw(self)).collect()
    }

    fn request(&mut self, depth: usize) -> RequestOp {
        let request = match self.rng.random_range(0..40) {
            0 => None,
            1..15 => Some(RequestKind::RequestPut(self.put_in_txn())),
            15..24 => Some(RequestKind::RequestRange(self.range())),
            24..33 => Some(RequestKind::RequestDeleteRange(self.delete_in_txn())),
            _ if depth < DEPTH => Some(RequestKind::RequestTxn(self.txn(depth + 1))),
            _ => Some(RequestKind::RequestPut(self.put_in_txn())),
        };
        RequestOp { request }
    }

    /// To keep what was deleted before it ends etcd 3.5.1 with a panic; it overlooks that a
    /// put meets a deletion without an end, and refuses all others that meet.
    fn put_in_txn(&mut self) -> PutRequest {
        let put = self.put();
        match self.deleted_the_rest {
            true => PutRequest { ignore_value: false, ignore_lease: false, ..put },
            false => put,
        }
    }

    fn delete_in_txn(&mut self) -> DeleteRangeRequest {
        let delete = self.delete();
        self.deleted_the_rest |= delete.range_end.as_ref() == b"\0";
        delete
    }

    fn compare(&mut self) -> Compare {
        let target = self.rng.random_range(0..5);
        // Now and then the value is of another target, or missing.
        let union = if self.once_in(20) { self.rng.random_range(0..6) } else { target };
        let result = self.rng.random_range(0..4);
        let is_odd = self.once_in(60);
        Compare {
            result: if is_odd { 4 } else { result },
            target: if self.once_in(60) { 5 } else { target },
            key: self.key(),
            target_union: self.compared(union, result),
            range_end: if self.once_in(4) { self.range_end() } else { Bytes::new() },
        }
    }

    fn compared(&mut self, target: i32, result: i32) -> Option<TargetUnion> {
        Some(match target {
            0 => TargetUnion::Version(self.rng.random_range(0..4)),
            1 => TargetUnion::CreateRevision(self.revision_or_none()),
            2 => TargetUnion::ModRevision(self.revision_or_none()),
            3 => TargetUnion::Value(self.value()),
            // How two ids compare that servers chose is chance.
            4 if CompareResult::Equal as i32 == result => TargetUnion::Lease(self.lease()),
            4 => TargetUnion::Lease(self.rng.random_range(0..=LEASES)),
            _ => return None,
        })
    }

    /// A key that does not exist has revision zero.
    fn revision_or_none(&mut self) -> i64 {
        if self.once_in(3) { 0 } else { self.revision() }
    }
}
