//! The Lock service: the head of a line holds the lock.

use bytes::Bytes;
use tonic::Request;

use super::contend::LinedUp;
use super::{Answer, Api, Refused, Result, check};
use crate::proto::etcdserverpb::DeleteRangeRequest;
use crate::proto::v3lockpb::lock_server::Lock as Service;
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

pub struct Lock(pub Api);

#[tonic::async_trait]
impl Service for Lock {
    async fn lock(&self, request: Request<LockRequest>) -> Answer<LockResponse> {
        check::size(request.get_ref())?;
        let api = self.0.clone();
        let work = |request: LockRequest, caller| {
            api.contend(request.name, request.lease, Bytes::new(), Api::locked, caller)
        };
        self.0.waiting("Lock/Lock", request, work).await
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        self.0.unary("Lock/Unlock", request, |request| self.0.unlock(request.key)).await
    }
}

impl Api {
    /// Whoever waited may have lost its lease meanwhile.
    async fn locked(self, lined_up: LinedUp) -> Result<LockResponse> {
        let LinedUp { place, first, header, .. } = lined_up;
        if first {
            return Ok(LockResponse { header, key: place.key });
        }
        match self.holds(&place).await? {
            true => Ok(LockResponse { header: self.header(self.node.store().revision()), key: place.key }),
            false => Err(Refused::SessionExpired),
        }
    }

    async fn unlock(&self, key: Bytes) -> Result<UnlockResponse> {
        let deleted = self.delete_range(DeleteRangeRequest { key, ..Default::default() }).await?;
        Ok(UnlockResponse { header: deleted.header })
    }
}
