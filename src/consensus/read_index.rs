//! ReadIndex (Ongaro's thesis, section 6.4): a leader confirms with a majority that it
//! still leads before it says how far a read must see.
//!
//! openraft has one, too. Its answers to replication are matched to what was sent by log
//! id, so the answer to an older message also counts for a later one that ends at the
//! same entry; a leader that was paused could be confirmed by answers from before the
//! pause. Here each answer belongs to its question.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;

use crate::env::planted::{Bug, is_planted};
use crate::types::{LogId, MemberId};

use super::Consensus;
use super::network::client::{Confirmation, ask_to_confirm};
use super::network::pool::Peer;
use super::types::{RaftMembership, RaftVote, to_raft_id, to_raft_vote};

/// Why leadership could not be confirmed for a read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    #[error("not the leader")]
    NotLeader,
    #[error("no quorum confirmed the leader")]
    NoQuorum,
    #[error("{0}")]
    Stopped(String),
}

impl Consensus {
    /// Asks a quorum whether this node still leads, and says what must be applied before
    /// a read that came before this call.
    pub async fn confirm_leadership(&self) -> Result<LogId, ConfirmError> {
        let (vote, membership) = self.leading_as().await?.ok_or(ConfirmError::NotLeader)?;
        let read_index = self.applied_in(vote.leader_id.term).await?;
        // A peer that answers later than this is no better than one that does not.
        let patience = self.options().lease() * 2;
        if is_planted(Bug::ReadIndexWithoutRound) || is_planted(Bug::StaleLease) && self.has_lease() {
            return Ok(read_index);
        }
        self.confirmed_by_quorum(&vote, &membership, read_index, patience).await?;
        Ok(read_index)
    }

    /// This node's last vote: none that it gave before this call is missing.
    pub fn last_vote(&self) -> Option<RaftVote> {
        self.inner.log.vote().map(to_raft_vote)
    }

    /// As [`Consensus::confirm_leadership`], for a member that asks and brings its last vote:
    /// whoever led after this node would have been elected by a majority, so if asker and
    /// leader are one, one of the two has voted for it. `None` where they are not, or the asker
    /// has: then it takes a round.
    pub async fn confirmed_by_asker(
        &self,
        asker: MemberId,
        its_vote: &RaftVote,
    ) -> Result<Option<LogId>, ConfirmError> {
        let (vote, membership) = self.leading_as().await?.ok_or(ConfirmError::NotLeader)?;
        if !asker_is_enough(&membership, &vote, asker, its_vote) && !is_planted(Bug::AskerIsEnough) {
            return Ok(None);
        }
        self.applied_in(vote.leader_id.term).await.map(Some)
    }

    /// What a lease would go by: for a planted bug alone.
    fn has_lease(&self) -> bool {
        self.view().quorum_acked_ago.is_some_and(|ago| ago <= self.options().lease())
    }

    /// The vote under which this node leads, and the members in force, as the engine has
    /// them at one moment after this call.
    async fn leading_as(&self) -> Result<Option<(RaftVote, RaftMembership)>, ConfirmError> {
        let look = self.inner.raft.with_raft_state(|state| {
            let leads = state.server_state == ServerState::Leader;
            leads.then(|| (*state.vote_ref(), state.membership_state.effective().membership().clone()))
        });
        look.await.map_err(|fatal| ConfirmError::Stopped(fatal.to_string()))
    }

    /// The last applied entry. Everything that was ever acknowledged is at or before it
    /// once it is of the leader's own term: a fresh leader waits for that.
    async fn applied_in(&self, term: u64) -> Result<LogId, ConfirmError> {
        let mut applied = self.watch_applied();
        let reached = applied.wait_for(|applied| applied.is_some_and(|at| at.term >= term)).await;
        match reached.map(|applied| *applied) {
            Ok(Some(at)) if at.term == term => Ok(at),
            Ok(_) => Err(ConfirmError::NotLeader),
            Err(_) => Err(ConfirmError::Stopped("the node is stopping".to_owned())),
        }
    }

