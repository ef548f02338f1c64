//! Parses, calls, prints.

use anyhow::Result;
use bellwether_parity::cluster::Programs;
use bellwether_parity::diff::run::{self, Diff};
use bellwether_parity::tours::Tours;
use bellwether_parity::with_cluster::WithCluster;
use clap::{Parser, Subcommand};

/// Plays the same requests to Bellwether and to a real etcd, and shows where they differ.
#[derive(Debug, Parser)]
#[command(name = "bellwether-parity", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    programs: Programs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Random sequences of requests, every reply compared
    Diff(Diff),
    /// Tours with etcdctl, every output compared
    Tours(Tours),
    /// Run a program beside three nodes; it may ask for the leader to be killed
    WithCluster(WithCluster),
    /// Shows that the comparison finds nothing between etcd and etcd, and finds each fault
    /// that is put into one of them
    SelfTest {
        /// Sequences without a fault
        #[arg(long, default_value_t = 200)]
        sequences: u64,
    },
}

impl Cli {
    /// Whether all is as it should be.
    pub fn run(self) -> Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.command {
                Command::Diff(diff) => diff.run(&self.programs).await,
                Command::Tours(tours) => tours.run(&self.programs).await,
                Command::WithCluster(with) => with.run(&self.programs).await,
                Command::SelfTest { sequences } => run::self_test(&self.programs, sequences).await,
            }
        })
    }
}
