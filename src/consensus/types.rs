//! openraft's types with ours put in, and the translations between three shapes of the
//! same things: openraft's, the log's on disk, and the peer protocol's.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::vote::leader_id_std;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;

use crate::proto::{log as log_pb, peer as pb};
use crate::storage::log::{self as storage_log, EntryKind};
use crate::storage::mvcc::Reply;
use crate::types::{Incarnation, LogId, MemberId, MemberName};

use super::state_machine::StateMachine;

/// A member as consensus knows it: enough to reach it and to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: MemberName,
    pub url: String,
    pub incarnation: Incarnation,
}

/// Only openraft's conformance suite makes members out of nothing.
#[cfg(test)]
impl Default for Member {
    fn default() -> Self {
        let name = MemberName::parse("node").expect("a valid name");
        Self { name, url: String::new(), incarnation: Incarnation(uuid::Uuid::nil()) }
    }
}

/// The payload of a normal log entry: an encoded `CommandBatch`. Encoded once by the
/// leader; the log, the followers' logs and the wire carry the same bytes.
#[derive(Clone)]
pub struct Batch {
    pub encoded: Bytes,
    /// Fires when this node's own log has the entry on disk (`ack=leader`). Never
    /// leaves the process; taken out on append.
    pub persisted: Option<PersistedSlot>,
    /// This node made it, as leader: others get it from here.
    pub own: bool,
}

impl From<Bytes> for Batch {
    /// One that is in the log already, or came from its leader.
    fn from(encoded: Bytes) -> Self {
        Self { encoded, persisted: None, own: false }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.encoded.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The sending half of a persisted notice. Shared, because openraft clones payloads;
/// dropped unfired it means *unknown*.
#[derive(Clone)]
pub struct PersistedSlot(Arc<Mutex<Option<oneshot::Sender<LogId>>>>);

impl PersistedSlot {
    pub fn new() -> (Self, oneshot::Receiver<LogId>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    pub fn fire(&self, at: LogId) {
        if let Some(sender) = self.0.lock().take() {
            // The waiter may have given up.
            let _ = sender.send(at);
        }
    }
}

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Batch,
        R = Vec<Reply>,
        NodeId = u64,
        Node = Member,
        // One leader a term; openraft's default allows several.
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = super::runtime::NodeRuntime,
);

pub type RaftLogId = openraft::alias::LogIdOf<TypeConfig>;
pub type RaftVote = openraft::alias::VoteOf<TypeConfig>;
pub type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
pub type RaftMembership = openraft::Membership<u64, Member>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub type RaftSnapshot = openraft::alias::SnapshotOf<TypeConfig, super::state_machine::SnapshotData>;
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub type RaftMetrics = openraft::RaftMetrics<TypeConfig>;

pub fn to_raft_id(id: LogId) -> RaftLogId {
    RaftLogId::new_term_index(id.term, id.index)
}

pub fn from_raft_id(id: RaftLogId) -> LogId {
    LogId { term: id.leader_id.term, index: id.index }
}

pub fn to_raft_vote(vote: storage_log::Vote) -> RaftVote {
    match vote.committed {
        true => RaftVote::new_committed(vote.term, vote.voted_for),
        false => RaftVote::new(vote.term, vote.voted_for),
    }
}

pub fn from_raft_vote(vote: &RaftVote) -> storage_log::Vote {
    storage_log::Vote {
        term: vote.leader_id.term,
        voted_for: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// What arrived or was read back makes no sense.
fn invalid(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

// ---- membership

pub fn encode_member(id: u64, member: &Member) -> log_pb::Member {
    log_pb::Member {
        id,
        name: member.name.to_string(),
        url: member.url.clone(),
        incarnation: member.incarnation.to_bytes(),
    }
}

pub fn decode_member(member: &log_pb::Member) -> io::Result<(MemberId, Member)> {
    let name = MemberName::parse(&member.name).map_err(invalid)?;
    let incarnation = Incarnation::from_slice(&member.incarnation)
        .ok_or_else(|| invalid("a member's incarnation is not 16 bytes"))?;
    Ok((MemberId(member.id), Member { name, url: member.url.clone(), incarnation }))
}

pub fn encode_membership(membership: &RaftMembership) -> log_pb::Membership {
    let configs = membership.get_joint_config().iter();
    let set = |voters: &std::collections::BTreeSet<u64>| log_pb::VoterSet {
        voters: voters.iter().copied().collect(),
    };
    log_pb::Membership {
        configs: configs.map(set).collect(),
        members: membership.nodes().map(|(id, member)| encode_member(*id, member)).collect(),
    }
}

pub fn decode_membership(message: &log_pb::Membership) -> io::Result<RaftMembership> {
    let configs = message.configs.iter().map(|set| set.voters.iter().copied().collect()).collect();
    let mut nodes = std::collections::BTreeMap::new();
    for member in &message.members {
        let (id, member) = decode_member(member)?;
        nodes.insert(id.0, member);
    }
    RaftMembership::new(configs, nodes).map_err(invalid)
}

pub fn decode_membership_bytes(bytes: &[u8]) -> io::Result<RaftMembership> {
    decode_membership(&log_pb::Membership::decode(bytes).map_err(invalid)?)
}

// ---- entries: openraft <-> log

pub fn to_log_entry(entry: &RaftEntry) -> storage_log::Entry {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(batch) => (EntryKind::Batch, batch.encoded.clone()),
        EntryPayload::Membership(membership) => {
            (EntryKind::Membership, encode_membership(membership).encode_to_vec().into())
        }
    };
    storage_log::Entry { id: from_raft_id(entry.log_id), kind, payload }
}

pub fn from_log_entry(entry: storage_log::Entry) -> io::Result<RaftEntry> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Batch => EntryPayload::Normal(entry.payload.into()),
        EntryKind::Membership => EntryPayload::Membership(decode_membership_bytes(&entry.payload)?),
    };
    Ok(RaftEntry { log_id: to_raft_id(entry.id), payload })
}

// ---- openraft <-> peer protocol

pub fn log_id_to_pb(id: RaftLogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

pub fn log_id_from_pb(id: pb::LogId) -> RaftLogId {
    RaftLogId::new_term_index(id.term, id.index)
}

pub fn vote_to_pb(vote: &RaftVote) -> pb::Vote {
    let storage_log::Vote { term, voted_for, committed } = from_raft_vote(vote);
    pb::Vote { term, voted_for, committed }
}

pub fn vote_from_pb(vote: Option<pb::Vote>) -> io::Result<RaftVote> {
    let pb::Vote { term, voted_for, committed } = vote.ok_or_else(|| invalid("a message without a vote"))?;
    Ok(to_raft_vote(storage_log::Vote { term, voted_for, committed }))
}

pub fn entry_to_pb(entry: RaftEntry) -> pb::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(batch) => pb::entry::Payload::Batch(batch.encoded),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(encode_membership(&membership))
        }
    };
    pb::Entry { id: Some(log_id_to_pb(entry.log_id)), payload: Some(payload) }
}

