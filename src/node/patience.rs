//! Calls that wait for a leader, within their time, instead of being refused while there
//! is none: what etcd's clients expect. Only what certainly changed nothing is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::types::Consistency;

use super::{Node, WriteRequest, Written};

/// How often to look whether there is a leader: an election takes some hundred
/// milliseconds.
const LEADER_POLL: Duration = Duration::from_millis(20);

/// Nobody led; nothing was changed.
fn is_for_want_of_a_leader(error: &Error) -> bool {
    matches!(error, Error::NotLeader { .. } | Error::NoQuorum { .. })
}

/// Tries until the answer is not for want of a leader, or the time is over.
pub(super) async fn once_led<T, F: Future<Output = Result<T>>>(
    timeout: Duration,
    attempt: impl Fn(Duration) -> F,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut left = timeout;
    loop {
        match attempt(left).await {
            Err(error) if is_for_want_of_a_leader(&error) && Instant::now() + LEADER_POLL < deadline => {
                tokio::time::sleep(LEADER_POLL).await;
                left = deadline - Instant::now();
            }
            answer => return answer,
        }
    }
}

impl Node {
    /// [`Node::write`] through whoever leads.
    pub async fn write_once_led(&self, request: WriteRequest) -> Result<Written> {
        once_led(request.timeout, |timeout| self.write(WriteRequest { timeout, ..request.clone() })).await
    }

    /// [`Node::read_barrier`], for the newest revision.
    pub async fn read_once_led(&self, consistency: Consistency, timeout: Duration) -> Result<()> {
        if consistency != Consistency::Linearizable {
            return self.read_barrier(consistency, None, timeout).await;
        }
        once_led(timeout, |timeout| self.read_barrier(consistency, None, timeout)).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::types::Role;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn leaderless() -> Error {
        Error::NotLeader { role: Role::Follower, leader: None }
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_a_leader_and_no_longer_than_it_may() {
        let tries = Cell::new(0);
        let third = async |_| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(leaderless()) } else { Ok(tries.get()) }
        };
        assert_eq!(once_led(TIMEOUT, third).await, Ok(3));
        let began = Instant::now();
        assert_eq!(once_led(TIMEOUT, async |_| Err::<(), _>(leaderless())).await, Err(leaderless()));
        assert!(began.elapsed() <= TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_happened_is_never_tried_again() {
        let tries = Cell::new(0);
        let unknown = || Error::Unknown { why: "no answer".to_owned() };
        let attempt = async |_| {
            tries.set(tries.get() + 1);
            Err::<(), _>(unknown())
        };
        assert_eq!(once_led(TIMEOUT, attempt).await, Err(unknown()));
        assert_eq!(tries.get(), 1);
    }
}
