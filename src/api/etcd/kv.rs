//! The KV service.

use tonic::Request;

use super::error::mixed_up;
use super::{Answer, Api, Result, check, convert};
use crate::proto::etcdserverpb::kv_server::Kv as Service;
use crate::proto::etcdserverpb::request_op::Request as Operation;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::proto::log::{Compact, command::Op};
use crate::storage::mvcc::{RangeQuery, Refusal, Reply};

pub struct Kv(pub Api);

#[tonic::async_trait]
impl Service for Kv {
    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        self.0.unary("KV/Range", request, |request| self.0.range(request)).await
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        self.0.unary("KV/Put", request, |request| self.0.put(request)).await
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        self.0.unary("KV/DeleteRange", request, |request| self.0.delete_range(request)).await
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Answer<TxnResponse> {
        self.0.unary("KV/Txn", request, |request| self.0.txn(request)).await
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        self.0.unary("KV/Compact", request, |request| self.0.compact(request)).await
    }
}

impl Api {
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        check::range(&request)?;
        self.readable(request.serializable).await?;
        let found = self.node.store().range(&RangeQuery::from(&convert::range(request)))?;
        Ok(convert::range_response(self.header(found.revision), found))
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse> {
        check::put(&request)?;
        check::size(&request)?;
        match self.write(Op::Put(convert::put(request))).await? {
            (Reply::Put { revision, previous, .. }, term) => {
                Ok(convert::put_response(self.header_in_term(revision, term), previous))
            }
            _ => Err(mixed_up()),
        }
    }

    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse> {
        check::delete_range(&request)?;
        check::size(&request)?;
        match self.write(Op::Delete(convert::delete_range(request))).await? {
            (Reply::Deleted { revision, deleted, previous }, term) => {
                Ok(convert::delete_response(self.header_in_term(revision, term), deleted, previous))
            }
            _ => Err(mixed_up()),
        }
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse> {
        check::txn(&request)?;
        if only_reads(&request) {
            return self.read_txn(request).await;
        }
        check::size(&request)?;
        match self.write(Op::Txn(convert::txn(request))).await? {
            (Reply::Txn { revision, succeeded, replies }, term) => {
                convert::txn_response(self.header_in_term(revision, term), succeeded, replies)
            }
            _ => Err(mixed_up()),
        }
    }

    /// Nothing to replicate: it is answered from this member's store, like a range.
    async fn read_txn(&self, request: TxnRequest) -> Result<TxnResponse> {
        self.readable(is_serializable(&request)).await?;
        match self.node.store().read_txn(&convert::txn(request))? {
            Reply::Txn { revision, succeeded, replies } => {
                convert::txn_response(self.header(revision), succeeded, replies)
            }
            Reply::Refused { why } => Err(why.into()),
            _ => Err(mixed_up()),
        }
    }

    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse> {
        let Ok(revision) = u64::try_from(request.revision) else {
            return Err(Refusal::Compacted { asked: 0, oldest: 0 }.into());
        };
        match self.write(Op::Compact(Compact { revision })).await? {
            (Reply::Compacted { revision: current }, term) => {
                if request.physical {
                    self.node.store().swept(revision).await;
                }
                Ok(CompactionResponse { header: self.header_in_term(current, term) })
            }
            _ => Err(mixed_up()),
        }
    }
}

fn operations(request: &TxnRequest) -> impl Iterator<Item = &Operation> {
    request.success.iter().chain(&request.failure).filter_map(|op| op.request.as_ref())
}

fn only_reads(request: &TxnRequest) -> bool {
    operations(request).all(|operation| match operation {
        Operation::RequestRange(_) => true,
        Operation::RequestPut(_) | Operation::RequestDeleteRange(_) => false,
        Operation::RequestTxn(nested) => only_reads(nested),
    })
}

/// A transaction may be answered with what this member has only if it reads, and every
/// read in it may. One that only compares is a read as well (etcd forgets that).
fn is_serializable(request: &TxnRequest) -> bool {
    let reads = operations(request).next().is_some();
    reads
        && operations(request).all(|operation| match operation {
            Operation::RequestRange(range) => range.serializable,
            Operation::RequestTxn(nested) => is_serializable(nested),
            Operation::RequestPut(_) | Operation::RequestDeleteRange(_) => false,
        })
}
