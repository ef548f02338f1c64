//! A node that comes back: after it missed writes, and with many keys.
//!
//! On a cluster of its own: what a node reads when it starts depends on all that was written
//! before, and in the same time of load the faster system writes more.

use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::{Freshness, Route, Session, Target};
use bytes::Bytes;
use rustix::process::Signal;
use tokio::time::{Instant, timeout};

use super::samples::{Figure, Samples};
use super::{FILL_CLIENTS, Plan, accepted};
use crate::cluster::Cluster;

/// Past this the node is not coming.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Fills an empty cluster, and takes what a return costs in it.
pub async fn run(mut cluster: Cluster, plan: &Plan, is_last: bool, to: &mut Samples) -> Result<()> {
    cluster.start_all()?;
    let target = EtcdTarget::new(&cluster.urls(), None)?;
    accepted::by_any(&target).await?;
    accepted::everywhere(&target).await?;
    bellwether_load::fill(&target, plan.keys, plan.value_bytes, FILL_CLIENTS).await?;
    after_missing_writes(&mut cluster, plan, to).await?;
    if is_last {
        with_many_keys(&mut cluster, plan, to).await?;
    }
    cluster.check()
}

/// A follower dies, misses writes, and returns.
async fn after_missing_writes(cluster: &mut Cluster, plan: &Plan, to: &mut Samples) -> Result<()> {
    let target = EtcdTarget::new(&cluster.urls(), None)?;
    let follower = follower(&target).await?;
    cluster.signal(follower, Signal::KILL)?;
    cluster.wait_end(follower).await?;
    bellwether_load::fill(&target, plan.missed, plan.value_bytes, FILL_CLIENTS).await?;
    let took = until_it_shows(cluster, &target, follower, "caught-up").await.context("catching up")?;
    to.add(Figure::CatchUp, took.as_secs_f64());
    accepted::everywhere(&target).await
}

/// A follower is stopped in peace, and started again.
async fn with_many_keys(cluster: &mut Cluster, plan: &Plan, to: &mut Samples) -> Result<()> {
    let target = EtcdTarget::new(&cluster.urls(), None)?;
    bellwether_load::fill(&target, plan.most_keys, plan.value_bytes, FILL_CLIENTS).await?;
    let follower = follower(&target).await?;
    cluster.signal(follower, Signal::TERM)?;
    cluster.wait_end(follower).await?;
    let took = until_it_shows(cluster, &target, follower, "started").await.context("starting")?;
    to.add(Figure::StartFull, took.as_secs_f64());
    Ok(())
}

async fn follower(target: &EtcdTarget) -> Result<usize> {
    Ok((target.leader().await? + 1) % target.nodes())
}

/// Writes a key that wasn't there, starts this node, and waits until it shows the key by
/// itself.
pub async fn until_it_shows(
    cluster: &mut Cluster,
    target: &EtcdTarget,
    node: usize,
    key: &str,
) -> Result<Duration> {
    let mut leader = target.session(Route::Leader).await?;
    leader.put(key, &Bytes::from_static(b"1")).await?;
    let began = Instant::now();
    cluster.start(node)?;
    let shows = accepted::until_done(async || {
        let mut session = target.session(Route::Node(node)).await?;
        anyhow::ensure!(session.get(key, Freshness::Local).await?, "it doesn't have it yet");
        Ok(())
    });
    timeout(GIVE_UP, shows).await.context("the node did not return")?;
    Ok(began.elapsed())
}
