//! Peers' messages of arbitrary bytes: decoded or refused, never a panic.

use prost::Message;

use super::server::{append_from_pb, vote_request_from_pb};
use crate::consensus::types::{
    decode_membership, decode_membership_bytes, entry_to_pb, log_id_to_pb, vote_to_pb,
};
use crate::fuzz::{explore, mutate};
use crate::proto::log as log_pb;
use crate::proto::peer as pb;

/// Everything that a peer may send, from bytes to what the engine gets.
fn decode(bytes: &[u8]) {
    if let Ok(message) = pb::AppendRequest::decode(bytes)
        && let Ok(append) = append_from_pb(message)
    {
        for entry in append.entries {
            let id = entry.log_id;
            assert_eq!(entry_to_pb(entry).id, Some(log_id_to_pb(id)));
        }
    }
    if let Ok(message) = pb::VoteRequest::decode(bytes)
        && let Ok(request) = vote_request_from_pb(message)
    {
        assert_eq!(Some(vote_to_pb(&request.vote)), message.vote);
    }
    if let Ok(pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) }) =
        pb::SnapshotPart::decode(bytes)
    {
        let _ = decode_membership(&header.membership.unwrap_or_default());
    }
    let _ = decode_membership_bytes(bytes);
    let _ = log_pb::CommandBatch::decode(bytes);
    let _ = pb::TransferRequest::decode(bytes);
    let _ = pb::Question::decode(bytes);
    let _ = pb::Answer::decode(bytes);
    let _ = pb::ForwardRequest::decode(bytes);
    let _ = pb::RejoinRequest::decode(bytes);
    let _ = pb::HelloRequest::decode(bytes);
    let _ = pb::HelloReply::decode(bytes);
}

fn valid_messages() -> Vec<Vec<u8>> {
    let header = Some(pb::Header { cluster: 1, from: 2, to: 3, run: Some(pb::Run { starts: 4, nonce: 5 }) });
    let vote = Some(pb::Vote { term: 6, voted_for: 2, committed: true });
    let at = |index| Some(pb::LogId { term: 6, index });
    let member = |id: u64| log_pb::Member {
        id,
        name: format!("node-{id}"),
        url: format!("http://node-{id}:4000"),
        incarnation: vec![id as u8; 16].into(),
    };
    let membership = log_pb::Membership {
        configs: vec![log_pb::VoterSet { voters: vec![1, 2] }, log_pb::VoterSet { voters: vec![2, 3] }],
        members: (1..=3).map(member).collect(),
    };
    let payloads = [
        pb::entry::Payload::Blank(pb::Blank {}),
        pb::entry::Payload::Batch(b"a batch".as_slice().into()),
        pb::entry::Payload::Membership(membership.clone()),
    ];
    let entries = (7..).zip(payloads).map(|(n, payload)| pb::Entry { id: at(n), payload: Some(payload) });
    let append = pb::AppendRequest { header, vote, prev: at(6), entries: entries.collect(), commit: at(6) };
    let snapshot = pb::SnapshotHeader {
        header,
        format: 1,
        vote,
        last: at(9),
        membership_at: at(3),
        membership: Some(membership.clone()),
    };
    let part = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(snapshot)) };
    let request = pb::VoteRequest { header, vote, last: at(9), leadership_transfer: true };
    vec![append.encode_to_vec(), part.encode_to_vec(), request.encode_to_vec(), membership.encode_to_vec()]
}

#[test]
fn peer_messages_of_random_bytes_are_decoded_or_refused() {
    explore("peer_messages_of_random_bytes", 1024, decode);
}

#[test]
fn peer_messages_of_damage_are_decoded_or_refused() {
    let messages = valid_messages();
    messages.iter().for_each(|message| decode(message));
    explore("peer_messages_of_damage", 64, |input| {
        let [which, script @ ..] = input else { return };
        let mut message = messages[usize::from(*which) % messages.len()].clone();
        mutate(&mut message, script);
        decode(&message);
    });
}