pub fn entry_from_pb(entry: pb::Entry) -> io::Result<RaftEntry> {
    let log_id = log_id_from_pb(entry.id.ok_or_else(|| invalid("an entry without an id"))?);
    let payload =
        match entry.payload.ok_or_else(|| invalid("an entry of a kind this version does not know"))? {
            pb::entry::Payload::Blank(_) => EntryPayload::Blank,
            pb::entry::Payload::Batch(encoded) => EntryPayload::Normal(encoded.into()),
            pb::entry::Payload::Membership(membership) => {
                EntryPayload::Membership(decode_membership(&membership)?)
            }
        };
    Ok(RaftEntry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        Member {
            name: MemberName::parse(name).expect("name"),
            url: format!("http://{name}:4000"),
            incarnation: Incarnation(uuid::Uuid::from_u128(7)),
        }
    }

    #[test]
    fn entries_survive_the_log_and_the_wire() {
        let membership = RaftMembership::new(
            vec![[1, 2].into(), [1, 3].into()],
            [(1, member("node-1")), (2, member("node-2")), (3, member("node-3"))]
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
        )
        .expect("membership");
        let batch = Batch::from(Bytes::from_static(b"batch"));
        for payload in
            [EntryPayload::Blank, EntryPayload::Normal(batch), EntryPayload::Membership(membership)]
        {
            let entry = RaftEntry { log_id: RaftLogId::new_term_index(3, 9), payload };
            let through_log = from_log_entry(to_log_entry(&entry)).expect("log");
            let through_wire = entry_from_pb(entry_to_pb(entry.clone())).expect("wire");
            assert_eq!(format!("{through_log:?}"), format!("{entry:?}"));
            assert_eq!(format!("{through_wire:?}"), format!("{entry:?}"));
        }
    }

    #[test]
    fn a_message_that_lacks_its_parts_is_refused() {
        assert!(vote_from_pb(None).is_err());
        assert!(entry_from_pb(pb::Entry::default()).is_err());
    }
}
