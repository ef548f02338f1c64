//! What the server allows a client, each number with its reason.

use std::time::Duration;

use crate::config::Config;

/// For servers that are not configured; a node takes `MAX_CONNECTIONS` from its settings.
pub const MAX_CONNECTIONS: usize = 4096;
/// Connections beyond the cap that are still served, so that peers get through and
/// clients hear a 503 instead of silence. Beyond these, each newcomer takes the place of
/// the one that has been here longest without a peer speaking on it: of 1,000 strangers a
/// second each has an eighth of a second to show itself, far more than a peer needs.
pub const RESERVED_CONNECTIONS: usize = 128;
/// A client that connects means to speak; ten seconds cover lost packets.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// For one whole request head, from its first byte.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests on one connection; above the 60 s that proxies commonly keep
/// theirs, so that they close first and never send into a closing connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The same while the connection cap is passed: enough for clients that are busy, while
/// those that only stay make room for others.
pub const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// From a request's head to its reply's last byte. Above the longest wait a client may
/// ask for plus the time for a body: whatever lasts longer is a client that does not read.
pub const REQUEST_LIFE: Duration = Duration::from_secs(120);
/// How long a reply that may last for ever may lie unread. Whoever reads at all, however
/// slowly, reads something in this time; a client that is stopped comes back later.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// One request head. A key of 4 KiB is 12 KiB percent-encoded; the rest is for headers.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Header fields in one head.
pub const MAX_HEADERS: usize = 100;
/// How long a stopping server waits for the requests it has begun. Below the 10 s after
/// which container engines kill.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Unread bytes one HTTP/2 stream may have under way: one whole value.
pub const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Unread bytes one HTTP/2 connection may have under way: four whole values.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes in one HTTP/2 frame, which is read whole: a message of many writes from a leader is
/// one frame then, not one for each 16 KiB.
pub const H2_FRAME_BYTES: u32 = 256 << 10;
/// Requests at once on one HTTP/2 connection.
pub const H2_MAX_STREAMS: u32 = 256;
/// An HTTP/2 connection with nothing to say is pinged this often ...
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(10);
/// ... and closed when the answer takes longer than this.
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The limits one server runs with. The defaults are the constants above.
#[derive(Clone, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub reserved_connections: usize,
    pub first_byte_timeout: Duration,
    pub header_read_timeout: Duration,
    pub idle_timeout: Duration,
    pub crowded_idle_timeout: Duration,
    pub request_life: Duration,
    pub unread_timeout: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub drain_timeout: Duration,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            reserved_connections: RESERVED_CONNECTIONS,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            header_read_timeout: HEADER_READ_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            crowded_idle_timeout: CROWDED_IDLE_TIMEOUT,
            request_life: REQUEST_LIFE,
            unread_timeout: UNREAD_TIMEOUT,
            max_header_bytes: MAX_HEADER_BYTES,
            max_headers: MAX_HEADERS,
            drain_timeout: DRAIN_TIMEOUT,
            ping_interval: H2_PING_INTERVAL,
            ping_timeout: H2_PING_TIMEOUT,
        }
    }
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self { max_connections: config.max_connections, ..Self::default() }
    }
}

impl Limits {
    /// How often a connection's deadlines are looked at: a deadline strikes at most
    /// this much late, and an idle connection costs one wake-up in this time. In a crowd
    /// the shorter idle time is looked at no more often.
    pub fn check_interval(&self) -> Duration {
        let shortest = self.first_byte_timeout.min(self.header_read_timeout);
        shortest.min(self.idle_timeout).min(self.request_life).min(self.unread_timeout) / 2
    }
}
