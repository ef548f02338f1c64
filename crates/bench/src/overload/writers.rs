//! The writers: each writes its own key again and again, and remembers what it was told.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use bellwether_load::probe::latencies;
use bellwether_load::target::Address;
use bellwether_load::target::http::Link;

/// A refused writer's pause: a tenth of what it is told to wait.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// For the last answers after a phase.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections opened at once, below what a listener's queue takes.
const OPENED_AT_ONCE: usize = 256;
/// Bytes in a value.
const VALUE_BYTES: usize = 256;

/// What the writers of one phase saw.
pub struct Seen {
    pub accepted: Histogram<u64>,
    pub refused: Histogram<u64>,
    /// Refusals that did not say when to come back.
    pub without_retry_after: u64,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
}

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self { accepted: latencies()?, refused: latencies()?, without_retry_after: 0, unknown: 0 })
    }

    fn refuse(&mut self, took_us: u64, says_when: bool) {
        self.refused.saturating_record(took_us);
        self.without_retry_after += u64::from(!says_when);
    }
}

/// One key's values: the last that was acknowledged, and the last that was tried.
#[derive(Clone, Copy, Default)]
struct Key {
    acknowledged: u64,
    tried: u64,
}

struct Shared {
    leader: Address,
    keys: RefCell<Vec<Key>>,
    seen: RefCell<Seen>,
    over: Cell<bool>,
}

pub struct Writers(Rc<Shared>);

/// Writers at work.
pub struct Running {
    tasks: LocalSet,
    shared: Rc<Shared>,
    handles: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Writers {
    pub fn new(leader: Address) -> Self {
        let seen = RefCell::new(Seen::new().unwrap_or_else(|error| panic!("constant bounds: {error}")));
        Self(Rc::new(Shared { leader, keys: RefCell::default(), seen, over: Cell::new(false) }))
    }

    pub async fn start(&self, count: usize) -> Result<Running> {
        self.0.over.set(false);
        self.0.keys.borrow_mut().resize(count, Key::default());
        let tasks = LocalSet::new();
        let mut links = Vec::with_capacity(count);
        while links.len() < count {
            let batch = (0..OPENED_AT_ONCE.min(count - links.len())).map(|_| Link::open(&self.0.leader));
            for link in batch {
                links.push(link.await?);
            }
        }
        let work = |(number, link)| tasks.spawn_local(self.0.clone().write(number, link));
        let handles = links.into_iter().enumerate().map(work).collect();
        Ok(Running { tasks, shared: self.0.clone(), handles })
    }

    /// Forgets what was counted so far: the warm-up is over.
    pub fn begin_count(&self) {
        if let Ok(seen) = Seen::new() {
            *self.0.seen.borrow_mut() = seen;
        }
    }

    pub fn seen(&self) -> Seen {
        let seen = self.0.seen.borrow();
        Seen { accepted: seen.accepted.clone(), refused: seen.refused.clone(), ..*seen }
    }

    /// Reads every key; counts those whose acknowledged value is gone.
    pub async fn count_lost(&self, leader: &Address) -> Result<u64> {
        let mut link = Link::open(leader).await?;
        let mut lost = 0;
        let keys = self.0.keys.borrow().clone();
        for (number, key) in keys.into_iter().enumerate() {
            if key.acknowledged == 0 {
                continue;
            }
            let path = format!("/key/storm/{number}?consistency=linearizable");
            let request = leader.request(Method::GET, &path, Bytes::new())?;
            let reply = link.exchange(request).await?;
            ensure!(reply.status() == StatusCode::OK, "reading storm/{number}: {}", reply.status());
            let found: serde_json::Value = serde_json::from_slice(reply.body()).context("a reply in JSON")?;
            let text = found["value"].as_str().context("a value of ours")?;
            let value: u64 = text.trim_start_matches('.').parse().context("a value of ours")?;
            lost += u64::from(!(key.acknowledged..=key.tried).contains(&value));
        }
        Ok(lost)
    }
}

impl Running {
    /// Lets the writers write while this goes on; their last answers are waited for.
    pub async fn during<T>(self, watching: impl Future<Output = Result<T>>) -> Result<T> {
        let Self { tasks, shared, handles } = self;
        let watched = tasks.run_until(watching).await;
        shared.over.set(true);
        let finished = timeout(FINISH_TIMEOUT, tasks).await;
        ensure!(finished.is_ok(), "writers got no answer for {FINISH_TIMEOUT:?}");
        for handle in handles {
            handle.await.context("a writer panicked")??;
        }
        watched
    }
}

impl Shared {
    async fn write(self: Rc<Self>, number: usize, mut link: Link) -> Result<()> {
        let path = format!("/key/storm/{number}");
        while !self.over.get() {
            let value = self.keys.borrow()[number].tried + 1;
            self.keys.borrow_mut()[number].tried = value;
            let body = format!("\"{value:.>width$}\"", width = VALUE_BYTES - 2);
            let request = self.leader.request(Method::PUT, &path, body.into())?;
            let began = Instant::now();
            let reply = link.exchange(request).await.with_context(|| format!("writing storm/{number}"))?;
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            match reply.status() {
                StatusCode::OK => {
                    self.keys.borrow_mut()[number].acknowledged = value;
                    self.seen.borrow_mut().accepted.saturating_record(took);
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    self.seen.borrow_mut().refuse(took, reply.headers().contains_key(RETRY_AFTER));
                    sleep(REFUSED_PAUSE).await;
                }
                StatusCode::GATEWAY_TIMEOUT => self.seen.borrow_mut().unknown += 1,
                status => bail!("writing: {status}: {}", String::from_utf8_lossy(reply.body())),
            }
        }
        Ok(())
    }
}
