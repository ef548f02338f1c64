use std::collections::BTreeSet;

use anyhow::bail;

use super::*;

/// Answers after a fixed time; errs every `errs_every`th request, when that is not zero.
struct Toy {
    takes: Duration,
    errs_every: u64,
    written: Rc<RefCell<BTreeSet<String>>>,
}

impl Toy {
    fn new(takes: Duration, errs_every: u64) -> Self {
        Self { takes, errs_every, written: Rc::default() }
    }
}

struct ToySession {
    takes: Duration,
    errs_every: u64,
    requests: u64,
    written: Rc<RefCell<BTreeSet<String>>>,
}

impl Target for Toy {
    type Session = ToySession;

    fn nodes(&self) -> usize {
        1
    }

    async fn leader(&self) -> Result<usize> {
        Ok(0)
    }

    async fn sessions(&self, _: Route, clients: usize) -> Result<Vec<ToySession>> {
        let session = |_| ToySession {
            takes: self.takes,
            errs_every: self.errs_every,
            requests: 0,
            written: self.written.clone(),
        };
        Ok((0..clients).map(session).collect())
    }
}

impl ToySession {
    async fn answer(&mut self) -> Result<()> {
        sleep(self.takes).await;
        self.requests += 1;
        if self.errs_every != 0 && self.requests.is_multiple_of(self.errs_every) {
            bail!("as told");
        }
        Ok(())
    }
}

impl Session for ToySession {
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        assert_eq!(value.len(), 256);
        self.written.borrow_mut().insert(key.to_owned());
        self.answer().await
    }

    async fn get(&mut self, key: &str, _: Freshness) -> Result<bool> {
        self.answer().await?;
        Ok(self.written.borrow().contains(key))
    }

    async fn recover(&mut self) {}
}

fn load(workload: Workload, clients: usize) -> Load {
    Load {
        workload,
        clients,
        keys: 1000,
        value_bytes: 256,
        warmup: Duration::from_secs(1),
        window: Duration::from_secs(10),
        seed: 7,
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_does_clients_times_window_over_latency() {
    let toy = Toy::new(Duration::from_millis(10), 0);
    for clients in [1, 7] {
        let outcome = run(&toy, &load(Workload::Put, clients), &[], "").await.expect("runs");
        let expected = clients as u64 * 1000;
        assert!(outcome.operations.abs_diff(expected) <= 2 * clients as u64, "{outcome:?}");
        assert!((10_000..11_500).contains(&outcome.latency_us.p50), "{outcome:?}");
        assert_eq!((outcome.errors, outcome.missing), (0, 0));
        assert_eq!(outcome.server_cpu_per_1000, None);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_and_missing_keys_are_counted_apart() {
    let toy = Toy::new(Duration::from_millis(10), 5);
    let outcome = run(&toy, &load(Workload::Get, 1), &[], "").await.expect("runs");
    assert_eq!(outcome.missing, outcome.operations);
    assert!(outcome.errors.abs_diff(outcome.operations / 4) <= 1, "{outcome:?}");
    assert_eq!(outcome.first_error.as_deref(), Some("as told"));
}

#[tokio::test(start_paused = true)]
async fn a_fill_writes_every_key_once() {
    let toy = Toy::new(Duration::from_millis(1), 0);
    fill(&toy, 500, 256, 8).await.expect("fills");
    assert_eq!(*toy.written.borrow(), (0..500).map(key).collect());
    fill(&Toy::new(Duration::ZERO, 3), 500, 256, 8).await.expect_err("an error ends it");
}

#[test]
fn values_are_json_of_the_size_asked_for() {
    for value in values(256, &mut SmallRng::seed_from_u64(1)).iter() {
        assert_eq!(value.len(), 256);
        serde_json::from_slice::<String>(value).expect("JSON");
    }
}
