//! One history: a plan carried out to its end, and the verdict.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bellwether::env::fake_disk::DiskStats;
use bellwether::env::{planted, random};
use bellwether_check::{DEFAULT_STEPS, check};
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;

use crate::cluster::{Cluster, Failures};
use crate::judge::Observer;
use crate::lab::Lab;
use crate::panics;
use crate::plan::Plan;
use crate::trace::{self, Fingerprint, Listening};
use crate::workload::Workload;

/// The granularity of simulated time, and tokio's own.
const TICK: Duration = Duration::from_millis(1);
/// One way; the spread reorders messages of different connections.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));
/// Segments a connection may have under way; turmoil drops the connection beyond.
const TCP_CAPACITY: usize = 1 << 16;
/// For settling and the last reads, past the plan's end.
const EXTRA_TIME: Duration = Duration::from_secs(300);
/// What is down when everything is healed is started within this time.
const RESTART_PERIOD: Duration = Duration::from_millis(100);
/// tokio spreads a runtime's tasks over this many lists, by their ids.
const TASK_LISTS: u64 = 4;

/// Task ids are process-wide, so one history at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Report {
    pub scenario: String,
    pub nodes: usize,
    pub seed: u64,
    pub seconds: u64,
    /// Empty: it passed.
    pub failures: Vec<String>,
    pub fingerprint: Fingerprint,
    pub simulated: Duration,
    pub operations: u64,
    pub acknowledged: u64,
    pub terms: usize,
    /// Faults that struck somebody, by kind.
    pub fired: BTreeMap<&'static str, u64>,
    pub disk: DiskStats,
}

