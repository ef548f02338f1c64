//! The comparison: rounds of Bellwether and etcd by turns, and the page they make.
//!
//! A round starts an empty cluster of each, takes figures from both by turns ([`round`]),
//! others from a second pair ([`returns`]), and leaves nothing behind. A machine that grows
//! slower or faster meanwhile does so for both; the page ([`report`]) shows medians over the
//! rounds and their ratio. Both systems run with their defaults on the same disk, and both
//! sync every write before they acknowledge it.

mod accepted;
mod goals;
mod growth;
mod loads;
mod outages;
mod plots;
mod report;
mod returns;
mod round;
mod samples;
mod spent;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::time::Instant;

use crate::cluster::{self, NODES};
use crate::probe::fsync;
use crate::probe::machine::Machine;
use bellwether_load::target::http::{Body, HttpTarget};

use plots::PLOTS;
use report::Page;
use round::Side;
use samples::{Figure, Samples};

/// How long the disk is probed before each round.
const FSYNC_WINDOW: Duration = Duration::from_secs(1);
/// Connections that all clients share in one of the two ways in which writes by many
/// clients are measured: what an application of some processes would have.
const FEW_CONNECTIONS: usize = 3;
/// Enough to fill quickly; the figures of a fill are nobody's.
const FILL_CLIENTS: usize = 64;

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

    /// Write the page here, its pictures beside it, instead of to standard output
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,

    /// Few and short rounds: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// How often each system has its turn: 3 times, with --quick once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// What both cost as the data grows instead, which takes much longer; writes another page
    #[arg(long, conflicts_with = "rounds")]
    growth: bool,

    /// With --growth: the sizes, in revisions [default: 10000,1000000,10000000]
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "growth")]
    sizes: Vec<u64>,

    /// Print every sample as one JSON object
    #[arg(long)]
    json: bool,
}

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub rounds: usize,
    pub warmup: Duration,
    pub window: Duration,
    /// How long a cluster is left alone before its idle figures are taken.
    pub idle: Duration,
    /// Keys written before the loads, and drawn from by them.
    pub keys: u64,
    pub value_bytes: usize,
    /// Leaders killed in a round, as many stopped, as many frozen.
    pub outages: usize,
    /// Writes that a node misses before it catches up.
    pub missed: u64,
    /// Keys that a node is started with.
    pub most_keys: u64,
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
            outages: 5,
            missed: 50_000,
            most_keys: 1_000_000,
        }
    }

    fn quick() -> Self {
        Self {
            rounds: 1,
            warmup: Duration::from_millis(500),
            window: Duration::from_secs(1),
            idle: Duration::from_secs(2),
            keys: 10_000,
            outages: 1,
            missed: 5_000,
            most_keys: 20_000,
            ..Self::full()
        }
    }
}

impl Compare {
    pub async fn run(self) -> Result<()> {
        if self.growth { self.run_growth().await } else { self.run_rounds().await }
    }

    async fn run_growth(&self) -> Result<()> {
        let page = tokio::select! {
            page = growth::run(self) => page?,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        if self.json || self.out.is_none() {
            println!("{}", serde_json::to_string(&page)?);
        }
        self.out.as_deref().map_or(Ok(()), |out| growth::write(&page, out))
    }

    async fn run_rounds(&self) -> Result<()> {
        let mut plan = if self.quick { Plan::quick() } else { Plan::full() };
        plan.rounds = self.rounds.map_or(plan.rounds, usize::from);
        let page = tokio::select! {
            page = self.rounds(&plan) => page?,
            // Returning drops the clusters, and with them their processes.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        if self.json {
            println!("{}", serde_json::to_string(&page)?);
        }
        match &self.out {
            Some(out) => write(&page, out),
            None if self.json => Ok(()),
            None => {
                print!("{}", report::markdown(&page, None));
                Ok(())
            }
        }
    }

    async fn rounds(&self, plan: &Plan) -> Result<Page> {
        let mut page = Page {
            quick: self.quick,
            plan: plan.clone(),
            machine: Machine::here(),
            disk: Samples::default(),
            bellwether: Samples::default(),
            http: Samples::default(),
            etcd: Samples::default(),
        };
        let bellwether = || cluster::bellwether::cluster(&self.bellwether, &self.dir.join("bellwether"));
        let etcd = || cluster::etcd::cluster(&self.etcd, &self.dir.join("etcd"));
        for round in 1..=plan.rounds {
            eprintln!("round {round} of {}: disk", plan.rounds);
            self.disk(&mut page.disk)?;
            self.up(&mut page.bellwether).await.context("`up`")?;
            eprintln!("round {round} of {}: loads and outages", plan.rounds);
            let ours = Side {
                name: "bellwether",
                cluster: bellwether()?,
                samples: &mut page.bellwether,
                http: Some(&mut page.http),
            };
            let theirs = Side { name: "etcd", cluster: etcd()?, samples: &mut page.etcd, http: None };
            round::run([ours, theirs], plan).await?;
            eprintln!("round {round} of {}: returns", plan.rounds);
            let is_last = round == plan.rounds;
            returns::run(bellwether()?, plan, is_last, &mut page.bellwether).await.context("bellwether")?;
            returns::run(etcd()?, plan, is_last, &mut page.etcd).await.context("etcd")?;
        }
        Ok(page)
    }

    fn disk(&self, samples: &mut Samples) -> Result<()> {
        let one = fsync::probe(&self.dir, 1, FSYNC_WINDOW)?;
        let three = fsync::probe(&self.dir, NODES, FSYNC_WINDOW)?;
        samples.add(Figure::SyncsByOne, one.per_second);
        samples.add(Figure::SyncTime, one.p50_us as f64 / 1000.0);
        samples.add(Figure::SyncsByThree, three.per_second);
        Ok(())
    }

    async fn up(&self, samples: &mut Samples) -> Result<()> {
        let began = Instant::now();
        let up = cluster::bellwether::Up::start(&self.bellwether, &self.dir.join("up"))?;
        accepted::by_any(&HttpTarget::new(&up.urls, Body::Json, None)?).await?;
        samples.add(Figure::UpToWrite, began.elapsed().as_secs_f64());
        Ok(())
    }
}

/// The page, and the pictures that it shows.
fn write(page: &Page, out: &Path) -> Result<()> {
    let stem = out.file_stem().and_then(|stem| stem.to_str()).context("--out names no file")?;
    for plot in &PLOTS {
        let picture = out.with_file_name(format!("{stem}-{}.svg", plot.name));
        let svg = plot.draw(page)?;
        std::fs::write(&picture, svg).with_context(|| format!("writing {}", picture.display()))?;
    }
    let text = report::markdown(page, Some(stem));
    std::fs::write(out, text).with_context(|| format!("writing {}", out.display()))
}
