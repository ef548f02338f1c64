//! `bellwether node kill node-1` and its kin: asks the `up` that runs in a directory.

use std::path::PathBuf;

use super::Failure;
use super::up::DEFAULT_DIR;
use super::up::control::{self, Action, Request};

#[derive(Debug, clap::Args)]
pub struct Node {
    /// What to do: kill (-9), stop (drains first), start, restart, pause (freezes), resume
    #[arg(value_enum)]
    action: Action,

    /// The node, such as node-1
    name: String,

    /// The directory that `up` was given
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    data_dir: PathBuf,
}

impl Node {
    pub fn run(self) -> Result<(), Failure> {
        let done = control::ask(&self.data_dir, &Request { action: self.action, node: self.name })?;
        anstream::println!("{done}");
        Ok(())
    }
}
