//! The header that every reply of etcd's has.

use crate::node::Node;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::types::Revision;

use super::Api;

impl Api {
    /// For a reply that shows the store at `revision`.
    pub fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(of(&self.node, revision, self.node.term()))
    }

    /// For a write that was committed in `term`.
    pub fn header_in_term(&self, revision: Revision, term: u64) -> Option<ResponseHeader> {
        Some(of(&self.node, revision, term))
    }
}

/// Without a cluster all ids are 0, as in a reply of a member that is just starting.
fn of(node: &Node, revision: Revision, raft_term: u64) -> ResponseHeader {
    let (cluster_id, member_id) = node.ids().map_or((0, 0), |(cluster, member)| (cluster.0, member.0));
    ResponseHeader { cluster_id, member_id, revision: revision.cast_signed(), raft_term }
}

/// Inside a transaction's reply only the revision is told.
pub fn bare(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.cast_signed(), ..ResponseHeader::default() })
}
