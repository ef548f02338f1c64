//! How much history is kept: the leader compacts what is too old, or too much.
//!
//! Every node notes now and then which revision the store is at, so that whoever leads
//! knows how old a revision is. After a restart it knows less, and then history is kept
//! longer, never shorter. [`Retention::goal`] decides, [`compact`] proposes; a compaction
//! that comes to nothing is proposed again at the next look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::config::Config;
use crate::proto::log::{Compact, command::Op};
use crate::types::{Revision, Role};

use super::{Running, Shared};

/// How often to look: what comes in between is kept too long, by a second of writes.
const LOOK: Duration = Duration::from_secs(1);
/// The age is cut into so many steps: history is kept longer than asked by one at most.
const STEPS_PER_AGE: u32 = 20;
/// Past the number of revisions, by this part of it, one compaction takes them all. The more
/// it takes, the less each of them costs: the store removes long stretches in one go.
const SLACK: u64 = 8;

/// What is kept, and what is known of the ages of revisions.
struct Retention {
    /// Zero: whatever the age.
    age: Duration,
    /// 0: however many.
    revisions: u64,
    /// When the store was at which revision, oldest first.
    noted: VecDeque<(Instant, Revision)>,
}

impl Retention {
    fn new(config: &Config) -> Self {
        let (age, revisions) = (config.history_age, config.history_revisions);
        Self { age, revisions, noted: VecDeque::new() }
    }

    fn is_for_ever(&self) -> bool {
        self.age.is_zero() && self.revisions == 0
    }

    fn note(&mut self, now: Instant, revision: Revision) {
        let due = self.noted.back().is_none_or(|(at, _)| now - *at >= self.age / STEPS_PER_AGE);
        if due && !self.age.is_zero() {
            self.noted.push_back((now, revision));
        }
        // One that is old enough stays: it is the goal.
        while self.noted.get(1).is_some_and(|(at, _)| now - *at >= self.age) {
            self.noted.pop_front();
        }
    }

    /// Up to where to compact now.
    fn goal(&self, now: Instant, revision: Revision, compacted: Revision) -> Option<Revision> {
        let old_enough = self.noted.front().filter(|(at, _)| now - *at >= self.age);
        let by_age = old_enough.map_or(0, |(_, revision)| *revision);
        let most = self.revisions + self.revisions / SLACK;
        let too_many = self.revisions > 0 && revision.saturating_sub(compacted) > most;
        let by_number = if too_many { revision - self.revisions } else { 0 };
        // The first revision that anything can be compacted at.
        Some(by_age.max(by_number)).filter(|goal| *goal > compacted.max(1))
    }
}

/// The leader's setting counts.
pub(crate) async fn compact(shared: Arc<Shared>, running: Arc<Running>) {
    let mut retention = Retention::new(&shared.config);
    if retention.is_for_ever() {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        let (revision, compacted) = shared.store.revisions();
        retention.note(now, revision);
        if running.consensus.role() != Role::Leader {
            continue;
        }
        if let Some(revision) = retention.goal(now, revision, compacted) {
            let (compact, timeout) = (Op::Compact(Compact { revision }), shared.config.request_timeout);
            if let Err(error) = shared.write_as_leader(&running, compact, timeout).await {
                tracing::debug!(%error, "not compacted; the next look will see to it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn retention(age: Duration, revisions: u64) -> Retention {
        Retention { age, revisions, noted: VecDeque::new() }
    }

    #[test]
    fn what_is_older_than_the_age_goes_and_nothing_younger() {
        let (start, mut kept) = (Instant::now(), retention(HOUR, 0));
        // A revision every minute, for three hours.
        for minute in 0..180_u32 {
            let now = start + Duration::from_secs(60) * minute;
            let revision = u64::from(minute) + 1;
            kept.note(now, revision);
            let goal = kept.goal(now, revision, 0).unwrap_or(0);
            let (youngest, slack) = (u64::from(minute).saturating_sub(59), 60 / u64::from(STEPS_PER_AGE));
            assert!(goal <= youngest, "minute {minute}: {goal} is younger than an hour");
            assert!(minute < 65 || goal + slack >= youngest, "minute {minute}: only {goal} goes");
        }
        assert!(kept.noted.len() <= STEPS_PER_AGE as usize + 2, "{} notes", kept.noted.len());
    }

    #[test]
    fn more_revisions_than_asked_go_whatever_their_age() {
        let (now, kept) = (Instant::now(), retention(HOUR, 1_000));
        assert_eq!(kept.goal(now, 1_125, 0), None, "within the slack");
        assert_eq!(kept.goal(now, 1_126, 0), Some(126));
        assert_eq!(kept.goal(now, 1_126, 126), None, "done already");
    }

    #[test]
    fn with_zeroes_everything_is_kept() {
        let mut kept = retention(Duration::ZERO, 0);
        assert!(kept.is_for_ever());
        kept.note(Instant::now(), 9);
        assert_eq!(kept.goal(Instant::now() + HOUR, 9, 0), None);
    }
}
