//! From what people wrote to what the node can rely on. Every check names the setting
//! and says the mend; all problems are reported at once, so that nobody mends one only
//! to meet the next.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, Settings};
use crate::types::MemberName;

/// Where data goes when nobody says: beside the caller, where it is found again.
const DEFAULT_DATA_ROOT: &str = "./bellwether-data";

/// A day: anything longer is a mistake in the unit.
const MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// More threads than any machine has cores is a typing error.
const WORKER_THREADS: RangeInclusive<u64> = 1..=1024;
/// Below, rotation would cost more than writing; above, purging would free too little too late.
const LOG_SEGMENT_BYTES: RangeInclusive<u64> = 64 * 1024..=4 * 1024 * 1024 * 1024;
/// More often, comparing would be most of what an idle node does.
const MIN_HASH_CHECK_INTERVAL_MS: u64 = 50;
/// A second at least, since that is how often it is looked at; a year at most.
const HISTORY_AGE_MS: RangeInclusive<u64> = 1000..=366 * 24 * 3600 * 1000;
const REPLICATION_DELAY_MS: RangeInclusive<u64> = 0..=60_000;
/// A server needs a few connections for its peers before it can serve anybody.
const MAX_CONNECTIONS: RangeInclusive<u64> = 16..=1_000_000;
const MAX_INFLIGHT: RangeInclusive<u64> = 1..=1_000_000;

/// Everything that is wrong with the settings, each with its mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} settings are wrong:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Collects problems while the values go on being checked.
#[derive(Default)]
struct Check(Vec<String>);

impl Check {
    fn value<T>(&mut self, setting: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.0.push(format!("{setting}: {why}"))).ok()
    }

    fn range(&mut self, setting: &str, value: u64, allowed: RangeInclusive<u64>) {
        if !allowed.contains(&value) {
            let (low, high) = (allowed.start(), allowed.end());
            self.0.push(format!("{setting}: {value} is out of range; choose {low} to {high}"));
        }
    }
}

impl Settings {
    /// The configuration these settings make, or everything that is wrong with them.
    pub fn validate(&self) -> Result<Config, Problems> {
        let mut check = Check::default();
        let name = check.value("NODE_ID", node_name(&self.node_id));
        let listen = check.value("LISTEN", listen_address(&self.listen));
        let peers = check.value("PEERS", peer_urls(&self.peers));
        let advertise = self.advertise_url.as_deref().filter(|url| !url.is_empty());
        let advertise_url = check.value("ADVERTISE_URL", advertise.map(parse_node_url).transpose());
        check.value("LOG_LEVEL", log_filter(&self.log.log_level));
        self.check_times(&mut check);
        self.check_sizes(&mut check);
        match (name, listen, peers, advertise_url) {
            (Some(name), Some(listen), Some(peers), Some(advertise_url)) if check.0.is_empty() => {
                Ok(self.config(name, listen, peers, advertise_url))
            }
            _ => Err(Problems(check.0)),
        }
    }

    fn check_times(&self, check: &mut Check) {
        check.range("HEARTBEAT_MS", self.heartbeat_ms, 1..=MAX_MS);
        check.range("ELECTION_TIMEOUT_MS", self.election_timeout_ms, 1..=MAX_MS);
        check.range("REQUEST_TIMEOUT_MS", self.request_timeout_ms, 1..=MAX_MS);
        if self.hash_check_interval_ms != 0 {
            let allowed = MIN_HASH_CHECK_INTERVAL_MS..=MAX_MS;
            check.range("HASH_CHECK_INTERVAL_MS", self.hash_check_interval_ms, allowed);
        }
        if self.history_age_ms != 0 {
            check.range("HISTORY_AGE_MS", self.history_age_ms, HISTORY_AGE_MS);
        }
        if self.heartbeat_ms > self.election_timeout_ms / 2 {
            let (heartbeat, timeout) = (self.heartbeat_ms, self.election_timeout_ms);
            check.0.push(format!(
                "HEARTBEAT_MS: {heartbeat} is not well below ELECTION_TIMEOUT_MS ({timeout}), so nodes would \
                 campaign after one lost heartbeat; make it a quarter of the timeout or less"
            ));
        }
    }

