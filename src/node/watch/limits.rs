//! What watching may cost a node, each number with its reason.

use std::time::Duration;

use crate::storage::mvcc::PageLimit;

/// Streams at once. Each is a stream of HTTP/2 with buffers of its own: some 10 KiB.
pub const MAX_STREAMS: usize = 10_000;
/// Watches on one stream. A client shares one stream among all its watches.
pub const MAX_WATCHES_PER_STREAM: usize = 20_000;
/// Watches on this node: below a kilobyte each, with a short key.
pub const MAX_WATCHES: usize = 100_000;
/// Bytes in the keys and range ends of all watches together.
pub const MAX_KEY_BYTES: usize = 64 << 20;
/// Encoded events kept for watchers that have not taken them yet, in bytes, for all
/// together: some seconds of writes. Who is further behind reads from the store.
pub const WINDOW_BYTES: usize = 16 << 20;
/// Entries of the queue by which the window forgets; each is a piece of one group's events.
pub const WINDOW_PIECES: usize = 1 << 16;
/// Events of several revisions go into one response up to so many bytes. A revision is
/// never cut for it.
pub const RESPONSE_BYTES: usize = 64 << 10;
/// Bookmarks that a stream may wait for. A request for more is dropped, as in etcd: who
/// wants to know asks again.
pub const MAX_BOOKMARKS: usize = 16;
/// What the hub reads of the store at once: one lock of a millisecond or so.
pub const FEED_PAGE: PageLimit = PageLimit { rows: 1_000, bytes: 4 << 20 };
/// What is read for a slow watcher at once, before others have their turn.
pub const CATCH_UP_PAGE: PageLimit = PageLimit { rows: 500, bytes: 256 << 10 };
/// How often a watch that wants to know hears the revision while nothing happens: etcd's.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// A stream that wants a leader ends when this member has known none for so many
/// election timeouts, as in etcd.
pub const LEADERLESS_ELECTIONS: u32 = 3;
/// Who finds no room for a stream should try another member first.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The limits a hub runs with. The defaults are the constants above.
#[derive(Clone, Debug)]
pub struct Limits {
    pub streams: usize,
    pub watches_per_stream: usize,
    pub watches: usize,
    pub key_bytes: usize,
    pub window_bytes: usize,
    pub window_pieces: usize,
    pub response_bytes: usize,
    pub feed_page: PageLimit,
    pub catch_up_page: PageLimit,
    pub progress_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: MAX_STREAMS,
            watches_per_stream: MAX_WATCHES_PER_STREAM,
            watches: MAX_WATCHES,
            key_bytes: MAX_KEY_BYTES,
            window_bytes: WINDOW_BYTES,
            window_pieces: WINDOW_PIECES,
            response_bytes: RESPONSE_BYTES,
            feed_page: FEED_PAGE,
            catch_up_page: CATCH_UP_PAGE,
            progress_interval: PROGRESS_INTERVAL,
        }
    }
}
