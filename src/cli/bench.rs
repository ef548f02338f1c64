//! `bellwether bench`: puts a load on a running cluster and shows what it took.

use std::time::Duration;

use bellwether_load::report::{self, Format};
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::http::{Body, HttpTarget, NO_LEASES};
use bellwether_load::target::{Freshness, Route, Target};
use bellwether_load::{Distribution, Extent, Load, Outcome, Pace, Workload, watch};

use super::endpoints::{self, Call};
use super::{Exit, Failure};

/// The nodes of `bellwether up`: a load goes to all that are named.
const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:4001,http://127.0.0.1:4002,http://127.0.0.1:4003";
/// As many keys as our HTTP API gives in one reply.
const MOST_KEYS_IN_A_RANGE: i64 = 10_000;

const EXAMPLE: &str = "\
Example:
  bellwether bench put --clients 256 --duration 30s
  bellwether bench get --local --rate 5000 --keys 1000000 --distribution zipf
  bellwether bench watch --watchers 100 --etcd http://localhost:4001
  bellwether bench txn --fill --count 100000 --output json

Latencies of a closed loop (without --rate) are what a client waited that asked again only
when it was answered; with --rate they count from the time at which a request was due. The
keys it writes are k000000000 and so on, and stay.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Bench {
    /// What to do
    #[arg(value_enum, default_value = "put")]
    workload: Workload,

    #[command(flatten)]
    target: TargetArgs,

    /// Clients, each with one request under way; of watch, those that write
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,

    /// Requests a second, all clients together [default: each client's next when it has the last]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// How long to measure, such as 500ms or 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = endpoints::duration)]
    duration: Duration,

    /// Measure so many requests instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// How long to run before measuring
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = endpoints::duration)]
    warmup: Duration,

    /// How long to wait for an answer; what comes later, or never, counts as an error
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = endpoints::duration)]
    timeout: Duration,

    /// Keys to choose from
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..1_000_000_000))]
    keys: u64,

    /// Which of them come how often
    #[arg(long, value_enum, default_value_t)]
    distribution: Distribution,

    /// Write every key once before
    #[arg(long)]
    fill: bool,

    /// Bytes in a value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    value_size: u32,

    /// Keys in one range
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=MOST_KEYS_IN_A_RANGE))]
    range_size: u32,

    /// Watchers, each with a stream of its own
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    watchers: u16,

    /// Reads that show what the asked node has, perhaps old, instead of linearizable ones
    #[arg(long)]
    local: bool,

    /// Process ids of servers on this machine, to account what they spend
    #[arg(long, value_delimiter = ',', value_name = "PIDS")]
    pids: Vec<u32>,

    /// Draws the same keys again
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// URLs of all nodes, comma separated
    #[arg(long, visible_alias = "endpoint", env = "BELLWETHER_ENDPOINT", value_name = "URLS", default_value = DEFAULT_ENDPOINTS)]
    endpoints: String,

    /// Speak etcd's protocol to these nodes instead, of Bellwether or of etcd
    #[arg(long, value_name = "ENDPOINTS")]
    etcd: Option<String>,

    /// Connections (HTTP/2) that all clients share [default: one each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,

    /// Without --etcd: how values are sent
    #[arg(long, value_enum, default_value_t, conflicts_with = "etcd")]
    body: Body,
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        self.check()?;
        let outcome = endpoints::run(Call::Read, self.measure())?;
        let text = report::show(&outcome, self.output).map_err(Failure::error)?;
        anstream::print!("{text}");
        match outcome.first_error {
            Some(error) if outcome.operations == 0 => {
                Err(Failure::error(format!("no request succeeded; the first error: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// What neither clap nor a server would say as clearly.
    fn check(&self) -> Result<(), Failure> {
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(Failure::usage("--rate must be more than 0 requests a second"));
        }
        let reads = matches!(self.workload, Workload::Get | Workload::Mixed | Workload::Range);
        if self.local && !reads {
            return Err(Failure::usage("--local is for reads; leave it out, or choose get, mixed or range"));
        }
        let over_http = self.target.etcd.is_none();
        match self.workload {
            Workload::Watch if over_http => Err(Failure::usage(
                "the HTTP API has no watches; name the same nodes with --etcd, they speak etcd's protocol, too",
            )),
            Workload::Lease if over_http => Err(Failure::usage(NO_LEASES)),
            Workload::Lease if self.fill => Err(Failure::usage("leases have no keys; leave --fill out")),
            _ => Ok(()),
        }
    }

    async fn measure(&self) -> Result<Outcome, Failure> {
        let connections = self.target.connections.map(usize::from);
        let load = self.load();
        match &self.target.etcd {
            Some(urls) => {
                let target = EtcdTarget::new(&list(urls), connections).map_err(Failure::usage)?;
                self.prepare(&target).await?;
                match self.workload {
                    Workload::Watch => ended(watch::run(&target, &load, &self.pids, "watch").await),
                    _ => self.put_on(&target, &load).await,
                }
            }
            None => {
                let urls = list(&self.target.endpoints);
                let target = HttpTarget::new(&urls, self.target.body, connections).map_err(Failure::usage)?;
                self.prepare(&target).await?;
                self.put_on(&target, &load).await
            }
        }
    }

    /// Sees who leads, so that a cluster without a leader has its own exit code, and fills.
    async fn prepare<T: Target>(&self, target: &T) -> Result<(), Failure> {
        let for_the_leader = self.fill || matches!(self.workload.route(), Route::Leader);
        // A single node that is named is meant.
        if for_the_leader && target.nodes() > 1 {
            let leader = target.leader().await;
            leader.map_err(|error| Failure::new(Exit::NoLeader, format!("{error:#}")))?;
        }
        if self.fill {
            let (keys, bytes, clients) = (self.keys, self.value_size as usize, self.clients.into());
            ended(bellwether_load::fill(target, keys, bytes, clients).await)?;
        }
        Ok(())
    }

    async fn put_on<T: Target>(&self, target: &T, load: &Load) -> Result<Outcome, Failure> {
        let title = format!("{:?}, {} clients", self.workload, self.clients);
        ended(bellwether_load::run(target, load, &self.pids, &title).await)
    }

    fn load(&self) -> Load {
        Load {
            workload: self.workload,
            clients: self.clients.into(),
            keys: self.keys,
            distribution: self.distribution,
            freshness: if self.local { Freshness::Local } else { Freshness::Linearizable },
            value_bytes: self.value_size as usize,
            range_size: self.range_size,
            watchers: self.watchers.into(),
            pace: self.rate.map_or(Pace::Closed, Pace::Open),
            warmup: self.warmup,
            extent: self.count.map_or(Extent::Time(self.duration), Extent::Requests),
            timeout: self.timeout,
            seed: self.seed,
        }
    }
}

/// etcdctl lets the scheme be left out; so do we.
fn list(urls: &str) -> Vec<String> {
    let urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
    urls.map(|url| if url.contains("://") { url.to_owned() } else { format!("http://{url}") }).collect()
}

fn ended<T>(outcome: anyhow::Result<T>) -> Result<T, Failure> {
    outcome.map_err(|error| Failure::error(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    /// How the check of these arguments ends: with no message when it passes.
    fn refusal(arguments: &str) -> String {
        let line = Line::try_parse_from(["bench"].into_iter().chain(arguments.split_whitespace()));
        match line.map(|line| line.bench.check()) {
            Ok(Ok(())) => String::new(),
            Ok(Err(failure)) => {
                assert_eq!(failure.exit(), Exit::Usage);
                format!("{failure:?}")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_possible_is_accepted() {
        for fine in [
            "",
            "put --endpoints http://a:1,http://b:1 --body bytes",
            "get --local --rate 0.5 --distribution zipf",
            "range --local --range-size 10000 --etcd a:2379",
            "txn --count 7 --output csv --connections 3 --timeout 500ms",
            "watch --watchers 5 --etcd http://a:1",
            "lease --etcd a:1 --pids 1,2",
        ] {
            assert_eq!(refusal(fine), "", "{fine}");
        }
    }

    #[test]
    fn what_is_not_is_refused_with_the_mend() {
        for (arguments, mend) in [
            ("watch", "--etcd"),
            ("lease", "--etcd"),
            ("lease --fill --etcd a:1", "leave --fill out"),
            ("put --local", "leave it out"),
            ("put --rate 0", "more than 0"),
            ("put --rate NaN", "more than 0"),
            ("put --clients 0", "1.."),
            ("put --count 5 --duration 1s", "cannot be used with"),
            ("put --body bytes --etcd a:1", "cannot be used with"),
            ("range --range-size 10001", "1..=10000"),
            ("put --duration 5", "write 500ms, 5s or 1m"),
            ("put --timeout 0s", "write 500ms, 5s or 1m"),
            ("read", "possible values"),
        ] {
            let told = refusal(arguments);
            assert!(told.contains(mend), "{arguments}: {told}");
        }
    }

    #[test]
    fn endpoints_may_leave_the_scheme_out() {
        assert_eq!(list("a:1, http://b:2,"), ["http://a:1", "http://b:2"]);
    }
}