    async fn confirmed_by_quorum(
        &self,
        vote: &RaftVote,
        membership: &RaftMembership,
        commit: LogId,
        patience: Duration,
    ) -> Result<(), ConfirmError> {
        let me = self.me();
        let mut confirmed = BTreeSet::from([me.0]);
        if is_quorum(membership, &confirmed) {
            return Ok(());
        }
        let peers = membership.nodes().filter(|(id, _)| **id != me.0);
        let mut answers: FuturesUnordered<_> = peers
            .map(|(id, member)| self.pool().peer(MemberId(*id), member))
            .map(|peer| confirm(peer, *vote, commit, patience))
            .collect();
        while let Some((id, answer)) = answers.next().await {
            match answer {
                Some(Confirmation::Follows) => drop(confirmed.insert(id.0)),
                Some(Confirmation::Deposed) => return Err(ConfirmError::NotLeader),
                None => {}
            }
            if is_quorum(membership, &confirmed) {
                // The others may answer in peace: a call that is given up costs messages.
                tokio::spawn(answers.for_each(|_| std::future::ready(())));
                return Ok(());
            }
        }
        Err(ConfirmError::NoQuorum)
    }
}

async fn confirm(
    peer: Arc<Peer>,
    vote: RaftVote,
    commit: LogId,
    patience: Duration,
) -> (MemberId, Option<Confirmation>) {
    let answer = ask_to_confirm(&peer, vote, to_raft_id(commit), patience).await;
    (peer.id(), answer.ok())
}

/// Whether nobody can lead but the node with this vote, as far as the asker and that node know.
fn asker_is_enough(
    membership: &RaftMembership,
    vote: &RaftVote,
    asker: MemberId,
    its_vote: &RaftVote,
) -> bool {
    let both = BTreeSet::from([vote.leader_id.voted_for, asker.0]);
    its_vote.leader_id == vote.leader_id && is_quorum(membership, &both)
}

/// A majority of each half of a joint membership.
fn is_quorum(membership: &RaftMembership, confirmed: &BTreeSet<u64>) -> bool {
    let majority = |voters: &BTreeSet<u64>| voters.intersection(confirmed).count() * 2 > voters.len();
    membership.get_joint_config().iter().all(majority)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::types::Member;
    use super::*;

    fn membership(halves: &[&[u64]]) -> RaftMembership {
        let sets: Vec<BTreeSet<u64>> = halves.iter().map(|half| half.iter().copied().collect()).collect();
        let nodes: BTreeMap<u64, Member> = sets.iter().flatten().map(|id| (*id, Member::default())).collect();
        RaftMembership::new(sets, nodes).expect("a valid membership")
    }

    fn quorum(halves: &[&[u64]], confirmed: &[u64]) -> bool {
        is_quorum(&membership(halves), &confirmed.iter().copied().collect())
    }

    #[test]
    fn an_asker_is_enough_where_it_and_the_leader_are_a_majority_and_it_votes_for_no_other() {
        let leads = RaftVote::new_committed(7, 1);
        let enough = |halves: &[&[u64]], asker, its_vote| {
            asker_is_enough(&membership(halves), &leads, MemberId(asker), &its_vote)
        };
        for its_vote in [leads, RaftVote::new(7, 1)] {
            assert!(enough(&[&[1, 2, 3]], 3, its_vote));
            assert!(!enough(&[&[1, 2, 3]], 9, its_vote), "it has no vote");
            assert!(!enough(&[&[1, 2, 3]], 1, its_vote), "it is the leader itself");
            assert!(!enough(&[&[1, 2, 3, 4, 5]], 3, its_vote));
            assert!(!enough(&[&[1, 2, 3], &[1, 4, 5]], 3, its_vote));
        }
        for (term, voted_for) in [(8, 2), (8, 1), (7, 3), (6, 1)] {
            for its_vote in [RaftVote::new(term, voted_for), RaftVote::new_committed(term, voted_for)] {
                assert!(!enough(&[&[1, 2, 3]], 3, its_vote), "{its_vote}");
            }
        }
    }

    #[test]
    fn a_quorum_is_a_majority_of_each_half() {
        assert!(quorum(&[&[1]], &[1]));
        assert!(!quorum(&[&[1, 2]], &[1]));
        assert!(quorum(&[&[1, 2, 3]], &[1, 3]));
        assert!(!quorum(&[&[1, 2, 3]], &[1, 9]));
        assert!(!quorum(&[&[1, 2, 3, 4]], &[1, 2]));
        assert!(!quorum(&[&[1, 2, 3], &[1, 4, 5]], &[1, 2, 3]));
        assert!(quorum(&[&[1, 2, 3], &[1, 4, 5]], &[1, 2, 4]));
    }
}
