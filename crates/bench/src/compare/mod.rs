//! The comparison: rounds of Bellwether and etcd by turns, and the page they make.
//!
//! A round starts an empty cluster of one system, takes every [`samples::Figure`] from it
//! ([`round`]), and leaves nothing behind. The systems alternate, so that a machine that
//! grows slower or faster meanwhile does so for both; the page ([`report`]) shows medians
//! over the rounds and their ratio. Both systems run with their defaults, one after the
//! other on the same disk, and both sync every write before they acknowledge it.

mod accepted;
mod report;
mod round;
mod samples;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::cluster::{self, NODES};
use crate::probe::fsync;
use crate::probe::machine::Machine;
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::http::{Body, HttpTarget};

use report::Page;
use samples::{Figure, Samples};

/// How long the disk is probed before each round.
const FSYNC_WINDOW: Duration = Duration::from_secs(1);
/// Connections that all clients share in one of the two ways in which writes by many
/// clients are measured: what an application of some processes would have.
const FEW_CONNECTIONS: usize = 3;

#[derive(Debug, clap::Args)]
pub struct Compare {
    /// The Bellwether binary
    #[arg(long, value_name = "PATH")]
    bellwether: PathBuf,

    /// The etcd binary
    #[arg(long, value_name = "PATH")]
    etcd: PathBuf,

    /// A directory for the clusters' data, on the disk that is meant
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Write the page here instead of to standard output
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,

    /// Few and short rounds: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Print every sample as one JSON object
    #[arg(long)]
    json: bool,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rounds: usize,
    pub warmup: Duration,
    pub window: Duration,
    /// How long a cluster is left alone before its idle figures are taken.
    pub idle: Duration,
    /// Keys written before the loads, and drawn from by them.
    pub keys: u64,
    pub value_bytes: usize,
    /// Leaders killed in a round.
    pub kills: usize,
}

impl Plan {
    fn full() -> Self {
        Self {
            rounds: 3,
            warmup: Duration::from_secs(2),
            window: Duration::from_secs(8),
            idle: Duration::from_secs(5),
            keys: 100_000,
            value_bytes: 256,
            kills: 5,
        }
    }

    fn quick() -> Self {
        Self {
            rounds: 2,
            warmup: Duration::from_millis(500),
            window: Duration::from_secs(2),
            idle: Duration::from_secs(2),
            keys: 10_000,
            kills: 2,
            ..Self::full()
        }
    }
}

impl Compare {
    pub async fn run(self) -> Result<()> {
        let plan = if self.quick { Plan::quick() } else { Plan::full() };
        let page = tokio::select! {
            page = self.rounds(&plan) => page?,
            // Returning drops the clusters, and with them their processes.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        if self.json {
            println!("{}", serde_json::to_string(&page)?);
        }
        let text = report::markdown(&page);
        match &self.out {
            Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display())),
            None if self.json => Ok(()),
            None => {
                print!("{text}");
                Ok(())
            }
        }
    }

    async fn rounds(&self, plan: &Plan) -> Result<Page> {
        let mut page = Page {
            quick: self.quick,
            keys: plan.keys,
            rounds: plan.rounds,
            window_seconds: plan.window.as_secs_f64(),
            machine: Machine::here(),
            disk: Samples::default(),
            bellwether: Samples::default(),
            etcd: Samples::default(),
        };
        for round in 1..=plan.rounds {
            eprintln!("round {round} of {}: disk", plan.rounds);
            self.disk(&mut page.disk)?;
            eprintln!("round {round} of {}: bellwether", plan.rounds);
            self.bellwether(plan, &mut page.bellwether).await.context("bellwether")?;
            eprintln!("round {round} of {}: etcd", plan.rounds);
            self.etcd(plan, &mut page.etcd).await.context("etcd")?;
        }
        Ok(page)
    }

    fn disk(&self, samples: &mut Samples) -> Result<()> {
        let one = fsync::probe(&self.dir, 1, FSYNC_WINDOW)?;
        let three = fsync::probe(&self.dir, NODES, FSYNC_WINDOW)?;
        samples.add(Figure::SyncsByOne, one.per_second);
        samples.add(Figure::SyncsByThree, three.per_second);
        Ok(())
    }

    async fn bellwether(&self, plan: &Plan, samples: &mut Samples) -> Result<()> {
        let began = Instant::now();
        let up = cluster::bellwether::Up::start(&self.bellwether, &self.dir.join("up"))?;
        accepted::by_any(&HttpTarget::new(&up.urls, Body::Json, None)?).await.context("`up`")?;
        samples.add(Figure::UpToWrite, began.elapsed().as_secs_f64());
        drop(up);
        let cluster = cluster::bellwether::cluster(&self.bellwether, &self.dir.join("bellwether"))?;
        let urls = cluster.urls();
        let target = |connections| HttpTarget::new(&urls, Body::Json, connections);
        // One a client first: what curl and most libraries do serves everything else.
        let targets = [target(None)?, target(Some(FEW_CONNECTIONS))?];
        round::run(cluster, &targets, plan, samples).await
    }

    async fn etcd(&self, plan: &Plan, samples: &mut Samples) -> Result<()> {
        let cluster = cluster::etcd::cluster(&self.etcd, &self.dir.join("etcd"))?;
        let urls = cluster.urls();
        let target = |connections| EtcdTarget::new(&urls, connections);
        // Few connections first, for they serve everything else: requests that travel together
        // suit etcd better, and the comparison is to be with etcd at its best.
        let targets = [target(Some(FEW_CONNECTIONS))?, target(None)?];
        round::run(cluster, &targets, plan, samples).await
    }
}
