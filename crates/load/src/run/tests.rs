use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::load::{Extent, Pace, Workload};
use crate::target::{Freshness, Group, Swap};

/// Answers after a fixed time.
#[derive(Clone)]
struct Toy {
    takes: Duration,
    /// Every so many requests of a client err; 0: none.
    errs_every: u64,
    /// Nothing is answered between these two moments after the start.
    stall: Option<(Duration, Duration)>,
    began: Instant,
    /// By key: when it was last written, and how often anything was.
    rows: Rc<RefCell<(BTreeMap<String, u64>, u64)>>,
}

impl Toy {
    fn new(takes: Duration) -> Self {
        Self { takes, errs_every: 0, stall: None, began: Instant::now(), rows: Rc::default() }
    }
}

struct ToySession {
    toy: Toy,
    requests: u64,
}

impl Target for Toy {
    type Session = ToySession;

    fn nodes(&self) -> usize {
        1
    }

    async fn leader(&self) -> Result<usize> {
        Ok(0)
    }

    async fn session(&self, _: Route) -> Result<ToySession> {
        Ok(ToySession { toy: self.clone(), requests: 0 })
    }

    async fn sessions(&self, _: Route, clients: usize) -> Result<Vec<Group<ToySession>>> {
        let session = |_| ToySession { toy: self.clone(), requests: 0 };
        let sessions = (0..clients).map(session).collect();
        Ok(vec![Group { tasks: LocalSet::new(), sessions }])
    }
}

impl ToySession {
    async fn answer(&mut self) -> Result<()> {
        if let Some((from, to)) = self.toy.stall {
            let since = self.toy.began.elapsed();
            if (from..to).contains(&since) {
                sleep_until(self.toy.began + to).await;
            }
        }
        sleep(self.toy.takes).await;
        self.requests += 1;
        if self.toy.errs_every != 0 && self.requests.is_multiple_of(self.toy.errs_every) {
            bail!("as told");
        }
        Ok(())
    }

    fn write(&self, key: &str) -> u64 {
        let (rows, revision) = &mut *self.toy.rows.borrow_mut();
        *revision += 1;
        rows.insert(key.to_owned(), *revision);
        *revision
    }

    fn revision(&self, key: &str) -> u64 {
        self.toy.rows.borrow().0.get(key).copied().unwrap_or(0)
    }
}

impl Session for ToySession {
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        assert_eq!(value.len(), 256);
        self.write(key);
        self.answer().await
    }

    async fn get(&mut self, key: &str, _: Freshness) -> Result<bool> {
        self.answer().await?;
        Ok(self.revision(key) > 0)
    }

    async fn swap(&mut self, key: &str, _: &Bytes, seen: u64) -> Result<Swap> {
        self.answer().await?;
        match self.revision(key) {
            revision if revision == seen => Ok(Swap::Done(self.write(key))),
            other => Ok(Swap::Lost(other)),
        }
    }

    async fn range(&mut self, start: &str, limit: u32, _: Freshness) -> Result<usize> {
        self.answer().await?;
        Ok(self.toy.rows.borrow().0.range(start.to_owned()..).take(limit as usize).count())
    }

    async fn keep_alive(&mut self) -> Result<()> {
        self.answer().await
    }

    fn give_up(&mut self) {}

    async fn recover(&mut self) {}
}

const SHORT: Duration = Duration::from_millis(10);

