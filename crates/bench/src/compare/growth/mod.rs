//! What a store costs as it grows: one cluster of each system, filled step by step.
//!
//! Every step writes until the store has so many keys and revisions, and takes the same
//! figures: what it holds in memory and on disk, how fast it is, how long a node takes to
//! start. History is kept in both systems, so that revisions are what is in them.

mod report;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::{Freshness, Target};
use bellwether_load::{self as load, Distribution, Extent, Load, Workload};
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::sleep;

use super::{Compare, FEW_CONNECTIONS, accepted, returns, round};
use crate::cluster::{self, Cluster, NODES};
use crate::number::count;
use crate::probe::disk::allocated_bytes;
use crate::probe::machine::Machine;

pub use report::write;

/// By revisions; as many keys, up to [`MOST_KEYS`].
const SIZES: [u64; 3] = [10_000, 1_000_000, 10_000_000];
/// Of a quick run.
const QUICK_SIZES: [u64; 3] = [1_000, 5_000, 20_000];
/// More revisions than that are more versions of the same keys.
const MOST_KEYS: u64 = 1_000_000;
const QUICK_MOST_KEYS: u64 = 5_000;
/// Of the load, and of filling.
const CLIENTS: usize = 64;
/// Background work after a fill (flushing, compaction) gets this long.
const AFTER_FILL: Duration = Duration::from_secs(5);
/// Of the revisions that a step is to have, so many must be there.
const LEAST_FILLED: f64 = 0.99;
/// etcd's default of 2 GiB holds some seven million revisions of small values, and then it
/// takes no more writes.
const ETCD_QUOTA: &str = "--quota-backend-bytes=17179869184";
/// By default the last five million revisions are kept, for an hour.
const BELLWETHER_KEEPS: [(&str, &str); 2] = [("HISTORY_REVISIONS", "0"), ("HISTORY_AGE_MS", "0")];

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    quick: bool,
    steps: Vec<Step>,
    warmup: Duration,
    window: Duration,
    value_bytes: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Step {
    keys: u64,
    revisions: u64,
}

/// What one step found. Memory and disk are the largest node's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Stage {
    revisions: u64,
    writes_per_second: f64,
    local_reads_per_second: f64,
    memory_mib: f64,
    disk_mib: f64,
    start_seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct Page {
    plan: Plan,
    machine: Machine,
    bellwether: Vec<Stage>,
    etcd: Vec<Stage>,
}

impl Plan {
    fn new(quick: bool, sizes: &[u64]) -> Self {
        let most_keys = if quick { QUICK_MOST_KEYS } else { MOST_KEYS };
        let step = |revisions: &u64| Step { keys: most_keys.min(*revisions), revisions: *revisions };
        Self {
            quick,
            steps: sizes.iter().map(step).collect(),
            warmup: Duration::from_secs(if quick { 0 } else { 2 }),
            window: Duration::from_secs(if quick { 1 } else { 8 }),
            value_bytes: 256,
        }
    }
}

/// Grows a cluster of each, one after the other: both at once would share the memory.
pub async fn run(compare: &Compare) -> Result<Page> {
    let sizes = match &compare.sizes[..] {
        [] if compare.quick => &QUICK_SIZES[..],
        [] => &SIZES[..],
        chosen => chosen,
    };
    ensure!(sizes.is_sorted() && sizes[0] > 0, "--sizes must grow");
    let plan = Plan::new(compare.quick, sizes);
    let settings = BELLWETHER_KEEPS.map(|(name, value)| (name, value.to_owned()));
    let dir = compare.dir.join("growth");
    let ours = cluster::bellwether::cluster_with(&compare.bellwether, &dir, &settings)?;
    let bellwether = grow(ours, &plan, "bellwether").await.context("bellwether")?;
    let theirs = cluster::etcd::cluster_of(NODES, &compare.etcd, &dir, &[ETCD_QUOTA])?;
    let etcd = grow(theirs, &plan, "etcd").await.context("etcd")?;
    Ok(Page { plan, machine: Machine::here(), bellwether, etcd })
}

async fn grow(mut cluster: Cluster, plan: &Plan, name: &str) -> Result<Vec<Stage>> {
    let target = EtcdTarget::new(&cluster.urls(), Some(FEW_CONNECTIONS))?;
    cluster.start_all()?;
    accepted::by_any(&target).await?;
    accepted::everywhere(&target).await?;
    let (mut stages, mut keys) = (Vec::new(), 0);
    for step in &plan.steps {
        eprintln!("{name}: up to {} revisions", count(step.revisions));
        if step.keys > keys {
            keys = step.keys;
            load::fill(&target, keys, plan.value_bytes, CLIENTS).await?;
        }
        write_upto(&target, plan, step).await?;
        sleep(AFTER_FILL).await;
        let stage = measure(&mut cluster, &target, plan, step).await?;
        eprintln!("{name}: {}", serde_json::to_string(&stage)?);
        stages.push(stage);
        cluster.check()?;
    }
    Ok(stages)
}

/// Writes the keys again, in turn, until there are so many revisions.
async fn write_upto(target: &EtcdTarget, plan: &Plan, step: &Step) -> Result<()> {
    let missing = step.revisions.saturating_sub(target.revision().await?);
    if missing > 0 {
        let load = Load {
            extent: Extent::Requests(missing),
            distribution: Distribution::Sequential,
            warmup: Duration::ZERO,
            ..plan.load(step, Workload::Put)
        };
        load::run(target, &load, &[], "filling").await?;
    }
    let found = target.revision().await?;
    let enough = found as f64 >= LEAST_FILLED * step.revisions as f64;
    ensure!(enough, "only {found} revisions came of {}", step.revisions);
    Ok(())
}

impl Plan {
    fn load(&self, step: &Step, workload: Workload) -> Load {
        Load {
            workload,
            clients: CLIENTS,
            keys: step.keys,
            freshness: Freshness::Local,
            value_bytes: self.value_bytes,
            warmup: self.warmup,
            extent: Extent::Time(self.window),
            ..Load::default()
        }
    }
}

async fn measure(cluster: &mut Cluster, target: &EtcdTarget, plan: &Plan, step: &Step) -> Result<Stage> {
    let revisions = target.revision().await?;
    let memory_mib = round::memory_mib(cluster)?;
    let disk = cluster.data_dirs().map(allocated_bytes).collect::<Result<Vec<_>>>()?;
    let disk_bytes = disk.into_iter().max().context("no data")?;
    let mut rates = Vec::new();
    for workload in [Workload::Get, Workload::Put] {
        let load = plan.load(step, workload);
        let outcome = load::run(target, &load, &cluster.pids(), &format!("{workload:?}")).await?;
        let first = outcome.first_error.unwrap_or_default();
        ensure!(outcome.errors == 0, "{workload:?}: {} errors, such as: {first}", outcome.errors);
        rates.push(outcome.per_second);
    }
    let follower = (target.leader().await? + 1) % target.nodes();
    cluster.signal(follower, Signal::TERM)?;
    cluster.wait_end(follower).await?;
    // Not there yet, so that it comes with what the node missed.
    let key = format!("started-{revisions}");
    let started = returns::until_it_shows(cluster, target, follower, &key).await.context("starting")?;
    accepted::everywhere(target).await?;
    Ok(Stage {
        revisions,
        writes_per_second: rates[1],
        local_reads_per_second: rates[0],
        memory_mib,
        disk_mib: disk_bytes as f64 / (1024.0 * 1024.0),
        start_seconds: started.as_secs_f64(),
    })
}