impl Report {
    /// The one line that brings this history back.
    pub fn reproduce(&self) -> String {
        let Report { seed, seconds, scenario, .. } = self;
        format!("reproduce: cd crates/sim && cargo run -- --seed {seed} --seconds {seconds} {scenario}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fingerprint { hash, events } = self.fingerprint;
        write!(
            f,
            "{} seed {}, {} nodes: trace {hash:016x}, {events} events, {:.1} s, {} calls, {} writes acknowledged, {} terms, disk: {} syncs, {} writes lost, {} torn; {:?}",
            self.scenario,
            self.seed,
            self.nodes,
            self.simulated.as_secs_f64(),
            self.operations,
            self.acknowledged,
            self.terms,
            self.disk.syncs,
            self.disk.lost_writes,
            self.disk.torn_writes,
            self.fired,
        )?;
        for failure in &self.failures {
            write!(f, "\nFAILED: {failure}")?;
        }
        if !self.failures.is_empty() {
            write!(f, "\n{}", self.reproduce())?;
        }
        Ok(())
    }
}

/// Carries the plan out in a thread of its own: the generator, the trace and the engine's
/// state are the thread's.
pub fn run(plan: Plan, trace_file: Option<PathBuf>) -> Report {
    let _alone = ONE_AT_A_TIME.lock();
    let thread = std::thread::spawn(move || in_this_thread(&plan, trace_file.as_deref()));
    thread.join().expect("panics inside a history are caught in it")
}

fn in_this_thread(plan: &Plan, trace_file: Option<&Path>) -> Report {
    align_task_ids();
    random::seed(Some(plan.seed));
    planted::plant(plan.bug);
    panics::listen();
    trace::begin(trace_file).expect("the trace file can be made");
    let subscriber = tracing_subscriber::registry().with(Listening::new());
    let failures = Failures::default();
    let workload = Rc::new(Workload::new(plan));
    let rest = Rc::new(RefCell::new(Rest::default()));
    let carried_out = tracing::subscriber::with_default(subscriber, || {
        let carry_out = AssertUnwindSafe(|| carry_out(plan, &workload, &failures, &rest));
        std::panic::catch_unwind(carry_out)
    });
    match carried_out {
        Ok(Ok(())) => {}
        Ok(Err(why)) => failures.borrow_mut().push(why),
        Err(panic) => failures.borrow_mut().push(format!("panicked: {}", panic_text(panic.as_ref()))),
    }
    let verdict = check(&workload.recorder.history(), DEFAULT_STEPS);
    if !verdict.is_ok() {
        failures.borrow_mut().push(verdict.to_string());
    }
    failures.borrow_mut().extend(workload.facts.verdict());
    if let Some(from) = plan.serves_from
        && !workload.acknowledged_within(from..plan.ends)
    {
        failures.borrow_mut().push(format!("no write was acknowledged after {from:?}"));
    }
    if workload.acknowledged() == 0 {
        failures.borrow_mut().push("no write was ever acknowledged".to_owned());
    }
    report(plan, &workload, failures.take(), rest.take())
}

/// What the cluster leaves behind.
#[derive(Clone, Default)]
struct Rest {
    fired: BTreeMap<&'static str, u64>,
    disk: DiskStats,
    simulated: Duration,
}

fn report(plan: &Plan, workload: &Workload, failures: Vec<String>, rest: Rest) -> Report {
    // Draws and disk calls that left no other event.
    trace::event(|| format!("end: {:?} {:?}", rest.disk, rand::RngExt::random::<u64>(&mut random::rng())));
    let terms = trace::leaders().by_term.len();
    Report {
        scenario: plan.scenario.clone(),
        nodes: plan.nodes(),
        seed: plan.seed,
        seconds: plan.ends.as_secs(),
        failures,
        fingerprint: trace::end(),
        simulated: rest.simulated,
        operations: workload.issued(),
        acknowledged: workload.acknowledged(),
        terms,
        fired: rest.fired,
        disk: rest.disk,
    }
}

fn carry_out(
    plan: &Plan,
    workload: &Rc<Workload>,
    failures: &Failures,
    rest: &RefCell<Rest>,
) -> Result<(), String> {
    let mut sim = simulation(plan);
    for id in 0..plan.clients {
        let client = workload.clone().client(plan.seed, id);
        sim.client(format!("c{id}"), async move {
            client.await;
            Ok(())
        });
    }
    let observer = Observer::new(plan).run(workload.clone(), failures.clone());
    sim.client("observer", async move {
        observer.await;
        Ok(())
    });
    let lab = Rc::new(Lab::new(plan.nodes()));
    if plan.lab {
        let lab = lab.clone().run(workload.clone());
        sim.client("lab", async move {
            lab.await;
            Ok(())
        });
    }
    let mut cluster = Cluster::new(sim, plan, failures, lab.clone());
    let result = drive(&mut cluster, plan, workload);
    let simulated = cluster.sim.elapsed();
    let mut fired = cluster.fired.clone();
    fired.extend(lab.struck());
    *rest.borrow_mut() = Rest { fired, disk: cluster.disk_stats(), simulated };
    result
}

fn simulation<'a>(plan: &Plan) -> turmoil::Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(plan.seed)
        .enable_random_order()
        .simulation_duration(plan.ends + EXTRA_TIME)
        .tick_duration(TICK)
        .min_message_latency(LATENCY.0)
        .max_message_latency(LATENCY.1)
        .tcp_capacity(TCP_CAPACITY)
        .epoch(SystemTime::UNIX_EPOCH)
        .build()
}

fn drive(cluster: &mut Cluster<'_>, plan: &Plan, workload: &Workload) -> Result<(), String> {
    let mut faults = plan.faults.iter().peekable();
    let mut restart_at = plan.ends;
    loop {
        let now = cluster.sim.elapsed();
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now && *at < plan.ends) {
            cluster.strike(*fault);
        }
        if now >= plan.ends && !workload.is_stopped() {
            trace::event(|| "the end: everything is healed".to_owned());
            cluster.heal();
            workload.stop();
        }
        if now >= restart_at {
            // Again and again: a node that drains is down only later.
            cluster.restart();
            restart_at = now + RESTART_PERIOD;
        }
        let ended = cluster.step()?;
        std::thread::sleep(plan.waste);
        if let Some(panic) = panics::first() {
            return Err(format!("a task {panic}"));
        }
        if ended {
            return Ok(());
        }
    }
}

/// tokio drops the tasks of a runtime in an order that depends on their ids, which are
/// process-wide: a history must begin at the same place among the lists.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let next = || runtime.spawn(async {}).id().to_string().parse::<u64>().expect("task ids are numbers");
    while next() % TASK_LISTS != TASK_LISTS - 1 {}
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
