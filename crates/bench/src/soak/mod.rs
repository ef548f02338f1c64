//! A healthy cluster under load for minutes: nobody may call an election.
//!
//! Three nodes with default settings take the writes of as many clients as are asked for.
//! Meanwhile every node is asked for its term and its role, so an election is seen whoever
//! wins it and however short it is: terms never go back. What the nodes logged is kept when
//! it fails.

mod report;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use bellwether_load::target::http::{Body, HttpTarget};
use bellwether_load::{Extent, Load};

use crate::cluster::{Cluster, bellwether};
use crate::nodes;
use report::Report;
use watch::Watch;

/// A loaded cluster that must not elect anybody
#[derive(Debug, clap::Args)]
pub struct Soak {
    /// The server
    #[arg(long, default_value = "target/release/bellwether")]
    program: PathBuf,

    /// Where its data goes; emptied before and removed after. Logs of a run that failed are
    /// beside it, in a directory whose name ends with -logs
    #[arg(long, default_value = "target/soak")]
    dir: PathBuf,

    /// How long the load lasts
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Clients, each with one write under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,

    /// Seconds between two lines that say how it goes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

impl Soak {
    pub async fn run(self) -> Result<()> {
        let mut cluster = bellwether::cluster(&self.program, &self.dir)?;
        let ended = tokio::select! {
            ended = self.loaded(&mut cluster) => ended,
            // Returning drops the cluster, and with it its processes.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        if ended.is_err() {
            let mut logs = self.dir.clone().into_os_string();
            logs.push("-logs");
            cluster.keep_logs(logs.as_ref())?;
            eprintln!("the nodes' logs are in {}", logs.display());
        }
        ended
    }

    async fn loaded(&self, cluster: &mut Cluster) -> Result<()> {
        cluster.start_all()?;
        nodes::leader(cluster).await?;
        let mut watch = Watch::begin(&cluster.urls(), Duration::from_secs(self.every)).await?;
        let target = HttpTarget::new(&cluster.urls(), Body::Json, None)?;
        let load = Load {
            clients: self.clients.into(),
            extent: Extent::Time(Duration::from_secs(self.seconds)),
            ..Load::default()
        };
        let pids = cluster.pids();
        let outcome = tokio::select! {
            outcome = bellwether_load::run(&target, &load, &pids, "soak") => outcome?,
            never = watch.go_on() => match never? {},
        };
        cluster.check()?;
        watch.look().await.context("after the load")?;
        let report = Report { outcome, seen: watch.seen, fsync: watch::worst_fsync(&cluster.urls()).await? };
        println!("{}", report.line());
        let broken = report.broken();
        ensure!(broken.is_empty(), "not sound:\n{}", broken.join("\n"));
        Ok(())
    }
}
