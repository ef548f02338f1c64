//! The settings as people write them: each a flag and an environment variable. The doc
//! comments are the help texts and the lines of `docs/configuration.md`.

use std::path::PathBuf;

use super::LogFormat;
use crate::types::{Ack, ElectionPolicy};

/// Bytes in a mebibyte, the unit of the defaults below.
const MIB: u64 = 1024 * 1024;
/// Large enough that rotation is rare, small enough that purging gives space back soon.
const LOG_SEGMENT_BYTES: u64 = 64 * MIB;
/// A hundred thousand small values, so that all of what most clusters hold has room.
const READ_CACHE_BYTES: u64 = 64 * MIB;
/// Far above what the default number of entries takes with small values.
const LOG_MAX_BYTES: u64 = 1024 * MIB;
/// Room to shrink: past this, purging the log and the state need a little disk to work in.
const MIN_FREE_BYTES: u64 = 64 * MIB;
/// Damage is rare and a comparison reads the whole table, at a tenth of a core: a few
/// minutes keep it far below what is noticed, and damage from being served for long.
const HASH_CHECK_INTERVAL_MS: u64 = 5 * 60 * 1000;
/// Long enough for whoever watches to come back after an outage and miss nothing.
const HISTORY_AGE_MS: u64 = 60 * 60 * 1000;
/// About 100 MB of memory and 2 GB of disk with small values.
const HISTORY_REVISIONS: u64 = 5_000_000;

