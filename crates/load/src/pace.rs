//! When a client sends, and from when on it has been waiting.
//!
//! A closed loop asks a slow server less often, and so never sees most of what a slow
//! moment would have done to an open crowd (Gil Tene's *coordinated omission*). An open
//! one has a timetable: a request that could not be sent in time, because the one before
//! was not answered, has been waiting since its time.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::load::Pace;

/// Timers wake up to a millisecond late, and a busy thread later. That is the generator's
/// doing, not the server's; beyond it, it is counted as a wait.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// A request may be sent.
pub struct Turn {
    /// From then on its latency counts.
    pub since: Instant,
    pub now: Instant,
}

/// One client's timetable.
pub struct Turns {
    next: Instant,
    /// `None` in a closed loop.
    interval: Option<Duration>,
}

impl Turns {
    /// Of client `number` of `clients`, which take turns from `start` on.
    pub fn new(pace: Pace, start: Instant, number: usize, clients: usize) -> Self {
        let Pace::Open(rate) = pace else { return Self { next: start, interval: None } };
        let interval = Duration::from_secs_f64(clients as f64 / rate);
        Self { next: start + interval.mul_f64(number as f64 / clients as f64), interval: Some(interval) }
    }

    /// Waits for the next turn. `answered`: when the answer before came, if it was just now.
    pub async fn turn(&mut self, answered: Option<Instant>) -> Turn {
        let now = answered.unwrap_or_else(Instant::now);
        let Some(interval) = self.interval else { return Turn { since: now, now } };
        let intended = self.next;
        self.next += interval;
        if now >= intended {
            return Turn { since: intended, now };
        }
        sleep_until(intended).await;
        let woke = Instant::now();
        let since = if woke - intended <= TIMER_SLACK { woke } else { intended };
        Turn { since, now: woke }
    }
}
