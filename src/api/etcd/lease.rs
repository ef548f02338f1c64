//! The Lease service.

use futures::StreamExt;
use rand::Rng;
use tokio::time::Instant;
use tonic::{Request, Status, Streaming};

use super::error::mixed_up;
use super::long_calls::Replies;
use super::{Answer, Api, Refused, Result};
use crate::env::random::rng;
use crate::proto::etcdserverpb::lease_server::Lease as Service;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::proto::log::{LeaseGrant, LeaseRenew, LeaseRevoke, command::Op};
use crate::storage::mvcc::Reply;

/// Shorter ones get this much: what etcd makes of its default election timeout.
const MIN_TTL_S: i64 = 2;
/// etcd's limit; nearly three centuries.
const MAX_TTL_S: i64 = 9_000_000_000;
/// Keep-alives of one stream under way at once; the next is read when one is answered.
const MAX_PIPELINED: usize = 64;
const MS_PER_SECOND: u64 = 1000;
/// A keep-alive without an answer for so many election timeouts is tried again.
const RENEWAL_TIMEOUTS: u32 = 2;

pub struct Lease(pub Api);

#[tonic::async_trait]
impl Service for Lease {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        self.0.unary("Lease/LeaseGrant", request, |request| self.0.lease_grant(request)).await
    }

    async fn lease_revoke(&self, request: Request<LeaseRevokeRequest>) -> Answer<LeaseRevokeResponse> {
        self.0.unary("Lease/LeaseRevoke", request, |request| self.0.lease_revoke(request.id)).await
    }

    type LeaseKeepAliveStream = Replies<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let api = self.0.clone();
        let renew = move |request: Result<LeaseKeepAliveRequest, Status>| {
            let api = api.clone();
            async move { Ok(api.lease_keep_alive(request?.id).await?) }
        };
        self.0.stream(request, |requests| requests.map(renew).buffered(MAX_PIPELINED))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        self.0.unary("Lease/LeaseTimeToLive", request, |request| self.0.lease_time_to_live(request)).await
    }

    async fn lease_leases(&self, request: Request<LeaseLeasesRequest>) -> Answer<LeaseLeasesResponse> {
        self.0.unary("Lease/LeaseLeases", request, |_| self.0.lease_leases()).await
    }
}

/// Positive, as etcd's are, though clients may choose others.
fn random_id() -> i64 {
    (rng().next_u64() >> 1).max(1).cast_signed()
}

impl Api {
    pub async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse> {
        if request.ttl > MAX_TTL_S {
            return Err(Refused::LeaseTtlTooLarge);
        }
        let id = if request.id == 0 { random_id() } else { request.id };
        let grant = LeaseGrant { id, ttl_s: request.ttl.max(MIN_TTL_S) };
        match self.write(Op::LeaseGrant(grant)).await? {
            (Reply::Lease { revision, ttl_s: ttl }, term) => {
                let header = self.header_in_term(revision, term);
                Ok(LeaseGrantResponse { header, id, ttl, error: String::new() })
            }
            _ => Err(mixed_up()),
        }
    }

    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse> {
        match self.write(Op::LeaseRevoke(LeaseRevoke { id })).await? {
            (Reply::LeasesEnded { revision }, term) => {
                Ok(LeaseRevokeResponse { header: self.header_in_term(revision, term) })
            }
            _ => Err(mixed_up()),
        }
    }

    /// The header is from before: a client that was told of revision n and that the lease
    /// lived may take it that it lived at n.
    async fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse> {
        let header = self.header(self.node.store().revision());
        let ttl = match self.lease_renew(id).await {
            Err(Refused::LeaseNotFound) => 0,
            renewed => renewed?,
        };
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }

    /// How many seconds it has, from now. Twice does no harm, so it alone is tried again when
    /// the leader does not answer: by then another may lead, and the lease goes on.
    pub async fn lease_renew(&self, id: i64) -> Result<i64> {
        let deadline = Instant::now() + self.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = left.min(self.node.config().election_timeout * RENEWAL_TIMEOUTS);
            match self.write_within(attempt, Op::LeaseRenew(LeaseRenew { id })).await {
                Ok((Reply::Lease { ttl_s, .. }, _)) => return Ok(ttl_s),
                Ok(_) => return Err(mixed_up()),
                Err(refused) if attempt == left || !refused.may_have_happened() => return Err(refused),
                Err(_) => {}
            }
        }
    }

    async fn lease_time_to_live(&self, request: LeaseTimeToLiveRequest) -> Result<LeaseTimeToLiveResponse> {
        let LeaseTimeToLiveRequest { id, keys } = request;
        let clock_ms = self.node.lease_time(self.timeout()).await?;
        let store = self.node.store();
        let header = self.header(store.revision());
        let Some(lease) = store.lease(id) else {
            return Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() });
        };
        let keys = if keys { store.lease_keys(id) } else { Vec::new() };
        let left_s = lease.deadline_ms.saturating_sub(clock_ms) / MS_PER_SECOND;
        let ttl = left_s.cast_signed().min(lease.ttl_s);
        Ok(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl: lease.ttl_s, keys })
    }

    /// Those that end first first.
    async fn lease_leases(&self) -> Result<LeaseLeasesResponse> {
        self.readable(false).await?;
        let store = self.node.store();
        let header = self.header(store.revision());
        let leases = store.leases_by_deadline(usize::MAX).into_iter();
        Ok(LeaseLeasesResponse { header, leases: leases.map(|(id, _)| LeaseStatus { id }).collect() })
    }
}
