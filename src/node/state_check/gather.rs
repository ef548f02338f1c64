//! Asking the others what they hold at one entry, until that is enough for a verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::consensus::network::pool::{Lane, Peer};
use crate::consensus::view::MemberView;
use crate::proto::peer as pb;
use crate::proto::peer::state_hash_reply::Result as Answer;
use crate::storage::mvcc::{STATE_HASH_FORMAT, StateHash};
use crate::types::{LogId, MemberId};

use super::super::Running;
use super::judge::{Holds, Report, Verdict, judge};

/// Between two rounds of questions, and how long one may take.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Once a majority has spoken the rest is only asked so that the log can name it.
const GRACE: Duration = Duration::from_secs(2);
/// Without a majority: after so long without a word from those who have not said what they
/// hold, the others decide. Long enough for a restart.
const PATIENCE: Duration = Duration::from_secs(10);
/// A node that says that it still reads its table is waited for, but not for ever.
const LONGEST: Duration = Duration::from_secs(600);

/// Judges this node, which holds `mine` after the entry at `at`.
pub async fn verdict(running: &Running, at: LogId, proposer: MemberId, mine: StateHash) -> Verdict {
    let began = Instant::now();
    let mut last_word = began;
    let mut answers = BTreeMap::from([(running.me(), Holds::Hash(mine))]);
    loop {
        // Members may come and go meanwhile.
        let members = running.consensus.view().members;
        if ask_all(running, &members, at, &mut answers).await {
            last_word = Instant::now();
        }
        let report = |member: &MemberView| Report {
            id: member.id,
            name: member.name.clone(),
            voter: member.voter,
            holds: answers.get(&member.id).copied().unwrap_or(Holds::NotYet),
        };
        let reports: Vec<Report> = members.iter().map(report).collect();
        let verdict = judge(mine, proposer, &reports);
        let complete = reports.iter().all(|report| report.holds != Holds::NotYet);
        let enough = match verdict.is_settled() {
            true => began.elapsed() > GRACE,
            false => last_word.elapsed() > PATIENCE || began.elapsed() > LONGEST,
        };
        if complete || enough {
            return verdict;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// One round: everybody who has not said yet, at the same time. True when somebody answered.
async fn ask_all(
    running: &Running,
    members: &[MemberView],
    at: LogId,
    answers: &mut BTreeMap<MemberId, Holds>,
) -> bool {
    let silent = members.iter().map(|member| member.id).filter(|id| !answers.contains_key(id));
    let asking = silent.filter_map(|id| running.consensus.peer(id)).map(|peer| ask(peer, at));
    let mut heard = false;
    for (id, holds) in join_all(asking).await {
        heard |= holds.is_some();
        if let Some(holds) = holds.filter(|holds| *holds != Holds::NotYet) {
            answers.insert(id, holds);
        }
    }
    heard
}

async fn ask(peer: Arc<Peer>, at: LogId) -> (MemberId, Option<Holds>) {
    let answer = tokio::time::timeout(ASK_TIMEOUT, question(&peer, at)).await;
    (peer.id(), answer.ok().flatten())
}

/// `None` when it does not answer.
async fn question(peer: &Arc<Peer>, at: LogId) -> Option<Holds> {
    let mut client = peer.client(Lane::Control).await.ok()?;
    let message = pb::StateHashRequest {
        header: Some(peer.header()),
        at: Some(pb::LogId { term: at.term, index: at.index }),
        format: STATE_HASH_FORMAT,
    };
    match peer.call(client.state_hash(message)).await {
        Ok(response) => Some(holds(response.into_inner())),
        // An older version.
        Err(status) if status.code() == tonic::Code::Unimplemented => Some(Holds::Nothing),
        Err(status) => {
            let why = peer.failed(Lane::Control, &status).await;
            tracing::debug!(peer = %peer.url(), "no answer about its state: {why}");
            None
        }
    }
}

fn holds(reply: pb::StateHashReply) -> Holds {
    match reply.result {
        Some(Answer::Hash(hash)) => StateHash::try_from(hash.as_ref()).map_or(Holds::Nothing, Holds::Hash),
        Some(Answer::Later(_)) => Holds::NotYet,
        Some(Answer::Never(_)) | None => Holds::Nothing,
    }
}
