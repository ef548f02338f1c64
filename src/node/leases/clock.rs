//! The lease clock: milliseconds of leadership since the cluster began.
//!
//! It is part of the replicated state, and only a leader moves it on, by its own monotonic
//! time. [`Reckoning`] is the arithmetic, a pure function of what it is told; [`LeaseClock`]
//! tells it. The wall clock plays no part (docs/adr/0012).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::consensus::Consensus;
use crate::storage::mvcc::Store;
use crate::types::Role;

/// Between two looks at the clock no more time than this counts. A leader looks several
/// times a second ([`super::LOOK`]); if it did not for longer, the process was stopped, and
/// nobody could renew a lease meanwhile. Half of the shortest lease: whoever renews it every
/// third of its time, as clients do, loses it over no pause.
pub(super) const MAX_STEP: Duration = Duration::from_secs(1);

/// What the clock shows, between two looks.
#[derive(Debug)]
struct Reckoning {
    max_step: Duration,
    shown: Duration,
    looked: Instant,
    /// Whether this node led when it last looked.
    led: bool,
}

impl Reckoning {
    fn new(now: Instant, max_step: Duration) -> Self {
        Self { max_step, shown: Duration::ZERO, looked: now, led: false }
    }

    /// Time counts from one look to the next, when this node led at both. Whoever leads
    /// anew goes on from what is applied, and nobody is ever behind that.
    fn look(&mut self, now: Instant, leads: bool, applied: Duration) -> Duration {
        let since = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.shown = match self.led && leads {
            true => applied.max(self.shown + since.min(self.max_step)),
            false => applied,
        };
        self.led = leads;
        self.shown
    }
}

/// A handle on the clock of one running node; clones share it.
#[derive(Clone)]
pub(crate) struct LeaseClock {
    reckoning: Arc<Mutex<Reckoning>>,
    consensus: Consensus,
    store: Store,
}

impl LeaseClock {
    pub fn new(consensus: Consensus, store: Store) -> Self {
        let reckoning = Arc::new(Mutex::new(Reckoning::new(Instant::now(), MAX_STEP)));
        Self { reckoning, consensus, store }
    }

    /// What it shows: on the leader the present time, on others that of the last entry
    /// applied.
    pub fn now_ms(&self) -> u64 {
        self.look().1
    }

    /// Whether this node leads, and what the clock shows.
    pub fn look(&self) -> (bool, u64) {
        let leads = self.consensus.role() == Role::Leader;
        let mut reckoning = self.reckoning.lock();
        let applied = Duration::from_millis(self.store.lease_clock_ms());
        let shown = reckoning.look(Instant::now(), leads, applied);
        (leads, u64::try_from(shown.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A clock that led from the beginning, with nothing applied.
    fn leading() -> (Reckoning, Instant) {
        leading_with(MAX_STEP)
    }

    fn leading_with(max_step: Duration) -> (Reckoning, Instant) {
        let start = Instant::now();
        let mut reckoning = Reckoning::new(start, max_step);
        assert_eq!(reckoning.look(start, true, Duration::ZERO), Duration::ZERO);
        (reckoning, start)
    }

    #[test]
    fn a_leaders_time_counts_to_the_fraction_of_a_millisecond() {
        let (mut reckoning, start) = leading();
        let step = Duration::from_micros(333);
        for n in 1..=3_000 {
            assert_eq!(reckoning.look(start + step * n, true, Duration::ZERO), step * n);
        }
    }

    #[test]
    fn a_pause_of_the_process_counts_for_little() {
        let (mut reckoning, start) = leading();
        let hour = Duration::from_secs(3_600);
        assert_eq!(reckoning.look(start + hour, true, Duration::ZERO), MAX_STEP);
        assert_eq!(reckoning.look(start + hour + MS, true, Duration::ZERO), MAX_STEP + MS);
    }

    /// The twin: whoever counts what the monotonic clock says ends all leases after a pause.
    #[test]
    fn without_the_bound_a_pause_ends_every_lease() {
        let (mut unbounded, start) = leading_with(Duration::MAX);
        let hour = Duration::from_secs(3_600);
        assert_eq!(unbounded.look(start + hour, true, Duration::ZERO), hour);
    }

    #[test]
    fn only_time_between_two_moments_of_leadership_counts() {
        let (mut reckoning, start) = leading();
        reckoning.look(start + MS * 500, true, Duration::ZERO);
        // Nothing of it was replicated when it lost the lead: its successor did not count it.
        assert_eq!(reckoning.look(start + MS * 700, false, MS * 40), MS * 40);
        assert_eq!(reckoning.look(start + MS * 900, false, MS * 60), MS * 60);
        assert_eq!(reckoning.look(start + MS * 950, true, MS * 60), MS * 60, "the outage");
        assert_eq!(reckoning.look(start + MS * 960, true, MS * 60), MS * 70);
    }

    #[test]
    fn it_is_never_behind_what_is_applied() {
        let (mut reckoning, start) = leading();
        assert_eq!(reckoning.look(start + MS, true, MS * 5_000), MS * 5_000);
        assert_eq!(reckoning.look(start + MS * 2, true, MS * 5_000), MS * 5_001);
    }

    #[test]
    fn a_clock_that_jumps_back_stands_still() {
        let (mut reckoning, start) = leading();
        reckoning.look(start + MS * 10, true, Duration::ZERO);
        assert_eq!(reckoning.look(start + MS * 3, true, Duration::ZERO), MS * 10);
        assert_eq!(reckoning.look(start + MS * 4, true, Duration::ZERO), MS * 11);
    }
}
