//! The Cluster service: who is in it. Changing that is not served yet.

use tonic::{Request, Status};

use super::{Answer, Api, Result};
use crate::node::MemberStatus;
use crate::proto::etcdserverpb::cluster_server::Cluster as Service;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};

pub struct Cluster(pub Api);

/// Peers and clients share a port, so both find a member at the same URL.
fn member(status: MemberStatus) -> Member {
    Member {
        id: status.id.0,
        name: status.name.to_string(),
        peer_ur_ls: vec![status.url.clone()],
        client_ur_ls: vec![status.url],
        is_learner: !status.voter,
    }
}

impl Api {
    async fn members(&self, request: MemberListRequest) -> Result<MemberListResponse> {
        if request.linearizable {
            self.readable(false).await?;
        }
        let members = self.node.status().members.into_iter().map(member).collect();
        Ok(MemberListResponse { header: self.header(0), members })
    }
}

fn fixed_membership() -> Status {
    Status::unimplemented(
        "this server does not change its membership by request: a wiped node comes back by itself",
    )
}

#[tonic::async_trait]
impl Service for Cluster {
    async fn member_list(&self, request: Request<MemberListRequest>) -> Answer<MemberListResponse> {
        self.0.unary("Cluster/MemberList", request, |request| self.0.members(request)).await
    }

    async fn member_add(&self, _: Request<MemberAddRequest>) -> Answer<MemberAddResponse> {
        Err(fixed_membership())
    }

    async fn member_remove(&self, _: Request<MemberRemoveRequest>) -> Answer<MemberRemoveResponse> {
        Err(fixed_membership())
    }

    async fn member_update(&self, _: Request<MemberUpdateRequest>) -> Answer<MemberUpdateResponse> {
        Err(fixed_membership())
    }

    async fn member_promote(&self, _: Request<MemberPromoteRequest>) -> Answer<MemberPromoteResponse> {
        Err(fixed_membership())
    }
}
