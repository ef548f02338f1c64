//! The command line: parses, calls, prints.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::load::{self, Load, Outcome, Workload};
use crate::probe::fsync;
use crate::target::Target;
use crate::target::etcd::EtcdTarget;
use crate::target::http::{Body, HttpTarget};

const EXAMPLE: &str = "\
Example:
  bellwether up
  bellwether-bench load --http http://localhost:4001,http://localhost:4002,http://localhost:4003 \\
      --workload put --clients 64 --seconds 10";

/// Load generator for Bellwether, and its comparison with etcd.
#[derive(Debug, Parser)]
#[command(name = "bellwether-bench", version, after_help = EXAMPLE, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a running cluster and show what it took
    Load(LoadArgs),
    /// Measure the small durable writes that a disk takes a second
    Fsync(FsyncArgs),
    /// Count the events that reach the watchers of one node while it is written to
    FanOut(crate::fan_out::FanOut),
    /// Put more writers on a cluster than it serves, and see that it bears them
    Overload(crate::overload::Overload),
    /// Start clusters of Bellwether and etcd by turns, measure both, write the page
    Compare(crate::compare::Compare),
}

impl Cli {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self.command {
            Command::Load(args) => runtime.block_on(args.run()),
            Command::Fsync(args) => args.run(),
            Command::FanOut(fan_out) => runtime.block_on(fan_out.run()),
            Command::Overload(overload) => runtime.block_on(overload.run()),
            Command::Compare(compare) => runtime.block_on(compare.run()),
        }
    }
}

#[derive(Debug, clap::Args)]
struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,

    #[arg(long, value_enum, default_value = "put")]
    workload: Workload,

    /// Clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,

    /// How long to measure
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,

    /// How long to run before measuring
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,

    /// Keys are drawn evenly from this many
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,

    /// Write every key once before the warm-up
    #[arg(long)]
    fill: bool,

    /// Bytes in a value, its JSON quotes among them
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,

    /// Process ids of the servers, to account their processor time
    #[arg(long, value_delimiter = ',', value_name = "PIDS")]
    pids: Vec<u32>,

    /// Draws the same keys again
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct TargetArgs {
    /// Bellwether's nodes, such as http://localhost:4001,http://localhost:4002
    #[arg(long, value_delimiter = ',', value_name = "URLS", conflicts_with = "etcd")]
    http: Vec<String>,

    /// etcd's members, such as http://localhost:2379
    #[arg(long, value_delimiter = ',', value_name = "ENDPOINTS")]
    etcd: Vec<String>,

    /// With --http: how values are sent
    #[arg(long, value_enum, default_value_t, conflicts_with = "etcd")]
    body: Body,

    /// Connections (HTTP/2) that all clients share [default: one each]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
}

impl LoadArgs {
    async fn run(self) -> Result<()> {
        ensure!(self.seconds > 0.0 && self.warmup >= 0.0, "--seconds and --warmup are times to come");
        let outcome = if self.target.etcd.is_empty() {
            let TargetArgs { http, body, connections, .. } = &self.target;
            self.measure(&HttpTarget::new(http, *body, *connections)?).await?
        } else {
            self.measure(&EtcdTarget::new(&self.target.etcd, self.target.connections)?).await?
        };
        if self.json {
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            print!("{}", table(&outcome));
        }
        Ok(())
    }

    async fn measure<T: Target>(&self, target: &T) -> Result<Outcome> {
        let load = Load {
            workload: self.workload,
            clients: usize::from(self.clients),
            keys: self.keys,
            value_bytes: self.value_bytes,
            warmup: Duration::from_secs_f64(self.warmup),
            window: Duration::from_secs_f64(self.seconds),
            seed: self.seed,
        };
        if self.fill {
            load::fill(target, load.keys, load.value_bytes, load.clients).await?;
        }
        load::run(target, &load, &self.pids, "load").await
    }
}

fn table(outcome: &Outcome) -> String {
    let Outcome { latency_us: latency, .. } = outcome;
    let servers = outcome.server_cpu_per_1000.map_or("unknown (--pids)".to_owned(), |s| format!("{s:.4} s"));
    let mut lines = vec![
        ("operations/s", format!("{:.0}", outcome.per_second)),
        ("operations", format!("{} in {:.2} s", outcome.operations, outcome.seconds)),
        ("errors", outcome.errors.to_string()),
        ("reads without a key", outcome.missing.to_string()),
        ("latency p50", format!("{} us", latency.p50)),
        ("latency p90", format!("{} us", latency.p90)),
        ("latency p99", format!("{} us", latency.p99)),
        ("latency p99.9", format!("{} us", latency.p999)),
        ("latency max", format!("{} us", latency.max)),
        ("servers' CPU per 1,000", servers),
        ("own CPU per 1,000", format!("{:.4} s", outcome.client_cpu_per_1000)),
    ];
    lines.extend(outcome.first_error.iter().map(|error| ("first error", error.clone())));
    lines.iter().map(|(name, value)| format!("{name:24}{value}\n")).collect()
}

#[derive(Debug, clap::Args)]
struct FsyncArgs {
    /// A directory on the disk in question
    #[arg(long, default_value = ".")]
    dir: PathBuf,

    /// Files written at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    writers: u16,

    #[arg(long, default_value_t = 3.0)]
    seconds: f64,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl FsyncArgs {
    fn run(self) -> Result<()> {
        let found = fsync::probe(&self.dir, self.writers.into(), Duration::from_secs_f64(self.seconds))?;
        if self.json {
            println!("{}", serde_json::to_string(&found)?);
        } else {
            println!("{:.0} fdatasync/s, p50 {} us, p99 {} us", found.per_second, found.p50_us, found.p99_us);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_load_needs_one_target() {
        let parses = |args: &[&str]| Cli::try_parse_from(["x", "load"].iter().chain(args)).is_ok();
        assert!(parses(&["--http", "http://a:1,http://b:1"]));
        assert!(parses(&["--etcd", "http://a:1", "--connections", "3"]));
        assert!(!parses(&[]));
        assert!(!parses(&["--http", "http://a:1", "--etcd", "http://a:1"]));
        assert!(parses(&["--http", "http://a:1", "--connections", "3"]));
    }
}
