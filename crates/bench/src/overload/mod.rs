//! Ten times more writers than a cluster serves at once, and what that does to it.
//!
//! A cluster of three is first loaded by as many writers as it works on at once (the calm),
//! then by ten times as many (the storm), each with a connection and a key of its own. A
//! refused writer comes back ten times sooner than it was told. Meanwhile every node's
//! memory and term are watched, and history is compacted, so that memory which grows is
//! memory that is held, not data. In the end every acknowledged write is read.
//!
//! Bounds are ratios to the calm, in the same run on the same machine, and amounts of memory.

mod report;
mod writers;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use tokio::time::{Instant, sleep};

use crate::cluster::bellwether;
use crate::nodes;
use bellwether_load::probe::process::resident_bytes;
use bellwether_load::target::Address;
use bellwether_load::target::http::Link;
use report::Report;
use writers::{Seen, Writers};

/// How often memory and terms are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// How often history is forgotten.
const COMPACT_INTERVAL: Duration = Duration::from_secs(1);
/// Before each phase is measured.
const WARMUP: Duration = Duration::from_secs(2);

/// More writers than a cluster serves
#[derive(Debug, clap::Args)]
pub struct Overload {
    /// The server
    #[arg(long, default_value = "target/release/bellwether")]
    program: PathBuf,

    /// Where its data goes; emptied before and removed after
    #[arg(long, default_value = "target/overload")]
    dir: PathBuf,

    /// How long the storm lasts
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// How long the calm before it lasts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    calm_seconds: u64,

    /// Requests that a node works on at once (`MAX_INFLIGHT_REQUESTS`)
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    served: u16,

    /// So many times more writers come
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=20))]
    times: u16,
}

/// A phase as it was measured.
pub struct Phase {
    pub writers: usize,
    pub took: Duration,
    pub seen: Seen,
    /// Of each node: resident bytes at the start and at most.
    pub memory: Vec<(u64, u64)>,
    /// The terms that nodes were in, smallest and largest.
    pub terms: (u64, u64),
}

impl Overload {
    pub async fn run(self) -> Result<()> {
        let served = usize::from(self.served);
        let settings = [("MAX_INFLIGHT_REQUESTS", self.served.to_string())];
        let mut cluster = bellwether::cluster_with(&self.program, &self.dir, &settings)?;
        cluster.start_all()?;
        let addresses: Rc<[Address]> =
            cluster.urls().iter().map(|url| Address::parse(url)).collect::<Result<_>>()?;
        let leader = nodes::leader(&mut cluster).await?;
        let mut writers = Writers::new(addresses[leader].clone());
        let watch = Watch { nodes: addresses.clone(), pids: cluster.pids(), leader };
        let calm = watch.phase(&mut writers, served, Duration::from_secs(self.calm_seconds)).await?;
        let storm_writers = served * usize::from(self.times);
        let storm = watch.phase(&mut writers, storm_writers, Duration::from_secs(self.seconds)).await?;
        cluster.check()?;
        // Who leads now is asked anew: a changed leader is for the report to tell.
        let lost = writers.count_lost(&addresses[nodes::leader(&mut cluster).await?]).await?;
        let report = Report { calm, storm, lost };
        print!("{}", report.table());
        let broken = report.broken();
        ensure!(broken.is_empty(), "bounds were broken:\n{}", broken.join("\n"));
        Ok(())
    }
}

/// What is looked at while the writers write.
struct Watch {
    nodes: Rc<[Address]>,
    pids: Vec<u32>,
    leader: usize,
}

impl Watch {
    /// Runs so many writers for so long.
    async fn phase(&self, writers: &mut Writers, count: usize, window: Duration) -> Result<Phase> {
        let running = writers.start(count).await?;
        let finished = running.during(async {
            sleep(WARMUP).await;
            writers.begin_count();
            self.watch(window).await
        });
        let (took, memory, terms) = finished.await?;
        Ok(Phase { writers: count, took, seen: writers.seen(), memory, terms })
    }

    async fn watch(&self, window: Duration) -> Result<(Duration, Vec<(u64, u64)>, (u64, u64))> {
        let began = Instant::now();
        let start = self.memory()?;
        let (mut memory, mut terms) = (start.clone(), (u64::MAX, 0));
        let mut compacted = began;
        while began.elapsed() < window {
            sleep(WATCH_INTERVAL).await;
            for (most, now) in memory.iter_mut().zip(self.memory()?) {
                *most = now.max(*most);
            }
            let (mut revision, mut answered) = (0, 0);
            for node in self.nodes.iter() {
                // In a storm an answer may be late; the terms at the end are always seen.
                let Ok(status) = nodes::status(node).await else { continue };
                let term = status["term"].as_u64().context("a status without a term")?;
                terms = (terms.0.min(term), terms.1.max(term));
                revision = status["revision"].as_u64().unwrap_or(0).max(revision);
                answered += 1;
            }
            ensure!(answered > 0, "no node answers any more");
            if compacted.elapsed() >= COMPACT_INTERVAL && revision > 1 {
                compacted = Instant::now();
                compact(&self.nodes[self.leader], revision - 1).await;
            }
        }
        Ok((began.elapsed(), start.into_iter().zip(memory).collect(), terms))
    }

    fn memory(&self) -> Result<Vec<u64>> {
        self.pids.iter().map(|pid| resident_bytes(*pid)).collect()
    }
}

/// May be refused as any other write: then the next one forgets more.
async fn compact(node: &Address, revision: u64) {
    let asking = async {
        let path = format!("/v1/compact?revision={revision}");
        let request = node.request(Method::POST, &path, Bytes::new())?;
        Link::open(node).await?.exchange(request).await
    };
    let _ = asking.await;
}
