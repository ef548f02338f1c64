//! The Election service: the head of a line leads, and its key's value is what it proclaims.

use bytes::Bytes;
use futures::Stream;
use tonic::{Request, Status};

use super::contend::{Line, LinedUp, delete, if_created_at};
use super::long_calls::Replies;
use super::{Answer, Api, Refused, Result, check};
use crate::proto::log::{self, txn_op};
use crate::proto::v3electionpb::election_server::Election as Service;
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::storage::mvcc::{Change, KeyValue, ReadError, Store};
use crate::types::Revision;

/// Changes that an observer looks through in one go.
const OBSERVED_AT_ONCE: usize = 1024;

pub struct Election(pub Api);

#[tonic::async_trait]
impl Service for Election {
    async fn campaign(&self, request: Request<CampaignRequest>) -> Answer<CampaignResponse> {
        check::size(request.get_ref())?;
        let api = self.0.clone();
        let work = |request: CampaignRequest, caller| {
            let CampaignRequest { name, lease, value } = request;
            let elected = {
                let (name, value) = (name.clone(), value.clone());
                |api: Api, lined_up| api.elected(name, value, lined_up)
            };
            api.contend(name, lease, value, elected, caller)
        };
        self.0.waiting("Election/Campaign", request, work).await
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Answer<ProclaimResponse> {
        check::size(request.get_ref())?;
        let work = |ProclaimRequest { leader, value }| async {
            let leader = leader.ok_or(Refused::MissingLeaderKey)?;
            let header = self.0.proclaim(leader, value).await.map_err(Refused::in_service)?;
            Ok(ProclaimResponse { header })
        };
        self.0.unary("Election/Proclaim", request, work).await
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Answer<LeaderResponse> {
        self.0.unary("Election/Leader", request, |request| self.0.leader(request.name)).await
    }

    type ObserveStream = Replies<LeaderResponse>;

    async fn observe(&self, request: Request<LeaderRequest>) -> Answer<Self::ObserveStream> {
        let api = self.0.clone();
        self.0.stream(request, |request| api.observe(request.name))
    }

    /// Whoever does not lead any more has nothing to give up: that is no error.
    async fn resign(&self, request: Request<ResignRequest>) -> Answer<ResignResponse> {
        let work = |ResignRequest { leader }| async {
            let LeaderKey { key, rev, .. } = leader.ok_or(Refused::MissingLeaderKey)?;
            let (_, header) = self.0.conditionally(if_created_at(key.clone(), rev, delete(key))).await?;
            Ok(ResignResponse { header })
        };
        self.0.unary("Election/Resign", request, work).await
    }
}

impl Api {
    /// A candidate that has come back with another value proclaims it.
    async fn elected(self, name: Bytes, value: Bytes, lined_up: LinedUp) -> Result<CampaignResponse> {
        let LinedUp { place, first, found, header } = lined_up;
        if !first && !self.holds(&place).await? {
            return Err(Refused::NotElected);
        }
        let rev = place.created.cast_signed();
        let leader = LeaderKey { name, key: place.key, rev, lease: place.lease };
        if found.is_some_and(|found| found.value != value) {
            self.proclaim(leader.clone(), value).await?;
        }
        Ok(CampaignResponse { header, leader: Some(leader) })
    }

    async fn proclaim(
        &self,
        leader: LeaderKey,
        value: Bytes,
    ) -> Result<Option<crate::proto::etcdserverpb::ResponseHeader>> {
        let LeaderKey { key, rev, lease, .. } = leader;
        // Whoever does not say the lease keeps the one that the key has.
        let ignore_lease = lease == 0;
        let put = log::Put { key: key.clone(), value, lease, ignore_lease, ..log::Put::default() };
        match self.conditionally(if_created_at(key, rev, txn_op::Op::Put(put))).await? {
            (true, header) => Ok(header),
            (false, _) => Err(Refused::NotElected),
        }
    }

    async fn leader(&self, name: Bytes) -> Result<LeaderResponse> {
        self.readable(false).await?;
        let mut head = Line::of(&name).head(self.node.store())?;
        let kv = head.kvs.pop().ok_or(Refused::NobodyElected)?;
        Ok(LeaderResponse { header: self.header(head.revision), kv: Some(kv.into()) })
    }

    /// Each leader, and each value that it proclaims.
    fn observe(self, name: Bytes) -> impl Stream<Item = Result<LeaderResponse, Status>> {
        async_stream::try_stream! {
            let line = Line::of(&name);
            self.readable(false).await?;
            loop {
                let (leader, mut seen) = self.look_until(|store| line.leads(store)).await?;
                let mut value = Some(leader.clone());
                while let Some(kv) = value {
                    let header = self.header(kv.mod_revision);
                    yield LeaderResponse { header, kv: Some(kv.into()) };
                    value = self.look_until(|store| next_value(store, &leader, &mut seen)).await?;
                }
            }
        }
    }

    /// `Node::look_until`, for what may be refused.
    async fn look_until<T>(&self, look: impl FnMut(&Store) -> Option<Result<T, ReadError>>) -> Result<T> {
        Ok(self.node.look_until(look).await??)
    }
}

impl Line {
    /// Who leads, if anybody does, and the revision at which that was so.
    fn leads(&self, store: &Store) -> Option<Result<(KeyValue, Revision), ReadError>> {
        match self.head(store) {
            Ok(mut head) => head.kvs.pop().map(|leader| Ok((leader, head.revision))),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The leader's first value after `seen`; `Some(None)`: it leads no longer. An observer who
/// falls behind compaction sees the present value next.
fn next_value(
    store: &Store,
    leader: &KeyValue,
    seen: &mut Revision,
) -> Option<Result<Option<KeyValue>, ReadError>> {
    loop {
        let changes = match store.changes_since(*seen, OBSERVED_AT_ONCE) {
            Ok(changes) => changes,
            Err(ReadError::Compacted { .. }) => return Some(Ok(None)),
            Err(error) => return Some(Err(error)),
        };
        if changes.is_empty() {
            return None;
        }
        for change in changes {
            match change {
                Change::Put(kv) => {
                    *seen = kv.mod_revision;
                    if kv.key == leader.key {
                        return Some(Ok(Some(kv)));
                    }
                }
                Change::Delete { key, revision } => {
                    *seen = revision;
                    if key == leader.key {
                        return Some(Ok(None));
                    }
                }
            }
        }
    }
}