fn load(workload: Workload, clients: usize) -> Load {
    Load { workload, clients, keys: 1000, seed: 7, ..Load::default() }
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_does_clients_times_window_over_latency() {
    let toy = Toy::new(SHORT);
    for clients in [1, 7] {
        let outcome = run(&toy, &load(Workload::Put, clients), &[], "").await.expect("runs");
        let expected = clients as u64 * 1000;
        assert!(outcome.operations.abs_diff(expected) <= 2 * clients as u64, "{outcome:?}");
        assert!((10_000..11_500).contains(&outcome.p50_us), "{outcome:?}");
        assert_eq!((outcome.errors, outcome.missing), (0, 0));
        assert_eq!(outcome.server_cpu_per_1000, None);
    }
}

/// A second and a half without answers, in the middle of the window.
fn stalling() -> Toy {
    let ms = Duration::from_millis;
    Toy { stall: Some((ms(4000), ms(5500))), ..Toy::new(SHORT) }
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_sees_what_a_stall_does_to_all_who_come_meanwhile() {
    let load = Load { pace: Pace::Open(100.0), ..load(Workload::Put, 4) };
    let outcome = run(&stalling(), &load, &[], "").await.expect("runs");
    // 15 % of all come while nothing is answered, and wait 0.75 s on the average.
    assert!(outcome.operations.abs_diff(1000) <= 8, "{outcome:?}");
    assert!((10_000..15_000).contains(&outcome.p50_us), "{outcome:?}");
    assert!((300_000..1_000_000).contains(&outcome.p90_us), "{outcome:?}");
    assert!(outcome.p99_us > 1_000_000, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_hardly_sees_the_same_stall() {
    let outcome = run(&stalling(), &load(Workload::Put, 4), &[], "").await.expect("runs");
    assert!(outcome.p99_us < 15_000 && outcome.max_us > 1_000_000, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_gap_is_the_stall_of_all() {
    let stalled = run(&stalling(), &load(Workload::Put, 4), &[], "").await.expect("runs");
    assert!((1_500_000..1_520_000).contains(&stalled.longest_gap_us), "{stalled:?}");
    let calm = run(&Toy::new(SHORT), &load(Workload::Put, 4), &[], "").await.expect("runs");
    assert!((9_000..13_000).contains(&calm.longest_gap_us), "{calm:?}");
}

/// Three requests to a node that hangs for five seconds from the window's start on.
async fn to_a_frozen_node(timeout: Duration) -> Outcome {
    let stall = (Duration::from_secs(1), Duration::from_secs(6));
    let toy = Toy { stall: Some(stall), ..Toy::new(SHORT) };
    let load = Load { extent: Extent::Requests(3), timeout, ..load(Workload::Put, 3) };
    run(&toy, &load, &[], "").await.expect("ends")
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_time_is_an_error_and_ends_a_count_as_well() {
    let outcome = to_a_frozen_node(Duration::from_secs(2)).await;
    assert_eq!((outcome.operations, outcome.errors), (0, 3), "{outcome:?}");
    let why = outcome.first_error.as_deref().unwrap_or_default();
    assert!(why.contains("no answer within 2s") && why.contains("unknown"), "{why}");
    assert!((1.9..2.5).contains(&outcome.seconds), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn with_more_patience_the_same_requests_are_answered() {
    let outcome = to_a_frozen_node(Duration::from_secs(10)).await;
    assert_eq!((outcome.operations, outcome.errors), (3, 0), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_keeps_its_rate() {
    let load = Load { pace: Pace::Open(250.0), ..load(Workload::Get, 8) };
    let outcome = run(&Toy::new(SHORT), &load, &[], "").await.expect("runs");
    assert!(outcome.operations.abs_diff(2500) <= 16, "{outcome:?}");
    assert_eq!(outcome.intended_per_second, Some(250.0));
}

#[tokio::test(start_paused = true)]
async fn a_count_ends_the_window() {
    let load = Load { extent: Extent::Requests(500), ..load(Workload::Put, 3) };
    let outcome = run(&Toy::new(SHORT), &load, &[], "").await.expect("runs");
    assert_eq!((outcome.operations, outcome.unanswered), (500, 0));
    assert!((1.6..1.8).contains(&outcome.seconds), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn errors_and_missing_keys_are_counted_apart() {
    let toy = Toy { errs_every: 5, ..Toy::new(SHORT) };
    let outcome = run(&toy, &load(Workload::Get, 1), &[], "").await.expect("runs");
    assert_eq!(outcome.missing, outcome.operations);
    assert!(outcome.errors.abs_diff(outcome.operations / 4) <= 1, "{outcome:?}");
    assert_eq!(outcome.first_error.as_deref(), Some("as told"));
}

#[tokio::test(start_paused = true)]
async fn lost_races_are_counted_apart() {
    let alone = run(&Toy::new(SHORT), &load(Workload::Txn, 1), &[], "").await.expect("runs");
    assert_eq!((alone.lost_races, alone.errors), (0, 0));
    let one_key = Load { keys: 1, ..load(Workload::Txn, 4) };
    let crowd = run(&Toy::new(SHORT), &one_key, &[], "").await.expect("runs");
    // All ask at once for the same: one in four is first.
    assert!(crowd.lost_races >= 2 * crowd.operations && crowd.operations > 0, "{crowd:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fill_writes_every_key_once() {
    let toy = Toy::new(Duration::from_millis(1));
    fill(&toy, 500, 256, 8).await.expect("fills");
    let counts = |toy: &Toy| (toy.rows.borrow().0.len(), toy.rows.borrow().1);
    assert_eq!(counts(&toy), (500, 500));
    let errs = Toy { errs_every: 3, ..Toy::new(Duration::ZERO) };
    fill(&errs, 500, 256, 8).await.expect_err("an error ends it");
}
