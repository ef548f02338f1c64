//! `bellwether-bench`: how Bellwether compares with etcd, and what it bears.
//!
//! Five subcommands, from the bottom up:
//!
//! - `fsync` asks what the disk can do, which bounds every durable write ([`probe::fsync`]);
//! - `instructions` checks what callgrind counted of the hot parts ([`instructions`]);
//! - `overload` starts a cluster, puts ten times more writers on it than it serves, and fails
//!   when a bound is broken ([`overload`]);
//! - `soak` loads a healthy cluster for ten minutes, and fails when it elects anybody ([`soak`]);
//! - `compare` starts [`cluster`]s of both by turns, loads them with the same generator,
//!   stops their leaders, weighs their processes, and writes the page of ratios ([`compare`]).
//!
//! The generator is [`bellwether_load`], which `bellwether bench` is made of, too. Everything
//! runs on one thread: it shares its cores with the servers it measures.

mod chart;
mod cli;
mod compare;
mod instructions;
mod nodes;
mod number;
mod overload;
mod probe;
mod soak;

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
