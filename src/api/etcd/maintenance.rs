//! The Maintenance service, as far as clients ask before they work.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Status};

use super::{Answer, Api, Result};
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::maintenance_server::Maintenance as Service;
use crate::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use crate::types::Revision;

/// Whose interface this is.
pub const ETCD_VERSION: &str = "3.5.1";
/// What all members of an etcd of that version can do together.
pub const ETCD_CLUSTER_VERSION: &str = "3.5.0";

pub struct Maintenance(pub Api);

impl Api {
    async fn status(&self, _: StatusRequest) -> Result<StatusResponse> {
        let status = self.node.status();
        let stats = self.node.store().stats();
        let bytes = i64::try_from(stats.disk_bytes).unwrap_or(i64::MAX);
        let leads = |member: &&crate::node::MemberStatus| Some(&member.name) == status.leader.as_ref();
        let me = status.members.iter().find(|member| Some(member.id) == status.member);
        Ok(StatusResponse {
            header: self.header(status.revision),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: status.members.iter().find(leads).map_or(0, |member| member.id.0),
            raft_index: status.committed.unwrap_or(0),
            raft_term: status.term,
            raft_applied_index: status.applied.unwrap_or(0),
            errors: self.node.alarm().map(|alarm| alarm.to_string()).into_iter().collect(),
            is_learner: me.is_some_and(|member| !member.voter),
        })
    }

    /// Alarms are facts here, not switches: they end when their reason ends.
    async fn alarms(&self, request: AlarmRequest) -> Result<AlarmResponse> {
        let status = self.node.status();
        let member_id = status.member.map_or(0, |member| member.0);
        let mut alarms = Vec::new();
        if status.in_alarm {
            alarms.push(AlarmMember { member_id, alarm: AlarmType::Corrupt.into() });
        }
        if self.node.disk_is_low() {
            alarms.push(AlarmMember { member_id, alarm: AlarmType::Nospace.into() });
        }
        if request.action() == AlarmAction::Get && request.alarm() != AlarmType::None {
            alarms.retain(|alarm| alarm.alarm == request.alarm);
        }
        Ok(AlarmResponse { header: self.header(status.revision), alarms })
    }

    async fn hash(&self, _: HashRequest) -> Result<HashResponse> {
        let (_, hash) = self.node.state_hash().await?;
        Ok(HashResponse { header: self.header(self.node.store().revision()), hash: short(hash) })
    }

    async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse> {
        let at = Revision::try_from(request.revision).ok().filter(|revision| *revision > 0);
        let hashed = self.node.hash_of_keys(at).await??;
        Ok(HashKvResponse {
            header: self.header(hashed.revision),
            hash: short(hashed.hash),
            compact_revision: hashed.compacted.cast_signed(),
        })
    }
}

/// As many bits as etcd's hashes have. They compare among our members alone.
fn short(hash: [u8; 32]) -> u32 {
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[tonic::async_trait]
impl Service for Maintenance {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        self.0.unary("Maintenance/Alarm", request, |request| self.0.alarms(request)).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.0.unary("Maintenance/Status", request, |request| self.0.status(request)).await
    }

    async fn hash(&self, request: Request<HashRequest>) -> Answer<HashResponse> {
        self.0.unary("Maintenance/Hash", request, |request| self.0.hash(request)).await
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        self.0.unary("Maintenance/HashKV", request, |request| self.0.hash_kv(request)).await
    }

    async fn move_leader(&self, _: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        Err(Status::unimplemented("not served yet: a node that is stopped by SIGTERM hands over first"))
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        Err(Status::unimplemented("not served yet; pages that compaction frees are used again without it"))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        Err(Status::unimplemented("not served yet: back up DATA_DIR of a stopped node"))
    }
}
