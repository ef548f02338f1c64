//! One round: everything that is measured on one cluster, from its start to its end.
//!
//! The order matters: memory before the loads is that of an idle and of a filled store, not
//! of what a load left behind; leaders are stopped later, because a cluster after that is
//! another one; and last come as many keys as a start is measured with.

use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_load::probe::process::{CpuTime, resident_bytes};
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::http::{Body, HttpTarget};
use tokio::time::{Instant, sleep};

use super::samples::{Figure, Samples, Way};
use super::{FEW_CONNECTIONS, Plan, accepted, loads, outages, returns};
use crate::cluster::Cluster;

/// Enough to fill quickly; the figures of the fill are nobody's.
const FILL_CLIENTS: usize = 64;
/// Background work after a fill (flushing, compaction) gets this long.
const AFTER_FILL: Duration = Duration::from_secs(2);

/// Runs this cluster through the plan, in etcd's protocol and, for whom speaks it, in ours.
pub async fn run(
    mut cluster: Cluster,
    plan: &Plan,
    is_last: bool,
    to: &mut Samples,
    over_http: Option<&mut Samples>,
) -> Result<()> {
    let urls = cluster.urls();
    let target = |connections| EtcdTarget::new(&urls, connections);
    let (own, shared) = (target(None)?, target(Some(FEW_CONNECTIONS))?);
    let began = Instant::now();
    cluster.start_all()?;
    accepted::by_any(&own).await?;
    to.add(Figure::StartToWrite, began.elapsed().as_secs_f64());
    accepted::everywhere(&own).await?;
    idle(&cluster, plan, to).await?;
    bellwether_load::fill(&shared, plan.keys, plan.value_bytes, FILL_CLIENTS).await?;
    sleep(AFTER_FILL).await;
    to.add(Figure::MemoryFilled, memory_mib(&cluster)?);
    // Requests that travel together suit gRPC's servers better, so that serves everything.
    loads::run(&cluster, [(Way::Shared, &shared), (Way::Own, &own)], plan, to).await?;
    loads::events(&cluster, &shared, plan, to).await?;
    to.add(Figure::MemoryLoaded, memory_mib(&cluster)?);
    if let Some(to) = over_http {
        let target = |connections| HttpTarget::new(&urls, Body::Json, connections);
        let (own, shared) = (target(None)?, target(Some(FEW_CONNECTIONS))?);
        // What curl and most libraries do serves everything.
        loads::run(&cluster, [(Way::Own, &own), (Way::Shared, &shared)], plan, to).await?;
    }
    cluster.check()?;
    outages::run(&mut cluster, plan, to).await?;
    returns::after_missing_writes(&mut cluster, plan, to).await?;
    if is_last {
        returns::with_many_keys(&mut cluster, plan, to).await?;
    }
    cluster.check()
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
pub fn memory_mib(cluster: &Cluster) -> Result<f64> {
    let all = cluster.pids().into_iter().map(resident_bytes).collect::<Result<Vec<_>>>()?;
    let most = all.into_iter().max().context("no server runs")?;
    Ok(most as f64 / (1024.0 * 1024.0))
}
