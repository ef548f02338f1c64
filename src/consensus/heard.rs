//! When this node last heard a leader, since it started. The vote on disk is not news:
//! a restarted node must not name a leader that it has not heard.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::{MemberId, Term};

use super::types::RaftVote;

/// A leader's last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWord {
    pub term: Term,
    pub leader: MemberId,
    pub at: Instant,
    /// Its process has ended since (`detector`).
    pub gone: bool,
}

#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Option<LastWord>>>);

impl Heard {
    /// A leader with this vote spoke to us.
    pub fn note(&self, vote: &RaftVote) {
        if !vote.committed {
            return;
        }
        let word = LastWord {
            term: vote.leader_id.term,
            leader: MemberId(vote.leader_id.voted_for),
            at: Instant::now(),
            gone: false,
        };
        let mut last = self.0.lock();
        if last.is_none_or(|last| last.term <= word.term) {
            *last = Some(word);
        }
    }

    /// Who spoke this word is gone. False if that is known, or somebody has spoken since.
    pub fn note_gone(&self, word: LastWord) -> bool {
        let mut last = self.0.lock();
        let newest = *last == Some(word);
        if newest {
            *last = Some(LastWord { gone: true, ..word });
        }
        newest
    }

    /// The last word of any leader, if there was one.
    pub fn last(&self) -> Option<LastWord> {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_speaks_again_is_not_gone() {
        let heard = Heard::default();
        let is_gone = || heard.last().expect("a word").gone;
        heard.note(&RaftVote::new_committed(1, 7));
        let word = heard.last().expect("a word");
        assert!(heard.note_gone(word) && is_gone());
        assert!(!heard.note_gone(word), "that is known");
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        heard.note(&RaftVote::new_committed(1, 7));
        assert!(!is_gone());
        assert!(!heard.note_gone(word) && !is_gone(), "an older word says nothing");
    }
}
