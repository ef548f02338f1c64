//! What etcd refuses about a key-value request before it does anything, in its order.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::{MAX_REQUEST_BYTES, Refused, Result};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::storage::mvcc::KeyRange;

/// Comparisons, or operations in a branch, of one transaction.
pub const MAX_TXN_OPS: usize = 128;
/// Transactions within transactions: each is a few frames of the stack in the API, in the
/// store and in the codec.
const MAX_TXN_DEPTH: usize = 32;

/// The writes of a request are one log entry.
pub fn size(request: &impl Message) -> Result<()> {
    if request.encoded_len() > MAX_REQUEST_BYTES { Err(Refused::RequestTooLarge) } else { Ok(()) }
}

fn has_key(key: &Bytes) -> Result<()> {
    if key.is_empty() { Err(Refused::EmptyKey) } else { Ok(()) }
}

pub fn range(request: &RangeRequest) -> Result<()> {
    has_key(&request.key)
}

pub fn put(request: &PutRequest) -> Result<()> {
    has_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refused::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refused::LeaseProvided);
    }
    Ok(())
}

pub fn delete_range(request: &DeleteRangeRequest) -> Result<()> {
    has_key(&request.key)
}

pub fn txn(request: &TxnRequest) -> Result<()> {
    shape(request, MAX_TXN_OPS, MAX_TXN_DEPTH)?;
    Changes::of(&request.success)?;
    Changes::of(&request.failure)?;
    Ok(())
}

/// A nested transaction may have as many operations as its parent has left.
fn shape(request: &TxnRequest, most: usize, depth: usize) -> Result<()> {
    let TxnRequest { compare, success, failure } = request;
    let ops = compare.len().max(success.len()).max(failure.len());
    let left = most.checked_sub(ops).filter(|_| depth > 0).ok_or(Refused::TooManyOps)?;
    compare.iter().try_for_each(|compare| has_key(&compare.key))?;
    success.iter().chain(failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => shape(request, left, depth - 1),
        // etcd's words for an operation that says not what to do.
        None => Err(Refused::KeyNotFound),
    })
}

/// The keys that a branch changes, judged as etcd does: all deletes of a level come before
/// its nested transactions, and its own puts after them, whatever the order in the request.
/// No key may be put twice, or put after a delete that covers it.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Changes {
    fn of(branch: &[RequestOp]) -> Result<Self> {
        let mut changes = Self::default();
        let requests = || branch.iter().filter_map(|op| op.request.as_ref());
        for request in requests() {
            if let Request::RequestDeleteRange(delete) = request {
                changes.deletes.push(interval(delete));
            }
        }
        for request in requests() {
            if let Request::RequestTxn(nested) = request {
                // Only one of the two is carried out: they may change the same keys.
                let (success, failure) = (Self::of(&nested.success)?, Self::of(&nested.failure)?);
                let puts: BTreeSet<Bytes> = success.puts.into_iter().chain(failure.puts).collect();
                puts.into_iter().try_for_each(|key| changes.put(key))?;
                changes.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
            }
        }
        for request in requests() {
            if let Request::RequestPut(put) = request {
                changes.put(put.key.clone())?;
            }
        }
        Ok(changes)
    }

    fn put(&mut self, key: Bytes) -> Result<()> {
        let deleted = self.deletes.iter().any(|range| range.contains(&key));
        if deleted || !self.puts.insert(key) { Err(Refused::DuplicateKey) } else { Ok(()) }
    }
}

/// Taken literally, as in etcd: a `range_end` of one zero byte is before every key, so such
/// a delete, of all keys from one on, collides with no put.
fn interval(delete: &DeleteRangeRequest) -> KeyRange {
    match delete.range_end.is_empty() {
        true => KeyRange::One(delete.key.clone()),
        false => KeyRange::Between(delete.key.clone(), delete.range_end.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
    }

    fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
        let request = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
        op(Request::RequestDeleteRange(request))
    }

    fn either(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    fn check(success: Vec<RequestOp>) -> Result<()> {
        txn(&TxnRequest { compare: vec![], success, failure: vec![] })
    }

    #[test]
    fn a_key_is_changed_once() {
        let duplicate = |ops| matches!(check(ops), Err(Refused::DuplicateKey));
        assert!(duplicate(vec![put_op("a"), put_op("a")]));
        assert!(duplicate(vec![put_op("b"), delete_op("a", "c")]));
        assert!(duplicate(vec![delete_op("a", "c"), put_op("b")]));
        assert!(duplicate(vec![put_op("a"), either(vec![put_op("a")], vec![])]));
        assert!(duplicate(vec![either(vec![put_op("a")], vec![]), either(vec![], vec![put_op("a")])]));
        assert!(duplicate(vec![
            either(vec![delete_op("a", "c")], vec![]),
            either(vec![], vec![put_op("b")])
        ]));
        assert!(
            check(vec![either(vec![put_op("b")], vec![]), either(vec![delete_op("a", "c")], vec![])]).is_ok(),
            "a later sibling may delete it"
        );
        assert!(check(vec![delete_op("a", "\0"), put_op("b")]).is_ok(), "etcd takes the end literally");
        assert!(check(vec![delete_op("ab", "a"), put_op("b\0")]).is_ok(), "an inverted range has no keys");
        assert!(check(vec![put_op("c"), delete_op("a", "c"), delete_op("b", "c")]).is_ok());
        assert!(check(vec![either(vec![put_op("a")], vec![put_op("a")]), put_op("b")]).is_ok());
    }

    #[test]
    fn operations_are_counted_down_the_nesting() {
        let puts = |count| {
            (0..count).map(|n| {
                op(Request::RequestPut(PutRequest { key: format!("{n}").into(), ..PutRequest::default() }))
            })
        };
        assert!(check(puts(MAX_TXN_OPS).collect()).is_ok());
        assert!(matches!(check(puts(MAX_TXN_OPS + 1).collect()), Err(Refused::TooManyOps)));
        let nested = |count| vec![either(puts(count).collect(), vec![])];
        assert!(check(nested(MAX_TXN_OPS - 1)).is_ok());
        assert!(matches!(check(nested(MAX_TXN_OPS)), Err(Refused::TooManyOps)));
        let deep = (0..MAX_TXN_DEPTH).fold(put_op("a"), |inner, _| either(vec![inner], vec![]));
        assert!(matches!(check(vec![deep]), Err(Refused::TooManyOps)));
    }
}
