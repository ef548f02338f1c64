//! Watching: every change of some keys, from some revision on, in order, each once.
//!
//! How a change reaches its watchers:
//!
//! 1. The [`feed`] follows what is applied, and reads each change from the store once.
//! 2. [`subject`] finds the groups of watchers that want to see the change's key; the
//!    change is encoded once ([`event`]) and put into each such [`group`].
//! 3. The [`state`] puts the watchers of the group into the queues of their streams.
//! 4. A [`WatchStream`] takes from its queue when its client is ready to read, as much as
//!    goes into one response.
//!
//! Nothing is queued for a watcher: it is a place in history. The events that somebody has
//! not taken yet are kept once for all ([`window`]), within one limit for the node. Who is
//! further behind than that reads pages from the store, until its place is within the
//! window again. So a client that reads slowly holds back nobody, and costs the same memory
//! as one that reads fast. What a node bears is in [`limits`].
//!
//! When another member's snapshot replaced the store, or compaction overtook the feed, all
//! watchers are sent to the store; whoever asks there for what is gone is cancelled. Nothing
//! is ever skipped.
//!
//! Left to others: the messages (`api/etcd/watch.rs`), who may speak here.

mod event;
mod feed;
mod group;
pub mod limits;
mod state;
mod stream;
mod subject;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::storage::mvcc::Store;
use crate::types::{Consistency, Revision};

use self::limits::{Limits, RETRY_AFTER};
use self::state::State;
use super::Node;

pub use self::stream::WatchStream;
pub use self::subject::Subject;

impl Node {
    /// A stream of watches on this member's store, once that may be read.
    pub async fn watch(&self, timeout: Duration) -> Result<WatchStream> {
        if self.shared.is_draining() {
            return Err(Error::stopping());
        }
        self.read_barrier(Consistency::Local, None, timeout).await?;
        let refused =
            |why: RefusedWatch| Error::Overloaded { why: why.to_string(), retry_after: RETRY_AFTER };
        self.shared.watching.open().map_err(refused)
    }
}

/// One watch, as it is asked for.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    /// `None`: the hub chooses.
    pub id: Option<i64>,
    pub subject: Subject,
    /// `None`: from the next revision on.
    pub start: Option<Revision>,
    /// Tell the revision now and then while nothing happens.
    pub progress: bool,
}

/// What a watcher, or all of a stream, are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Whole revisions, in order, as encoded events; the watcher has everything up to
    /// `revision` now.
    Events { id: i64, events: Vec<Bytes>, revision: Revision },
    /// The watcher, or (`None`) every watcher of the stream, has everything up to here.
    Progress { id: Option<i64>, revision: Revision },
    /// The watch is over: it began before `oldest`, which is what can be watched now.
    Compacted { id: i64, oldest: Revision },
}

/// Why a stream ends by this node's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The node stops: another one goes on from the same revision.
    Stopping,
    /// Its state is known to differ from the others'.
    Unsound,
}

/// Why there is no such watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedWatch {
    #[error("the id is in use")]
    DuplicateId,
    #[error("this member serves {0} watch streams, as many as it may")]
    TooManyStreams(usize),
    #[error("a stream may have {0} watches")]
    TooManyOnStream(usize),
    #[error("this member serves {0} watches, as many as it may")]
    TooMany(usize),
    #[error("the keys of all watches on this member have {0} bytes, as many as they may")]
    TooManyKeyBytes(usize),
}

/// All watching on one node; clones share it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    limits: Limits,
    state: Mutex<State>,
}

impl Hub {
    pub fn new(store: Store, metrics: Arc<Metrics>, limits: Limits) -> Self {
        let state = Mutex::new(State::new(limits.clone(), metrics, store.revision()));
        Self { inner: Arc::new(Inner { store, limits, state }) }
    }

    /// A stream that watches nothing yet.
    pub fn open(&self) -> std::result::Result<WatchStream, RefusedWatch> {
        WatchStream::open(self.clone())
    }

    /// Ends all streams, and those that come.
    pub fn end(&self, why: Ended) {
        self.inner.state.lock().end(why);
    }
}
