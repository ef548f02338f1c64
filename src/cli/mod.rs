//! The command line: one file a subcommand, and what they share.
//!
//! `main` parses a [`Cli`] and calls [`Cli::run`]; a subcommand does its work and
//! returns a [`Failure`], which knows its exit code. `serve` hands over to
//! `crate::serve`; `get`, `put`, `del` and `status` speak HTTP through
//! `bellwether_client`; `up` runs `serve` as child processes and `node` talks to a
//! running `up`; `bench` is `bellwether_load`. Nothing here decides anything about replication.

mod bench;
mod del;
pub mod docs;
mod endpoints;
mod failure;
mod get;
mod logging;
mod node;
mod put;
mod serve;
mod status;
mod up;

use clap::{Parser, Subcommand};

pub use failure::{Exit, Failure};

const EXAMPLE: &str = "\
Example:
  bellwether up                      start three nodes here
  bellwether put name '\"Alice\"'      store a JSON value, in another terminal
  bellwether get name                read it from any node
  bellwether node kill node-1        kill one node and watch the others
  bellwether status                  who leads now
  bellwether bench put               how fast it is

Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 precondition failed, 5 no leader,
6 timeout or outcome unknown, 7 authentication, 130 interrupted";

/// A replicated key-value store with leader election: one binary, JSON over HTTP, Raft
/// underneath.
#[derive(Debug, Parser)]
#[command(name = "bellwether", version, after_help = EXAMPLE, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local cluster and show what its nodes say
    Up(up::Up),
    /// Kill, stop, start, restart, pause or resume a node of a running `up`
    Node(node::Node),
    /// Print the value of a key
    Get(get::Get),
    /// Store a value under a key
    Put(put::Put),
    /// Remove a key
    Del(del::Del),
    /// Show every node's role, term and readiness
    Status(status::Status),
    /// Put a load on a running cluster and show what it took
    Bench(bench::Bench),
    /// Run one node
    Serve(serve::Serve),
    /// Print docs/configuration.md
    #[command(hide = true)]
    Docs,
}

impl Cli {
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Up(up) => up.run(),
            Command::Node(node) => node.run(),
            Command::Get(get) => get.run(),
            Command::Put(put) => put.run(),
            Command::Del(del) => del.run(),
            Command::Status(status) => status.run(),
            Command::Bench(bench) => bench.run(),
            Command::Serve(serve) => serve.run(),
            Command::Docs => {
                anstream::print!("{}", docs::configuration());
                Ok(())
            }
        }
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
    fn help_shows_commands_and_an_example() {
        let help = Cli::command().render_help().to_string();
        for word in ["up", "serve", "get", "put", "del", "status", "node", "bench", "Example:"] {
            assert!(help.contains(word), "{word} is missing in:\n{help}");
        }
        assert!(!help.contains("configuration.md"), "hidden commands stay hidden");
    }

    #[test]
    fn usage_errors_exit_with_2() {
        let error = Cli::try_parse_from(["bellwether", "put", "key"]).expect_err("no value");
        assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8));
    }
}
