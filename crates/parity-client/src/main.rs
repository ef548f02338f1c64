//! Drives a cluster of three with the `etcd-client` crate while its leader is killed.
//!
//! `bellwether-parity with-cluster` starts this with `ENDPOINTS` set, and does what is
//! asked for on standard output: "kill the leader" kills it with SIGKILL and answers with a
//! line, "start it again" brings that node back.
//!
//! Everything that a client holds is taken before the leader dies (keys, a watch, a lease,
//! a lock, an election) and must be there afterwards. While a new leader is elected, calls
//! may fail; [`retry`] repeats those that may be repeated.

mod after;
mod before;

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep, timeout};

/// Past this a cluster that lost its leader is not coming back.
const PATIENCE: Duration = Duration::from_secs(30);
/// A call that its node took to the grave is repeated after this.
const CALL: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than everything takes: only leases that survive are still there.
pub const TTL_SECONDS: i64 = 120;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let endpoints = std::env::var("ENDPOINTS").context("ENDPOINTS is not set")?;
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let client = Client::connect(&endpoints, Some(ConnectOptions::new().with_timeout(CALL))).await?;
    // A stream or a wait for a lock has no deadline, and is with one node.
    let patient = Client::connect(&endpoints, None).await?;

    let held = before::take(&client, &patient).await?;
    ask("kill the leader").await?;
    after::check(&client, &patient, held).await?;
    ask("start it again").await?;
    after::everything_is_writable(&client).await?;
    passed("the leader came back");
    Ok(())
}

pub fn passed(what: &str) {
    println!("ok      {what}, with the Rust client");
}

/// Says what the harness is to do, and waits until it is done.
async fn ask(what: &str) -> Result<()> {
    println!("{what}");
    let mut answer = String::new();
    let read = BufReader::new(tokio::io::stdin()).read_line(&mut answer).await?;
    anyhow::ensure!(read > 0, "nobody did it: {what}");
    Ok(())
}

/// Calls until it succeeds: only for what may be done twice.
pub async fn retry<T, E, F>(what: &str, mut call: impl FnMut() -> F) -> Result<T>
where
    E: Into<anyhow::Error>,
    F: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        let error = match timeout(CALL, call()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow::anyhow!("no answer"),
        };
        if Instant::now() > end {
            return Err(error).with_context(|| what.to_owned());
        }
        sleep(PAUSE).await;
    }
}
