//! Every setting of a server, typed, each default beside its field, validated once.
//!
//! [`Settings`] is what people write, as flags or environment variables; clap reads it.
//! [`Settings::validate`] turns it into a [`Config`], in which everything is known to
//! be usable, or says what to mend. The rest of the crate sees only [`Config`].
//! `docs/configuration.md` is written from [`Settings`] (see `cli::docs`).

mod settings;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

use crate::types::{Ack, ElectionPolicy, MemberName};

pub use settings::{LogSettings, Settings};
pub use validate::{Problems, parse_node_url};

/// How the server writes its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line that reads as narration: `[node-1] Became LEADER for term 1`
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// A validated configuration: everything a node needs to know about itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// `NODE_ID`
    pub name: MemberName,
    /// `LISTEN`: the IP address to listen on.
    pub listen: String,
    /// `PORT`
    pub port: u16,
    /// `PEERS`: `http://host:port` of the other nodes, without a trailing slash.
    pub peers: Vec<String>,
    /// `DATA_DIR`
    pub data_dir: PathBuf,
    /// `ADVERTISE_URL`: how others reach this node, when their own `PEERS` do not say.
    pub advertise_url: Option<String>,
    /// `ELECTION`
    pub election: ElectionPolicy,
    /// `ACK`: when a write is answered, unless the request says otherwise.
    pub ack: Ack,
    /// `HEARTBEAT_MS`
    pub heartbeat: Duration,
    /// `ELECTION_TIMEOUT_MS`: the silence after which a leader is lost, and the longest
    /// random wait before a campaign after that.
    pub election_timeout: Duration,
    pub early_election: bool,
    /// `REQUEST_TIMEOUT_MS`: how long a request may wait unless it says otherwise.
    pub request_timeout: Duration,
    /// `WORKER_THREADS`: threads that serve requests; 1 runs everything on one thread.
    pub worker_threads: usize,
    /// `LOG_SEGMENT_BYTES`
    pub log_segment_bytes: u64,
    /// `LOG_KEEP_ENTRIES`: entries kept behind the last flush for followers that lag.
    pub log_keep_entries: u64,
    /// `LOG_MAX_BYTES`: the log's size on disk above which it is trimmed, however few its
    /// entries are. Three segments at least: the open one and the spare always stay.
    pub log_max_bytes: u64,
    /// `SNAPSHOT_EVERY_ENTRIES`: how often the log is allowed to be purged.
    pub snapshot_every_entries: u64,
    /// `READ_CACHE_BYTES`: for values that were read lately.
    pub read_cache_bytes: u64,
    /// `MAX_INFLIGHT_REQUESTS`, `MAX_CONNECTIONS`
    pub max_inflight_requests: usize,
    pub max_connections: usize,
    /// `MIN_FREE_BYTES`: below this much free disk the leader refuses growth.
    pub min_free_bytes: u64,
    /// `HASH_CHECK_INTERVAL_MS`: how often the nodes compare their states; zero: never.
    pub hash_check_interval: Duration,
    /// `HISTORY_AGE_MS`, `HISTORY_REVISIONS`: what compaction leaves; zero: no bound.
    pub history_age: Duration,
    pub history_revisions: u64,
    /// `REPLICATION_DELAY_MS`: how much longer replication to each follower takes.
    pub replication_delay: Duration,
    /// `LAB`: the network may be spoilt through the API.
    pub lab: bool,
}
