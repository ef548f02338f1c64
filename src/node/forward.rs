//! Passing a write on to the leader, when the client asked for it. Sent once: a
//! connection that breaks after sending leaves the outcome unknown.

use std::time::Duration;

use crate::consensus::network::pool::Lane;
use crate::consensus::network::{refusal_kind, was_never_sent};
use crate::env::planted::{Bug, is_planted};
use crate::error::{Error, LeaderHint, Result};
use crate::proto::peer::{self as pb, forward_reply};
use crate::types::{Ack, LogId, MemberName};

use super::{Running, Shared, WriteRequest, Written, wire};

/// What a client is told to wait when the leader is overloaded.
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl Shared {
    pub(crate) async fn forward(
        &self,
        running: &Running,
        leader: LeaderHint,
        request: WriteRequest,
    ) -> Result<Written> {
        let not_applied =
            || Error::NotLeader { role: running.consensus.role(), leader: Some(leader.clone()) };
        let Some(peer) = running.consensus.standing().0.leader.and_then(|id| running.consensus.peer(id))
        else {
            return Err(not_applied());
        };
        let mut client = peer.client(Lane::Control).await.map_err(|_| not_applied())?;
        let message = pb::ForwardRequest {
            header: Some(peer.header()),
            command: Some(request.command),
            ack: encode_ack(request.ack),
            timeout_ms: request.timeout.as_millis() as u64,
        };
        if is_planted(Bug::ForwardedTwice) {
            let first = peer.call(client.forward(message.clone()));
            if let Ok(Ok(response)) = tokio::time::timeout(request.timeout / 4, first).await {
                return decode_reply(response.into_inner(), not_applied);
            }
        }
        match tokio::time::timeout(request.timeout, peer.call(client.forward(message))).await {
            Err(_) => {
                Err(Error::Unknown { why: format!("no answer from the leader within {:?}", request.timeout) })
            }
            // Refused at the door: it never reached the leader's queue.
            Ok(Err(status)) if refusal_kind(&status).is_some() => Err(not_applied()),
            Ok(Err(status)) => {
                let why = peer.failed(Lane::Control, &status).await;
                Err(if was_never_sent(&status) { not_applied() } else { Error::Unknown { why } })
            }
            Ok(Ok(response)) => decode_reply(response.into_inner(), not_applied),
        }
    }
}

fn encode_ack(ack: Ack) -> u32 {
    match ack {
        Ack::Leader => 0,
        Ack::Quorum => 1,
        Ack::All => 2,
    }
}

pub(crate) fn decode_ack(ack: u32) -> Ack {
    match ack {
        0 => Ack::Leader,
        2 => Ack::All,
        _ => Ack::Quorum,
    }
}

/// A write's result on its way back to the follower that asked.
pub(crate) fn encode_result(result: Result<Written>) -> pb::ForwardReply {
    use forward_reply::Result as Reply;
    let result = match result {
        Ok(written) => Reply::Written(encode_written(written)),
        Err(Error::Unknown { why }) => Reply::Unknown(why),
        Err(Error::Invalid(why)) => Reply::Invalid(why),
        Err(Error::Overloaded { .. }) => Reply::TooManyRequests(true),
        Err(Error::DiskFull) => Reply::DiskFull(true),
        Err(error) => Reply::NotApplied(error.to_string()),
    };
    pb::ForwardReply { result: Some(result) }
}

fn encode_written(written: Written) -> pb::Written {
    pb::Written {
        term: written.at.term,
        index: written.at.index,
        leader: written.leader.to_string(),
        acked: written.acked.iter().map(ToString::to_string).collect(),
        reply: written.reply.map(pb::Reply::from),
    }
}

fn decode_reply(reply: pb::ForwardReply, not_applied: impl Fn() -> Error) -> Result<Written> {
    use forward_reply::Result as Reply;
    match reply.result {
        Some(Reply::Written(written)) => decode_written(written),
        Some(Reply::Unknown(why)) => Err(Error::Unknown { why }),
        Some(Reply::Invalid(why)) => Err(Error::Invalid(why)),
        Some(Reply::DiskFull(_)) => Err(Error::DiskFull),
        Some(Reply::TooManyRequests(_)) => Err(Error::Overloaded {
            why: "the leader has too many writes waiting".to_owned(),
            retry_after: RETRY_AFTER,
        }),
        Some(Reply::NotApplied(_)) => Err(not_applied()),
        None => Err(unknown_kind()),
    }
}

fn unknown_kind() -> Error {
    Error::Unknown { why: "the leader's answer is of a kind this version does not know".to_owned() }
}

fn decode_written(written: pb::Written) -> Result<Written> {
    let leader = MemberName::parse(&written.leader).map_err(|why| Error::Unknown { why })?;
    let at = LogId { term: written.term, index: written.index };
    let acked = written.acked.iter().filter_map(|name| MemberName::parse(name).ok()).collect();
    let reply = match written.reply {
        // Answered when the leader's own log had it.
        None => None,
        Some(reply) => Some(wire::decode_reply(reply).ok_or_else(unknown_kind)?),
    };
    Ok(Written { reply, at, leader, acked })
}