    fn check_sizes(&self, check: &mut Check) {
        check.range("WORKER_THREADS", self.worker_threads as u64, WORKER_THREADS);
        check.range("LOG_SEGMENT_BYTES", self.log_segment_bytes, LOG_SEGMENT_BYTES);
        check.range("SNAPSHOT_EVERY_ENTRIES", self.snapshot_every_entries, 1..=u64::MAX);
        check.range("MAX_INFLIGHT_REQUESTS", self.max_inflight_requests as u64, MAX_INFLIGHT);
        check.range("REPLICATION_DELAY_MS", self.replication_delay_ms, REPLICATION_DELAY_MS);
        check.range("MAX_CONNECTIONS", self.max_connections as u64, MAX_CONNECTIONS);
    }

    fn config(
        &self,
        name: MemberName,
        listen: String,
        peers: Vec<String>,
        advertise_url: Option<String>,
    ) -> Config {
        Config {
            data_dir: self.data_dir(&name),
            name,
            listen,
            port: self.port,
            peers,
            advertise_url,
            election: self.election,
            ack: self.ack,
            heartbeat: Duration::from_millis(self.heartbeat_ms),
            election_timeout: Duration::from_millis(self.election_timeout_ms),
            early_election: self.early_election,
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            worker_threads: self.worker_threads,
            log_segment_bytes: self.log_segment_bytes,
            log_keep_entries: self.log_keep_entries,
            log_max_bytes: self.log_max_bytes,
            snapshot_every_entries: self.snapshot_every_entries,
            read_cache_bytes: self.read_cache_bytes,
            max_inflight_requests: self.max_inflight_requests,
            max_connections: self.max_connections,
            min_free_bytes: self.min_free_bytes,
            hash_check_interval: Duration::from_millis(self.hash_check_interval_ms),
            history_age: Duration::from_millis(self.history_age_ms),
            history_revisions: self.history_revisions,
            replication_delay: Duration::from_millis(self.replication_delay_ms),
            lab: self.lab,
        }
    }

    fn data_dir(&self, name: &MemberName) -> PathBuf {
        match &self.data_dir {
            Some(dir) if !dir.as_os_str().is_empty() => dir.clone(),
            _ => Path::new(DEFAULT_DATA_ROOT).join(name.as_str()),
        }
    }
}

fn node_name(text: &str) -> Result<MemberName, String> {
    // The name becomes a directory: `..` would put the data somewhere else.
    if !text.is_empty() && text.chars().all(|c| c == '.') {
        return Err(format!("{text:?} is no node name: use letters and digits too, such as node-1"));
    }
    MemberName::parse(text)
}

fn listen_address(text: &str) -> Result<String, String> {
    let mend = "write an IP address: 0.0.0.0 for every interface, 127.0.0.1 for this machine only";
    text.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| format!("{text:?} is none; {mend}"))
}

fn peer_urls(text: &str) -> Result<Vec<String>, String> {
    let mut peers: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let url = parse_node_url(part)?;
        if peers.contains(&url) {
            return Err(format!("{url} is listed twice; list every other node once"));
        }
        peers.push(url);
    }
    Ok(peers)
}

