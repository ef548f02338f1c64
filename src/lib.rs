//! Bellwether: a replicated key-value store with leader election.
//!
//! Data flows one way: `cli → api → node → consensus → storage`. See ARCHITECTURE.md.

pub mod api;
pub mod cli;
pub mod config;
pub mod consensus;
pub mod env;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod metrics;
pub mod node;
pub mod proto;
pub mod serve;
pub mod server;
pub mod storage;
pub mod types;
