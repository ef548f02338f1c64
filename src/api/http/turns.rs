//! Long work takes turns, so that heartbeats do not wait behind a crowd of it.
//!
//! A page of 8 MiB takes its thread for tens of milliseconds. A few hundred of them, all
//! ready at once, would take it for longer than followers wait for a word of their leader.
//! So there is one at a time, and after each the scheduler goes round once: everything else
//! that is ready comes first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use crate::error::Error;

/// Work on more bytes than this is long: parsing or writing so much JSON takes about the
/// tenth part of a millisecond.
pub const LONG_BYTES: usize = 64 * 1024;
/// Requests that may wait for their turn: of the longest pages a few seconds' work.
pub const MAX_WAITING: usize = 256;
/// In this time some of the line is gone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub struct Turns {
    turn: Semaphore,
    waiting: AtomicUsize,
}

/// The right to work; the next one's when dropped.
pub struct Turn<'a>(#[expect(dead_code, reason = "held, never looked at")] SemaphorePermit<'a>);

/// A place in the line, left also by who gives up.
struct Place<'a>(&'a Turns);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), waiting: AtomicUsize::new(0) }
    }
}

impl Turns {
    /// Waits for its turn, or is refused when too many wait.
    pub async fn take(&self) -> Result<Turn<'_>, ApiError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _place = Place(self);
        if before >= MAX_WAITING {
            let why = "too many long requests are waiting".to_owned();
            return Err(ApiError::from(Error::Overloaded { why, retry_after: RETRY_AFTER }));
        }
        Ok(Turn(self.turn.acquire().await.expect("nobody closes it")))
    }

    /// A turn for work on so many bytes; short work needs none.
    pub async fn take_for(&self, bytes: usize) -> Result<Option<Turn<'_>>, ApiError> {
        if bytes > LONG_BYTES { self.take().await.map(Some) } else { Ok(None) }
    }
}

impl Turn<'_> {
    /// Ends the turn; when the work was long, everybody else who is ready comes first.
    pub async fn end(self, bytes: usize) {
        if bytes > LONG_BYTES {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::task::LocalSet;

    use super::*;

    const CROWD: usize = 50;

    /// What ran, in order, when a crowd with long work is ready before one heartbeat.
    async fn order(turns: Option<&'static Turns>) -> Vec<&'static str> {
        let ran = &*Box::leak(Box::new(RefCell::new(Vec::new())));
        let tasks = LocalSet::new();
        for _ in 0..CROWD {
            tasks.spawn_local(async move {
                match turns {
                    Some(turns) => {
                        let turn = turns.take().await.unwrap_or_else(|error| panic!("{}", error.status()));
                        ran.borrow_mut().push("long");
                        turn.end(LONG_BYTES + 1).await;
                    }
                    None => ran.borrow_mut().push("long"),
                }
            });
        }
        tasks.spawn_local(async move { ran.borrow_mut().push("heartbeat") });
        tasks.await;
        ran.take()
    }

    fn before_heartbeat(order: &[&str]) -> usize {
        order.iter().position(|ran| *ran == "heartbeat").expect("it ran")
    }

    #[tokio::test]
    async fn a_heartbeat_waits_behind_one_long_request_not_behind_all() {
        let turns = &*Box::leak(Box::new(Turns::default()));
        let order = order(Some(turns)).await;
        assert_eq!(order.len(), CROWD + 1);
        assert_eq!(before_heartbeat(&order), 1, "{order:?}");
    }

    #[tokio::test]
    async fn without_turns_a_heartbeat_waits_behind_all() {
        assert_eq!(before_heartbeat(&order(None).await), CROWD);
    }

    #[tokio::test]
    async fn the_line_is_bounded_and_who_gives_up_leaves_it() {
        let turns = Turns::default();
        let held = turns.take().await.unwrap_or_else(|_| panic!("free"));
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(turns.take())).collect();
        for take in &mut waiting {
            assert!(futures::poll!(take).is_pending());
        }
        assert!(turns.take().await.is_err());
        waiting.clear();
        drop(held);
        assert!(turns.take().await.is_ok());
    }
}
