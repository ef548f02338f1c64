//! The command line: parses, calls, prints.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::probe::fsync;

const EXAMPLE: &str = "\
Example:
  bellwether-bench compare --quick --dir target/bench/data \\
      --bellwether target/release/bellwether --etcd ETCD
To load a cluster that runs already: bellwether bench";

/// Comparison of Bellwether with etcd, and what a cluster does under overload.
#[derive(Debug, Parser)]
#[command(name = "bellwether-bench", version, after_help = EXAMPLE, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the small durable writes that a disk takes a second
    Fsync(FsyncArgs),
    /// Check the ratios between instruction counts, which bench/instructions takes
    Instructions(crate::instructions::Instructions),
    /// Put more writers on a cluster than it serves, and see that it bears them
    Overload(crate::overload::Overload),
    /// Load a healthy cluster for minutes, and see that it elects nobody
    Soak(crate::soak::Soak),
    /// Start clusters of Bellwether and etcd by turns, measure both, write the page
    Compare(crate::compare::Compare),
}

impl Cli {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self.command {
            Command::Fsync(args) => args.run(),
            Command::Instructions(instructions) => instructions.run(),
            Command::Overload(overload) => runtime.block_on(overload.run()),
            Command::Soak(soak) => runtime.block_on(soak.run()),
            Command::Compare(compare) => runtime.block_on(compare.run()),
        }
    }
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
}
