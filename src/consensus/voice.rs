//! Whether a leader may speak as one (check-quorum; Ongaro's thesis, section 6.2).
//!
//! A leader that is heard but hears nobody would keep its followers loyal and commit
//! nothing. Once no quorum has answered it for long enough it falls silent, in whatever
//! it says as a leader: heartbeats, entries, snapshots and the question whether it still
//! leads. The silence is long enough for the others to elect somebody; then it asks for
//! a moment whether it is heard again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::env::planted::{Bug, is_planted};

/// Set by whoever watches the quorum, asked before every word of a leader.
#[derive(Clone, Default)]
pub struct Voice {
    muted: Arc<AtomicBool>,
    unsound: Arc<AtomicBool>,
}

impl Voice {
    pub fn allow(&self, speaks: bool) {
        self.muted.store(!speaks, Ordering::Relaxed);
    }

    pub fn is_muted(&self) -> bool {
        self.muted.load(Ordering::Relaxed) && !is_planted(Bug::LeaderNeverSilent)
    }

    /// This node's log is sound, its state is not: nobody may be filled from it.
    pub fn set_unsound(&self, unsound: bool) {
        self.unsound.store(unsound, Ordering::Relaxed);
    }

    pub fn is_unsound(&self) -> bool {
        self.unsound.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// An answer of a quorum counts for so long.
    pub patience: Duration,
    /// Longer than the others take to give up on a leader and to elect another.
    pub silence: Duration,
    /// Long enough for a question and its answer.
    pub question: Duration,
}

impl Rhythm {
    /// Whether a leader speaks that no quorum has answered for `unanswered`.
    pub fn speaks(&self, unanswered: Duration) -> bool {
        let Some(lost_for) = unanswered.checked_sub(self.patience) else { return true };
        let round = (self.silence + self.question).as_nanos().max(1);
        lost_for.as_nanos() % round >= self.silence.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_broken_by_short_questions() {
        let ms = Duration::from_millis;
        let rhythm = Rhythm { patience: ms(500), silence: ms(1200), question: ms(100) };
        for (unanswered, speaks) in [
            (0, true),
            (499, true),
            (500, false),
            (1699, false),
            (1700, true),
            (1799, true),
            (1800, false),
            (2999, false),
            (3000, true),
        ] {
            assert_eq!(rhythm.speaks(ms(unanswered)), speaks, "after {unanswered} ms");
        }
    }
}