#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// This node's name, unique in the cluster: letters, digits, '-', '_' and '.'
    #[arg(long, env = "NODE_ID", value_name = "NAME", default_value = "node-1")]
    pub node_id: String,

    /// The port for clients, peers, health and metrics; 0 takes any free one
    #[arg(long, env, value_name = "PORT", default_value_t = 4000)]
    pub port: u16,

    /// The other nodes' URLs, comma separated, such as http://node-2:4000; empty for a
    /// cluster of one
    #[arg(long, env, value_name = "URLS", default_value = "")]
    pub peers: String,

    /// Where this node keeps its data [default: ./bellwether-data/<NODE_ID>]
    #[arg(long, env = "DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// The IP address to listen on
    #[arg(long, env, value_name = "IP", default_value = "0.0.0.0")]
    pub listen: String,

    /// How other nodes and clients reach this one; by default the URL by which the peers
    /// list it
    #[arg(long, env = "ADVERTISE_URL", value_name = "URL")]
    pub advertise_url: Option<String>,

    /// Who becomes leader when the old one is lost
    #[arg(long, env, value_enum, value_name = "POLICY", default_value_t)]
    pub election: ElectionPolicy,

    /// When a write is answered, unless the request says otherwise
    #[arg(long, env, value_enum, value_name = "WHEN", default_value_t)]
    pub ack: Ack,

    /// How often the leader reminds the others that it lives; the same on every node
    #[arg(long, env = "HEARTBEAT_MS", value_name = "MS", default_value_t = 50)]
    pub heartbeat_ms: u64,

    /// A leader that is silent for so long is lost; each node then waits a random 30 to
    /// 100 percent of it again before it campaigns. The same on every node
    #[arg(long, env = "ELECTION_TIMEOUT_MS", value_name = "MS", default_value_t = 350)]
    pub election_timeout_ms: u64,

    /// Elect at once when the leader's process has ended, as a closed port shows; with false
    /// only its silence counts
    #[arg(long, env = "EARLY_ELECTION", value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = true)]
    pub early_election: bool,

    /// How long a request may wait, unless it says otherwise
    #[arg(long, env = "REQUEST_TIMEOUT_MS", value_name = "MS", default_value_t = 5000)]
    pub request_timeout_ms: u64,

    /// Threads that serve requests; 1 runs everything on one thread, which is the fastest
    /// on small machines
    #[arg(long, env = "WORKER_THREADS", value_name = "N", default_value_t = 1)]
    pub worker_threads: usize,

    /// The size at which a new log file is begun
    #[arg(long, env = "LOG_SEGMENT_BYTES", value_name = "BYTES", default_value_t = LOG_SEGMENT_BYTES)]
    pub log_segment_bytes: u64,

    /// Log entries kept for followers that lag; one further behind gets a snapshot
    #[arg(long, env = "LOG_KEEP_ENTRIES", value_name = "N", default_value_t = 10_000)]
    pub log_keep_entries: u64,

    /// The log's size on disk above which it is trimmed, however few its entries are
    #[arg(long, env = "LOG_MAX_BYTES", value_name = "BYTES", default_value_t = LOG_MAX_BYTES)]
    pub log_max_bytes: u64,

    /// Log entries after which the state is flushed and the log before it may be purged
    #[arg(long, env = "SNAPSHOT_EVERY_ENTRIES", value_name = "N", default_value_t = 20_000)]
    pub snapshot_every_entries: u64,

    /// Memory for values that were read lately; a node that serves no reads takes none of it
    #[arg(long, env = "READ_CACHE_BYTES", value_name = "BYTES", default_value_t = READ_CACHE_BYTES)]
    pub read_cache_bytes: u64,

    /// Requests worked on at once; more are answered 429 at once
    #[arg(long, env = "MAX_INFLIGHT_REQUESTS", value_name = "N", default_value_t = 4096)]
    pub max_inflight_requests: usize,

    /// Connections open at once, idle ones included; more are answered 503 and closed
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "N", default_value_t = 8192)]
    pub max_connections: usize,

    /// With less free disk than this, writes that grow the data are refused
    #[arg(long, env = "MIN_FREE_BYTES", value_name = "BYTES", default_value_t = MIN_FREE_BYTES)]
    pub min_free_bytes: u64,

    /// How often the nodes compare what they hold; one that differs raises the alarm and
    /// stops serving. 0 turns it off; the leader's setting decides how often
    #[arg(long, env = "HASH_CHECK_INTERVAL_MS", value_name = "MS", default_value_t = HASH_CHECK_INTERVAL_MS)]
    pub hash_check_interval_ms: u64,

    /// How long old versions of keys can be read and watched; then they are compacted. 0
    /// keeps them whatever their age; the leader's setting counts
    #[arg(long, env = "HISTORY_AGE_MS", value_name = "MS", default_value_t = HISTORY_AGE_MS)]
    pub history_age_ms: u64,

    /// How many of the last revisions are kept whatever else is written; an eighth more may
    /// be, whatever their age. 0: as many as the age allows; the leader's setting counts
    #[arg(long, env = "HISTORY_REVISIONS", value_name = "N", default_value_t = HISTORY_REVISIONS)]
    pub history_revisions: u64,

    /// Replication to each follower takes so much longer (exercise 2). With --lab it can be
    /// changed while the node runs
    #[arg(long, env = "REPLICATION_DELAY_MS", value_name = "MS", default_value_t = 0)]
    pub replication_delay_ms: u64,

    /// Let anybody who reaches this node spoil its network and fail its disk, through
    /// /v1/lab/network and /v1/lab/disk: for classes and tests, never for data that matters
    #[arg(long, env = "LAB", value_parser = clap::builder::BoolishValueParser::new())]
    pub lab: bool,

    #[command(flatten)]
    pub log: LogSettings,
}

/// How the process talks about what it does. Not part of [`super::Config`]: a node
/// doesn't know who listens.
#[derive(Clone, Debug, clap::Args)]
pub struct LogSettings {
    /// The form of the log, which goes to standard error
    #[arg(long, env = "LOG_FORMAT", value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// How much is logged: error, warn, info, debug or trace, or filter directives such as
    /// info,bellwether::consensus=debug
    #[arg(long, env = "LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// Begin human lines with the time (JSON lines always carry it)
    #[arg(long, env = "LOG_TIME", value_parser = clap::builder::BoolishValueParser::new())]
    pub log_time: bool,
}
