//! The closed loop: every client sends a request, waits for the answer, sends the next.
//!
//! All clients run as tasks of one thread and count into one [`Tally`]. They run through a
//! warm-up first; then the window opens: counts, latencies and the processors' time of the
//! servers and of this process are taken between its two ends, and only what *ends* inside
//! it counts. A closed loop measures throughput honestly and flatters latency under
//! overload (a slow server is asked less often); the percentiles say what a client waited,
//! not what an open crowd would.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::probe::latencies;
use crate::probe::process::CpuTime;
use crate::target::{Freshness, Route, Session, Target};

/// Different values, so that nothing gains from equal ones; few, so that they stay in the
/// processor's cache.
const VALUES: usize = 64;
/// How long a client rests after an error, so that a dead server is not asked in a frenzy.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How often the progress bar moves.
const PROGRESS_STEP: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Writes to the leader
    Put,
    /// Local reads, clients spread over all nodes
    Get,
    /// Linearizable reads, clients spread over all nodes
    GetLinearizable,
    /// At the leader: nine linearizable reads for every write
    Mixed,
}

impl Workload {
    fn route(self) -> Route {
        match self {
            Self::Put | Self::Mixed => Route::Leader,
            Self::Get | Self::GetLinearizable => Route::Spread,
        }
    }
}

/// One measurement's settings.
#[derive(Clone, Debug)]
pub struct Load {
    pub workload: Workload,
    pub clients: usize,
    /// Keys are drawn evenly from this many.
    pub keys: u64,
    pub value_bytes: usize,
    pub warmup: Duration,
    pub window: Duration,
    pub seed: u64,
}

/// What a window saw.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub workload: Workload,
    pub clients: usize,
    pub seconds: f64,
    pub operations: u64,
    pub errors: u64,
    /// Reads that found no key.
    pub missing: u64,
    pub per_second: f64,
    pub latency_us: Latency,
    /// Processor seconds per 1,000 operations, summed over the servers; none when their
    /// process ids are not known.
    pub server_cpu_per_1000: Option<f64>,
    /// The same of this process.
    pub client_cpu_per_1000: f64,
    /// The first error's text.
    pub first_error: Option<String>,
}

/// In microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// The key with this number; all have the same length.
pub fn key(number: u64) -> String {
    format!("k{number:09}")
}

