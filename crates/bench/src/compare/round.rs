//! One round: a cluster of each system, and everything that is measured on it.
//!
//! The clusters run at the same time, and one idles while the other is measured: what is
//! compared is measured within a minute. The order matters: memory before the loads is that
//! of an idle and of a filled store, not of what a load left behind; and leaders are stopped
//! last, because a cluster after that is another one.

use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_load::probe::process::{CpuTime, resident_bytes};
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::http::{Body, HttpTarget};
use tokio::time::{Instant, sleep};

use super::loads::{self, Party};
use super::samples::{Figure, Samples, Way};
use super::{FEW_CONNECTIONS, FILL_CLIENTS, Plan, accepted, outages};
use crate::cluster::Cluster;

/// Background work after a fill (flushing, compaction) gets this long.
const AFTER_FILL: Duration = Duration::from_secs(2);

/// One system in a round.
pub struct Side<'a> {
    pub name: &'static str,
    pub cluster: Cluster,
    pub samples: &'a mut Samples,
    /// For who speaks our HTTP as well.
    pub http: Option<&'a mut Samples>,
}

/// Runs clusters that are new through the plan.
pub async fn run(mut sides: [Side<'_>; 2], plan: &Plan) -> Result<()> {
    for side in &mut sides {
        side.start(plan).await.context(side.name)?;
    }
    for side in &mut sides {
        side.fill(plan).await.context(side.name)?;
    }
    let mut parties = Vec::new();
    for Side { name, cluster, samples, .. } in &mut sides {
        let urls = cluster.urls();
        let target = |connections| EtcdTarget::new(&urls, connections);
        // Requests that travel together suit gRPC's servers better, so that serves everything.
        let ways = [(Way::Shared, target(Some(FEW_CONNECTIONS))?), (Way::Own, target(None)?)];
        parties.push(Party { name, cluster, ways, to: samples });
    }
    loads::run(&mut parties, plan).await?;
    loads::events(&mut parties, plan).await?;
    for side in &mut sides {
        side.samples.add(Figure::MemoryLoaded, memory_mib(&side.cluster)?);
    }
    for side in &mut sides {
        side.over_http(plan).await.context(side.name)?;
        side.cluster.check()?;
    }
    for side in &mut sides {
        outages::run(&mut side.cluster, plan, side.samples).await.context(side.name)?;
        side.cluster.check()?;
    }
    Ok(())
}

impl Side<'_> {
    /// Starts it, and looks at it while it has nothing to do.
    async fn start(&mut self, plan: &Plan) -> Result<()> {
        let target = EtcdTarget::new(&self.cluster.urls(), None)?;
        let began = Instant::now();
        self.cluster.start_all()?;
        accepted::by_any(&target).await?;
        self.samples.add(Figure::StartToWrite, began.elapsed().as_secs_f64());
        accepted::everywhere(&target).await?;
        let pids = self.cluster.pids();
        let before = CpuTime::of(&pids)?;
        sleep(plan.idle).await;
        let spent = CpuTime::of(&pids)?.since(&before);
        self.samples.add(Figure::IdleCpu, spent.as_secs_f64() / plan.idle.as_secs_f64());
        self.samples.add(Figure::MemoryIdle, memory_mib(&self.cluster)?);
        Ok(())
    }

    async fn fill(&mut self, plan: &Plan) -> Result<()> {
        let target = EtcdTarget::new(&self.cluster.urls(), Some(FEW_CONNECTIONS))?;
        bellwether_load::fill(&target, plan.keys, plan.value_bytes, FILL_CLIENTS).await?;
        sleep(AFTER_FILL).await;
        self.samples.add(Figure::MemoryFilled, memory_mib(&self.cluster)?);
        Ok(())
    }

    async fn over_http(&mut self, plan: &Plan) -> Result<()> {
        let Some(to) = &mut self.http else { return Ok(()) };
        let urls = self.cluster.urls();
        let target = |connections| HttpTarget::new(&urls, Body::Json, connections);
        // What curl and most libraries do serves everything.
        let ways = [(Way::Own, target(None)?), (Way::Shared, target(Some(FEW_CONNECTIONS))?)];
        loads::run(&mut [Party { name: "bellwether over HTTP", cluster: &self.cluster, ways, to }], plan)
            .await
    }
}

/// Of the node that takes most.
pub fn memory_mib(cluster: &Cluster) -> Result<f64> {
    let all = cluster.pids().into_iter().map(resident_bytes).collect::<Result<Vec<_>>>()?;
    let most = all.into_iter().max().context("no server runs")?;
    Ok(most as f64 / (1024.0 * 1024.0))
}
