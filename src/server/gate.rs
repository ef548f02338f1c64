//! How many clients are heard in one round of the scheduler.
//!
//! All that is ready on a thread runs in the order in which it became ready, so a
//! heartbeat, which takes several steps, waits at each behind every client that has sent
//! something: thousands at once made a leader's followers elect another. Here clients wait
//! before they are read, a few go on in each round, and peers pass.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A request takes some tens of microseconds, so a round takes a few milliseconds.
const READS_A_ROUND: usize = 64;

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    /// Somebody waits.
    wanted: Notify,
}

#[derive(Default)]
struct State {
    /// Reads left in this round.
    left: usize,
    /// First come, first served. Who is woken and finds nothing left comes again.
    waiting: VecDeque<Waker>,
}

impl Gate {
    /// Whether the caller may read now; if not, it is woken in a later round.
    pub fn poll_enter(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.left > 0 {
            state.left -= 1;
            return Poll::Ready(());
        }
        state.waiting.push_back(cx.waker().clone());
        drop(state);
        self.wanted.notify_one();
        Poll::Pending
    }

    /// There was nothing to read.
    pub fn give_back(&self) {
        self.state.lock().left += 1;
    }

    /// Opens the gate once a round, for as long as somebody waits; never ends.
    pub async fn run(&self) {
        loop {
            self.wanted.notified().await;
            while self.open() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// True when there are more than may go on in this round.
    fn open(&self) -> bool {
        let mut state = self.state.lock();
        state.left = READS_A_ROUND;
        let count = state.waiting.len().min(READS_A_ROUND);
        let woken: Vec<Waker> = state.waiting.drain(..count).collect();
        let more = !state.waiting.is_empty();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        more
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    const CROWD: usize = 1000;
    /// Steps of a heartbeat, each a turn of the scheduler.
    const STEPS: usize = 3;

    /// How many of a crowd of clients that are all ready are read before a heartbeat is done.
    async fn read_before_a_heartbeat(gated: bool) -> usize {
        let gate = Rc::new(Gate::default());
        let (read, before) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(0)));
        let tasks = LocalSet::new();
        let rounds = gate.clone();
        tasks.spawn_local(async move { rounds.run().await });
        let mut clients = Vec::new();
        for _ in 0..CROWD {
            let (gate, read) = (gate.clone(), read.clone());
            clients.push(tasks.spawn_local(async move {
                if gated {
                    poll_fn(|cx| gate.poll_enter(cx)).await;
                }
                *read.borrow_mut() += 1;
            }));
        }
        let (seen, done) = (read.clone(), before.clone());
        let heartbeat = tasks.spawn_local(async move {
            for _ in 0..STEPS {
                tokio::task::yield_now().await;
            }
            *done.borrow_mut() = *seen.borrow();
        });
        tasks
            .run_until(async {
                heartbeat.await.expect("no panic");
                for client in clients {
                    client.await.expect("no panic");
                }
            })
            .await;
        assert_eq!(*read.borrow(), CROWD, "somebody was never let in");
        *before.borrow()
    }

    #[tokio::test]
    async fn a_heartbeat_waits_behind_a_few_clients() {
        let before = read_before_a_heartbeat(true).await;
        assert!(before < CROWD / 2, "{before} clients came first");
    }

    #[tokio::test]
    async fn without_the_gate_a_heartbeat_waits_behind_all() {
        assert_eq!(read_before_a_heartbeat(false).await, CROWD);
    }
}
