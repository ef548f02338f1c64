//! One round: everything that is measured on one cluster, from its start to its end.
//!
//! The order matters: memory before the loads is that of an idle and of a filled store, not
//! of what a load left behind; the leaders are killed last, because a cluster after that
//! is another one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_load::probe::process::{CpuTime, resident_bytes};
use bellwether_load::target::Target;
use bellwether_load::{self as load, Outcome};
use tokio::time::{Instant, sleep};

use super::samples::{Clients, Figure, Job, Samples};
use super::{Plan, accepted};
use crate::cluster::Cluster;

/// Enough to fill quickly; the figures of the fill are nobody's.
const FILL_CLIENTS: usize = 64;
/// Background work after a fill (flushing, compaction) gets this long.
const AFTER_FILL: Duration = Duration::from_secs(2);
/// Between the return of a killed node and the next kill: both systems' election timeouts
/// and then some.
const BETWEEN_KILLS: Duration = Duration::from_secs(2);
/// Of all operations in a window. More means that something other than speed was measured.
const MOST_ERRORS: f64 = 0.01;

/// Runs this cluster through the plan. `targets` are the ways to reach it: writes by many
/// clients are measured in each, and the faster counts; the first serves everything else.
pub async fn run<T: Target>(
    mut cluster: Cluster,
    targets: &[T],
    plan: &Plan,
    to: &mut Samples,
) -> Result<()> {
    let target = targets.first().context("no way to reach the cluster")?;
    let began = Instant::now();
    cluster.start_all()?;
    accepted::by_any(target).await?;
    to.add(Figure::StartToWrite, began.elapsed().as_secs_f64());
    accepted::everywhere(target).await?;
    idle(&cluster, plan, to).await?;
    load::fill(target, plan.keys, plan.value_bytes, FILL_CLIENTS).await?;
    sleep(AFTER_FILL).await;
    to.add(Figure::MemoryFilled, memory_mib(&cluster)?);
    loads(&cluster, targets, plan, to).await?;
    cluster.check()?;
    kills(&mut cluster, target, plan, to).await
}

async fn idle(cluster: &Cluster, plan: &Plan, to: &mut Samples) -> Result<()> {
    let pids = cluster.pids();
    let before = CpuTime::of(&pids)?;
    sleep(plan.idle).await;
    let spent = CpuTime::of(&pids)?.since(&before);
    to.add(Figure::IdleCpu, spent.as_secs_f64() / plan.idle.as_secs_f64());
    to.add(Figure::MemoryIdle, memory_mib(cluster)?);
    Ok(())
}

/// Of the node that takes most.
fn memory_mib(cluster: &Cluster) -> Result<f64> {
    let all = cluster.pids().into_iter().map(resident_bytes).collect::<Result<Vec<_>>>()?;
    let most = all.into_iter().max().context("no server runs")?;
    Ok(most as f64 / (1024.0 * 1024.0))
}

async fn loads<T: Target>(cluster: &Cluster, targets: &[T], plan: &Plan, to: &mut Samples) -> Result<()> {
    let target = &targets[0];
    let one = measure(cluster, target, plan, Job::Put, Clients::One).await?;
    record(to, Job::Put, Clients::One, &one);
    for clients in [Clients::Many, Clients::Most] {
        let mut best: Option<Outcome> = None;
        for (way, target) in targets.iter().enumerate() {
            let outcome = measure(cluster, target, plan, Job::Put, clients).await?;
            to.add(Figure::PutsByWay(clients, way), outcome.per_second);
            if best.as_ref().is_none_or(|best| outcome.per_second > best.per_second) {
                best = Some(outcome);
            }
        }
        record(to, Job::Put, clients, &best.context("nothing measured")?);
    }
    for job in [Job::LocalGet, Job::Get, Job::Mixed] {
        let outcome = measure(cluster, target, plan, job, Clients::Many).await?;
        record(to, job, Clients::Many, &outcome);
    }
    Ok(())
}

async fn measure<T: Target>(
    cluster: &Cluster,
    target: &T,
    plan: &Plan,
    job: Job,
    clients: Clients,
) -> Result<Outcome> {
    let title = format!("{job:?}, clients: {}", clients.count());
    let outcome = load::run(target, &job.load(clients, plan), &cluster.pids(), &title).await?;
    let errors = outcome.errors as f64;
    let first = outcome.first_error.as_deref().unwrap_or_default();
    ensure!(errors <= MOST_ERRORS * outcome.operations as f64, "{title}: {errors} errors, such as: {first}");
    Ok(outcome)
}

fn record(to: &mut Samples, job: Job, clients: Clients, outcome: &Outcome) {
    to.add(Figure::Rate(job, clients), outcome.per_second);
    to.add(Figure::P50(job, clients), outcome.p50_us as f64 / 1000.0);
    to.add(Figure::P99(job, clients), outcome.p99_us as f64 / 1000.0);
    to.add(Figure::ClientCpu(job, clients), outcome.client_cpu_per_1000);
    if let Some(cpu) = outcome.server_cpu_per_1000 {
        to.add(Figure::ServerCpu(job, clients), cpu);
    }
}

async fn kills<T: Target>(cluster: &mut Cluster, target: &T, plan: &Plan, to: &mut Samples) -> Result<()> {
    for _ in 0..plan.kills {
        sleep(BETWEEN_KILLS).await;
        let leader = target.leader().await?;
        let survivors: Vec<usize> = (0..target.nodes()).filter(|node| *node != leader).collect();
        let began = Instant::now();
        cluster.kill(leader)?;
        accepted::by_one_of(target, &survivors).await?;
        to.add(Figure::Failover, began.elapsed().as_secs_f64());
        cluster.start(leader)?;
        accepted::everywhere(target).await?;
    }
    Ok(())
}