/// Values of exactly this many bytes, each a JSON string: two bytes are its quotes.
pub fn values(bytes: usize, rng: &mut SmallRng) -> Rc<[Bytes]> {
    let text = |rng: &mut SmallRng| -> String {
        (0..bytes.saturating_sub(2)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
    };
    (0..VALUES).map(|_| Bytes::from(format!("\"{}\"", text(rng)))).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warmup,
    Window,
    Over,
}

/// What all clients count into.
struct Tally {
    phase: Cell<Phase>,
    latencies: RefCell<Histogram<u64>>,
    errors: Cell<u64>,
    missing: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl Tally {
    fn new() -> Result<Rc<Self>> {
        Ok(Rc::new(Self {
            phase: Cell::new(Phase::Warmup),
            latencies: RefCell::new(latencies()?),
            errors: Cell::new(0),
            missing: Cell::new(0),
            first_error: RefCell::new(None),
        }))
    }

    fn count(&self, began: Instant, answer: &Result<bool>) {
        if self.phase.get() != Phase::Window {
            return;
        }
        match answer {
            Ok(found) => {
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latencies.borrow_mut().saturating_record(took.max(1));
                self.missing.set(self.missing.get() + u64::from(!found));
            }
            Err(error) => {
                self.errors.set(self.errors.get() + 1);
                self.first_error.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// Puts the load on the target and measures; `servers` are the process ids whose time counts.
pub async fn run<T: Target>(target: &T, load: &Load, servers: &[u32], title: &str) -> Result<Outcome> {
    let tally = Tally::new()?;
    let sessions = target.sessions(load.workload.route(), load.clients).await?;
    let values = values(load.value_bytes, &mut SmallRng::seed_from_u64(load.seed));
    let clients = LocalSet::new();
    for (number, session) in sessions.into_iter().enumerate() {
        let rng = SmallRng::seed_from_u64(load.seed.wrapping_add(number as u64));
        clients.spawn_local(client(session, load.clone(), values.clone(), rng, tally.clone()));
    }
    let measured = clients.run_until(window(load, servers, title, &tally)).await?;
    // The clients notice at their next answer; one that never gets it is dropped.
    drop(clients);
    Ok(outcome(load, &tally, &measured))
}

async fn client<S: Session>(
    mut session: S,
    load: Load,
    values: Rc<[Bytes]>,
    mut rng: SmallRng,
    tally: Rc<Tally>,
) {
    while tally.phase.get() != Phase::Over {
        let key = key(rng.random_range(0..load.keys));
        let value = &values[rng.random_range(0..values.len())];
        let write = match load.workload {
            Workload::Put => true,
            Workload::Get | Workload::GetLinearizable => false,
            Workload::Mixed => rng.random_ratio(1, 10),
        };
        let freshness = match load.workload {
            Workload::Get => Freshness::Local,
            _ => Freshness::Linearizable,
        };
        let began = Instant::now();
        let answer = match write {
            true => session.put(&key, value).await.map(|()| true),
            false => session.get(&key, freshness).await,
        };
        tally.count(began, &answer);
        if answer.is_err() {
            sleep(ERROR_PAUSE).await;
            session.recover().await;
        }
    }
}

struct Measured {
    took: Duration,
    /// `None` without known servers.
    servers: Option<Duration>,
    own: Duration,
}

/// Waits out the warm-up and the window, and measures the latter.
async fn window(load: &Load, servers: &[u32], title: &str, tally: &Tally) -> Result<Measured> {
    let bar = bar(load.warmup + load.window, title);
    rest(load.warmup, &bar).await;
    let (own_before, before) = (CpuTime::own()?, CpuTime::of(servers)?);
    let began = Instant::now();
    tally.phase.set(Phase::Window);
    rest(load.window, &bar).await;
    tally.phase.set(Phase::Over);
    let took = began.elapsed();
    let spent = CpuTime::of(servers)?.since(&before);
    bar.finish_and_clear();
    let servers = (!servers.is_empty()).then_some(spent);
    Ok(Measured { took, servers, own: CpuTime::own()?.since(&own_before) })
}

/// Shown on a terminal only.
fn bar(whole: Duration, title: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:40} {bar:30} {percent:>3}%")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let steps = whole.as_millis() / PROGRESS_STEP.as_millis();
    ProgressBar::new(u64::try_from(steps).unwrap_or(u64::MAX))
        .with_style(style)
        .with_message(title.to_owned())
}

async fn rest(whole: Duration, bar: &ProgressBar) {
    let until = Instant::now() + whole;
    while Instant::now() < until {
        sleep(PROGRESS_STEP.min(until - Instant::now())).await;
        bar.inc(1);
    }
}

fn outcome(load: &Load, tally: &Tally, measured: &Measured) -> Outcome {
    let latencies = tally.latencies.borrow();
    let operations = latencies.len();
    let seconds = measured.took.as_secs_f64();
    let per_1000 = |spent: Duration| match operations {
        0 => 0.0,
        _ => spent.as_secs_f64() * 1000.0 / operations as f64,
    };
    Outcome {
        workload: load.workload,
        clients: load.clients,
        seconds,
        operations,
        errors: tally.errors.get(),
        missing: tally.missing.get(),
        per_second: operations as f64 / seconds,
        latency_us: Latency {
            p50: latencies.value_at_quantile(0.5),
            p90: latencies.value_at_quantile(0.9),
            p99: latencies.value_at_quantile(0.99),
            p999: latencies.value_at_quantile(0.999),
            max: latencies.max(),
        },
        server_cpu_per_1000: measured.servers.map(per_1000),
        client_cpu_per_1000: per_1000(measured.own),
        first_error: tally.first_error.borrow().clone(),
    }
}

/// Writes every key once, with this many clients.
pub async fn fill<T: Target>(target: &T, keys: u64, value_bytes: usize, clients: usize) -> Result<()> {
    let values = values(value_bytes, &mut SmallRng::seed_from_u64(keys));
    let next = Rc::new(Cell::new(0));
    let tasks = LocalSet::new();
    let mut running = Vec::new();
    for mut session in target.sessions(Route::Leader, clients).await? {
        let (next, values) = (next.clone(), values.clone());
        running.push(tasks.spawn_local(async move {
            while next.get() < keys {
                let number = next.replace(next.get() + 1);
                session.put(&key(number), &values[number as usize % VALUES]).await?;
            }
            anyhow::Ok(())
        }));
    }
    tasks.await;
    for task in running {
        task.await.context("a client panicked")?.context("filling the store")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
