//! A timer for waits that mostly end before their time.
//!
//! A new tokio timer that is due before all others wakes the runtime: a system call and a
//! turn of its loop. A wait in the path of every write keeps one timer instead, and sets
//! it to a later time, which costs next to nothing.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, Sleep};

pub struct Timer(Pin<Box<Sleep>>);

impl Default for Timer {
    fn default() -> Self {
        Self(Box::pin(tokio::time::sleep_until(Instant::now())))
    }
}

impl Timer {
    /// What `future` yields before `deadline`, if it does. Deadlines that never go back are
    /// the cheap ones.
    pub async fn before<F: Future>(&mut self, deadline: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        if let Poll::Ready(output) = futures::poll!(future.as_mut()) {
            return Some(output);
        }
        self.0.as_mut().reset(deadline);
        tokio::select! { biased;
            output = future => Some(output),
            () = self.0.as_mut() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_each_deadline_and_no_sooner() {
        let began = Instant::now();
        let mut timer = Timer::default();
        for second in 1..4 {
            let deadline = began + Duration::from_secs(second);
            assert_eq!(timer.before(deadline, std::future::ready(7)).await, Some(7));
            let half = tokio::time::sleep(Duration::from_millis(500));
            assert_eq!(timer.before(deadline, half).await, Some(()));
            assert_eq!(timer.before(deadline, std::future::pending::<()>()).await, None);
            assert_eq!(Instant::now(), deadline);
        }
    }
}
