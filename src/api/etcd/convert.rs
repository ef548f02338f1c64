//! etcd's messages as the log and the store know them, and back.

use super::error::mixed_up;
use super::{Result, header};
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::proto::log::{self, Comparison, compare::With, sort::By};
use crate::proto::mvccpb;
use crate::storage::mvcc::{KeyValue, RangeResult, Reply};
use crate::types::Revision;

pub fn range(request: RangeRequest) -> log::Range {
    // Below the first revision that a key can have.
    const NONE_REACHES: Revision = 1;
    let at_least = |bound: i64| u64::try_from(bound).unwrap_or(0);
    let at_most = |bound: i64| u64::try_from(bound).unwrap_or(NONE_REACHES);
    // An order that etcd does not know leaves all as it is, by key.
    let order = SortOrder::try_from(request.sort_order).ok();
    let sort = order.and_then(|order| sort(order, request.sort_target()));
    log::Range {
        key: request.key,
        range_end: request.range_end,
        limit: u64::try_from(request.limit).unwrap_or(0),
        revision: u64::try_from(request.revision).ok().filter(|revision| *revision > 0),
        sort,
        min_mod_revision: at_least(request.min_mod_revision),
        max_mod_revision: at_most(request.max_mod_revision),
        min_create_revision: at_least(request.min_create_revision),
        max_create_revision: at_most(request.max_create_revision),
        keys_only: request.keys_only,
        count_only: request.count_only,
    }
}

/// On its own a revision below 0 means the newest; in a transaction it is one that is gone.
fn range_in_txn(request: RangeRequest) -> log::Range {
    let before_all = request.revision < 0;
    let range = range(request);
    if before_all { log::Range { revision: Some(0), ..range } } else { range }
}

/// Without an order but with a target, etcd cuts one above the limit by key, sorts the rest,
/// and cuts that.
fn sort(order: SortOrder, target: SortTarget) -> Option<log::Sort> {
    let by = match target {
        SortTarget::Key => By::Key,
        SortTarget::Version => By::Version,
        SortTarget::Create => By::CreateRevision,
        SortTarget::Mod => By::ModRevision,
        SortTarget::Value => By::Value,
    };
    let after_limit = order == SortOrder::None;
    let descending = order == SortOrder::Descend;
    let as_it_is = by == By::Key && !descending;
    (!as_it_is).then_some(log::Sort { by: by.into(), descending, after_limit })
}

pub fn put(request: PutRequest) -> log::Put {
    let PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = request;
    log::Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
}

pub fn delete_range(request: DeleteRangeRequest) -> log::Delete {
    let DeleteRangeRequest { key, range_end, prev_kv } = request;
    log::Delete { key, range_end, prev_kv }
}

/// The request must have been checked.
pub fn txn(request: TxnRequest) -> log::Txn {
    log::Txn {
        compares: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(op).collect(),
        failure: request.failure.into_iter().map(op).collect(),
    }
}

fn op(op: RequestOp) -> log::TxnOp {
    use log::txn_op::Op;
    let op = op.request.map(|request| match request {
        Request::RequestRange(request) => Op::Range(range_in_txn(request)),
        Request::RequestPut(request) => Op::Put(put(request)),
        Request::RequestDeleteRange(request) => Op::Delete(delete_range(request)),
        Request::RequestTxn(request) => Op::Txn(txn(request)),
    });
    log::TxnOp { op }
}

/// What is compared is the target's affair; a value of another kind counts as none. Kinds
/// that etcd does not know it answers all the same: an unknown result holds always, but for
/// the value of a key that is not there; an unknown target is equal to anything.
fn compare(compare: Compare) -> log::Compare {
    let (result, target) = (CompareResult::try_from(compare.result), CompareTarget::try_from(compare.target));
    let (comparison, with) = match (result, target) {
        (Ok(_), Ok(_)) => known(&compare),
        (Ok(result), Err(_)) => constant(result == CompareResult::Equal),
        // Whatever is there has a version.
        (Err(_), Ok(CompareTarget::Value)) => (Comparison::NotEqual, With::Version(0)),
        (Err(_), _) => constant(true),
    };
    log::Compare {
        key: compare.key,
        range_end: compare.range_end,
        comparison: comparison.into(),
        with: Some(with),
    }
}

/// No version is below 0.
fn constant(holds: bool) -> (Comparison, With) {
    (if holds { Comparison::NotEqual } else { Comparison::Equal }, With::Version(-1))
}

fn known(compare: &Compare) -> (Comparison, With) {
    let comparison = match compare.result() {
        CompareResult::Equal => Comparison::Equal,
        CompareResult::Greater => Comparison::Greater,
        CompareResult::Less => Comparison::Less,
        CompareResult::NotEqual => Comparison::NotEqual,
    };
    let with = match (compare.target(), compare.target_union.clone()) {
        (CompareTarget::Version, Some(TargetUnion::Version(number))) => With::Version(number),
        (CompareTarget::Version, _) => With::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => With::CreateRevision(number),
        (CompareTarget::Create, _) => With::CreateRevision(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => With::ModRevision(number),
        (CompareTarget::Mod, _) => With::ModRevision(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => With::Value(value),
        (CompareTarget::Value, _) => With::Value(Default::default()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => With::Lease(number),
        (CompareTarget::Lease, _) => With::Lease(0),
    };
    (comparison, with)
}

pub fn range_response(header: Option<ResponseHeader>, found: RangeResult) -> RangeResponse {
    RangeResponse {
        header,
        kvs: found.kvs.into_iter().map(mvccpb::KeyValue::from).collect(),
        more: found.more,
        count: i64::try_from(found.count).unwrap_or(i64::MAX),
    }
}

pub fn put_response(header: Option<ResponseHeader>, previous: Option<KeyValue>) -> PutResponse {
    PutResponse { header, prev_kv: previous.map(mvccpb::KeyValue::from) }
}

pub fn delete_response(
    header: Option<ResponseHeader>,
    deleted: u64,
    previous: Vec<KeyValue>,
) -> DeleteRangeResponse {
    let prev_kvs = previous.into_iter().map(mvccpb::KeyValue::from).collect();
    DeleteRangeResponse { header, deleted: deleted.cast_signed(), prev_kvs }
}

/// Of a reply to a transaction.
pub fn txn_response(
    header: Option<ResponseHeader>,
    succeeded: bool,
    replies: Vec<Reply>,
) -> Result<TxnResponse> {
    let responses = replies.into_iter().map(response_op).collect::<Result<_>>()?;
    Ok(TxnResponse { header, succeeded, responses })
}

/// Inside a transaction headers have the revision alone; those of nested ones nothing.
fn response_op(reply: Reply) -> Result<ResponseOp> {
    let response = match reply {
        Reply::Range(found) => Response::ResponseRange(range_response(header::bare(found.revision), found)),
        Reply::Put { revision, previous, .. } => {
            Response::ResponsePut(put_response(header::bare(revision), previous))
        }
        Reply::Deleted { revision, deleted, previous } => {
            Response::ResponseDeleteRange(delete_response(header::bare(revision), deleted, previous))
        }
        Reply::Txn { succeeded, replies, .. } => {
            Response::ResponseTxn(txn_response(header::bare(0), succeeded, replies)?)
        }
        _ => return Err(mixed_up()),
    };
    Ok(ResponseOp { response: Some(response) })
}
