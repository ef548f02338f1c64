//! `bellwether-bench`: how fast, how costly, and how that compares with etcd.
//!
//! Five subcommands, from the bottom up:
//!
//! - `fsync` asks what the disk can do, which bounds every durable write ([`probe::fsync`]);
//! - `load` drives one running cluster, Bellwether or etcd, with closed-loop clients
//!   ([`load`]) through a [`target`];
//! - `fan-out` watches a prefix on one node while it writes there ([`fan_out`]);
//! - `overload` starts a cluster, puts ten times more writers on it than it serves, and fails
//!   when a bound is broken ([`overload`]);
//! - `compare` starts [`cluster`]s of both by turns, loads them with the same generator,
//!   kills their leaders, weighs their processes ([`probe::process`]), and writes the page of
//!   ratios ([`compare`]).
//!
//! Everything runs on one thread: the generator shares its cores with the servers it
//! measures, so it has to be small, and says itself what it cost.

mod cli;
mod compare;
mod fan_out;
mod load;
mod overload;
mod probe;
mod target;

use std::process::ExitCode;

use bellwether_bench::cluster;
use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