/// A node's URL as `http://host:port`, or why it is none and how to write it.
pub fn parse_node_url(text: &str) -> Result<String, String> {
    let shape = "write it as http://host:port, such as http://node-2:4000";
    let url = url::Url::parse(text).map_err(|_| format!("{text:?} is no URL; {shape}"))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(format!("{text:?}: https is not supported yet; use http://")),
        _ => return Err(format!("{text:?} is no http URL; {shape}")),
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| format!("{text:?} names no host; {shape}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{text:?} carries a user name; {shape}"));
    }
    let port = url.port_or_known_default().unwrap_or_default();
    if port == 0 {
        return Err(format!("{text:?} has port 0, which nobody can connect to; {shape}"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has something behind host and port; write http://{host}:{port}"));
    }
    Ok(format!("http://{host}:{port}"))
}

/// A bare word must be a level: the filter's grammar would take `inof` for a module
/// name and silence everything else.
fn log_filter(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let mend = "use error, warn, info, debug or trace, or directives such as info,bellwether::node=debug";
    for part in text.split(',').map(str::trim) {
        if !part.contains('=') && !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(format!("{part:?} is no level; {mend}"));
        }
    }
    tracing_subscriber::EnvFilter::builder()
        .parse(text)
        .map(|_| ())
        .map_err(|error| format!("{text:?} is no filter ({error}); {mend}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(args: &[&str]) -> Settings {
        let args = std::iter::once("serve").chain(args.iter().copied());
        Serve::try_parse_from(args).expect("clap takes it").settings
    }

    fn problem(args: &[&str]) -> String {
        settings(args).validate().expect_err("must be refused").to_string()
    }

    #[test]
    fn defaults_are_valid_and_a_cluster_of_one() {
        let config = settings(&[]).validate().expect("valid");
        assert_eq!(config.name.as_str(), "node-1");
        assert_eq!(config.port, 4000);
        assert!(config.peers.is_empty());
        assert_eq!(config.data_dir, Path::new("./bellwether-data/node-1"));
        assert!(config.max_connections >= 5000, "5,000 idle clients must fit");
    }

    #[test]
    fn peers_are_read_as_the_chapter_writes_them() {
        let config =
            settings(&["--peers", "http://node-2:4000, http://node-3:4000/,"]).validate().expect("valid");
        assert_eq!(config.peers, ["http://node-2:4000", "http://node-3:4000"]);
        let config = settings(&["--peers", "http://[::1]:4002,http://Host_1"]).validate().expect("valid");
        assert_eq!(config.peers, ["http://[::1]:4002", "http://host_1:80"]);
    }

    #[test]
    fn every_bad_setting_is_refused_with_its_name_and_the_mend() {
        for (args, name, mend) in [
            (["--node-id", ""], "NODE_ID", "such as node-1"),
            (["--node-id", ".."], "NODE_ID", "such as node-1"),
            (["--node-id", "a/b"], "NODE_ID", "such as node-1"),
            (["--listen", "localhost"], "LISTEN", "127.0.0.1"),
            (["--peers", "node-2:4000"], "PEERS", "http://host:port"),
            (["--peers", "10.0.0.1:4000"], "PEERS", "http://host:port"),
            (["--peers", "ftp://node-2:4000"], "PEERS", "http://host:port"),
            (["--peers", "https://node-2:4000"], "PEERS", "not supported yet"),
            (["--peers", "http://node-2:4000/x"], "PEERS", "write http://node-2:4000"),
            (["--peers", "http://node-2:4000?x"], "PEERS", "write http://node-2:4000"),
            (["--peers", "http://me@node-2:4000"], "PEERS", "user name"),
            (["--peers", "http://node-2:0"], "PEERS", "port 0"),
            (["--peers", "http://node-2:99999"], "PEERS", "http://host:port"),
            (["--peers", "http://a:1,http://A:1/"], "PEERS", "once"),
            (["--advertise-url", "node-1"], "ADVERTISE_URL", "http://host:port"),
            (["--heartbeat-ms", "400"], "HEARTBEAT_MS", "a quarter"),
            (["--heartbeat-ms", "201"], "HEARTBEAT_MS", "a quarter"),
            (["--heartbeat-ms", "0"], "HEARTBEAT_MS", "choose 1"),
            (["--election-timeout-ms", "99999999999"], "ELECTION_TIMEOUT_MS", "choose"),
            (["--request-timeout-ms", "0"], "REQUEST_TIMEOUT_MS", "choose"),
            (["--worker-threads", "0"], "WORKER_THREADS", "choose"),
            (["--log-segment-bytes", "1"], "LOG_SEGMENT_BYTES", "choose"),
            (["--snapshot-every-entries", "0"], "SNAPSHOT_EVERY_ENTRIES", "choose"),
            (["--max-inflight-requests", "0"], "MAX_INFLIGHT_REQUESTS", "choose"),
            (["--max-connections", "1"], "MAX_CONNECTIONS", "choose"),
            (["--log-level", "inof"], "LOG_LEVEL", "debug"),
            (["--log-level", "info,a=loud"], "LOG_LEVEL", "debug"),
        ] {
            let problem = problem(&args);
            assert!(problem.starts_with(name) && problem.contains(mend), "{args:?}: {problem}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problem = problem(&["--node-id", "", "--peers", "x", "--heartbeat-ms", "300"]);
        assert!(problem.starts_with("3 settings are wrong"), "{problem}");
    }

    #[test]
    fn edges_that_are_fine() {
        settings(&["--port", "0"]).validate().expect("any free port");
        settings(&["--heartbeat-ms", "175"]).validate().expect("just half");
        settings(&["--advertise-url", ""]).validate().expect("empty means none");
        settings(&["--log-level", "warn,bellwether::node=trace"]).validate().expect("directives");
    }
}
