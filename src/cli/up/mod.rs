//! `bellwether up`: a local cluster of real `serve` processes.
//!
//! [`plan`] decides names, ports and directories, and keeps them so that a second `up`
//! goes on with the data. [`supervise`] is the one loop that owns the nodes' states; it
//! hears from [`child`] (one task a process), from [`watch`] (who leads), from
//! [`control`] (`bellwether node ...` in another terminal) and from signals. [`narrate`]
//! alone writes to the terminal.

mod child;
pub mod control;
mod narrate;
mod plan;
mod supervise;
mod watch;

use std::path::PathBuf;

use super::Failure;
use crate::types::ElectionPolicy;

/// Where `up` keeps its data, and `node` looks for it.
pub const DEFAULT_DIR: &str = "./bellwether-data/cluster";

#[derive(Debug, clap::Args)]
pub struct Up {
    /// How many nodes [default: 3, or as many as the directory was made for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(plan::MAX_NODES)))]
    nodes: Option<u16>,

    /// The first node's port; the others follow [default: 4001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Where the cluster's data is kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    data_dir: PathBuf,

    /// Who becomes leader when the old one is lost
    #[arg(long, value_enum, value_name = "POLICY")]
    election: Option<ElectionPolicy>,

    /// More flags for every node's `bellwether serve`
    #[arg(last = true, value_name = "SERVE FLAGS")]
    serve_flags: Vec<String>,
}

impl Up {
    pub fn run(self) -> Result<(), Failure> {
        let plan = plan::Plan::make(&self)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::error(format!("the runtime does not start: {error}")))?;
        let outcome = runtime.block_on(supervise::run(plan));
        runtime.shutdown_background();
        outcome
    }
}
