//! What `get`, `put`, `del` and `status` share: where the cluster is, how long to wait,
//! and running one call that Ctrl-C can interrupt.

use std::future::Future;
use std::time::Duration;

use bellwether_client::{Ack as ClientAck, Client, Condition, WriteOptions};

use super::{Exit, Failure};
use crate::types::Ack;

/// The ports of `bellwether up` and of the chapter's cluster, then a single node's.
const DEFAULT_ENDPOINTS: &str =
    "http://127.0.0.1:4001,http://127.0.0.1:4002,http://127.0.0.1:4003,http://127.0.0.1:4000";

#[derive(Debug, clap::Args)]
pub struct Endpoints {
    /// URLs of nodes, comma separated; any of them will do
    #[arg(long, env = "BELLWETHER_ENDPOINT", value_name = "URLS", default_value = DEFAULT_ENDPOINTS)]
    pub endpoint: String,
}

impl Endpoints {
    pub fn client(&self) -> Result<Client, Failure> {
        let urls = self.endpoint.split(',').map(str::trim).filter(|url| !url.is_empty());
        Ok(Client::new(urls)?)
    }
}

/// What `put` and `del` have in common.
#[derive(Debug, clap::Args)]
pub struct WriteArgs {
    /// Only if the key was last changed at this revision (as `get --json` shows it)
    #[arg(long, value_name = "REVISION")]
    pub if_match: Option<u64>,

    /// When the write counts as done: on the leader's disk, a majority's, or everybody's
    /// [default: the server's]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub ack: Option<Ack>,

    /// How long to wait, such as 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,

    /// Print the reply as JSON
    #[arg(long)]
    pub json: bool,
}

impl WriteArgs {
    pub fn options(&self) -> WriteOptions {
        WriteOptions {
            condition: self.if_match.map_or(Condition::Always, Condition::IfMatch),
            ack: self.ack.map(|ack| match ack {
                Ack::Leader => ClientAck::Leader,
                Ack::Quorum => ClientAck::Quorum,
                Ack::All => ClientAck::All,
            }),
            timeout: self.timeout,
        }
    }
}

/// Whether a Ctrl-C may have left something behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
}

/// Runs one call to its end, or to Ctrl-C.
pub fn run<T>(call: Call, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::error(format!("the runtime does not start: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err(interrupted(call)),
        }
    });
    // Name resolution runs on a thread that can't be stopped; don't wait for it.
    runtime.shutdown_background();
    outcome
}

fn interrupted(call: Call) -> Failure {
    let failure = Failure::new(Exit::Interrupted, "interrupted");
    match call {
        Call::Read => failure,
        Call::Write => failure.hint("the write may or may not have been applied"),
    }
}

/// A number with a unit: `500ms`, `5s`, `1m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mend = || format!("{text:?} is no time span; write 500ms, 5s or 1m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(mend)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| mend())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(mend()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| (1..=MAX_WAIT_MS).contains(ms)).ok_or_else(mend)?;
    Ok(Duration::from_millis(ms))
}

/// An hour: nobody waits longer for one reply.
const MAX_WAIT_MS: u64 = 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "1h", "0s", "99999999999999999999s", "1.5s", "61m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_endpoints_are_valid() {
        let endpoints = Endpoints { endpoint: DEFAULT_ENDPOINTS.to_owned() };
        assert_eq!(endpoints.client().expect("valid").endpoints().len(), 4);
    }

    #[test]
    fn a_bad_endpoint_is_a_usage_error() {
        for bad in ["localhost:4001", "", "http://a:1/x"] {
            let failure = Endpoints { endpoint: bad.to_owned() }.client().map(|_| ()).expect_err(bad);
            assert_eq!(failure.exit(), Exit::Usage);
        }
    }
}
