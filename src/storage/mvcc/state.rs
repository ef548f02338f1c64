//! What readers, apply and the worker share.
//!
//! Index, tail and view change together, under one lock, so that a reader who took the
//! lock once has one state: what the index names is in the tail or in that view.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::checkpoint::Checkpoint;
use super::hash::Marks;
use super::index::{KeyIndex, Latest};
use super::leases::Leases;
use super::row::{RowId, RowRef};
use super::table::View;
use super::tail::{LeaseState, Tail};
use super::types::{AppliedState, KeyValue, ReadError};
use crate::env::Disk;
use crate::metrics::Metrics;
use crate::types::{LogId, LogIndex, Revision};

pub(super) struct State {
    pub index: KeyIndex,
    pub leases: Leases,
    pub tail: Tail,
    /// The table as of the last flush; the tail follows it without a gap.
    pub view: Arc<View>,
    pub applied: AppliedState,
    pub revision: Revision,
    pub compacted: Revision,
    /// Whether anybody waits for the replies of the entry that is being applied. Reads that
    /// only fill replies are left out otherwise; what changes never depends on it.
    pub answering: bool,
    /// How many rows were read when this was loaded.
    pub rows_read: u64,
}

impl State {
    /// The state that the table holds, by way of the checkpoint if that helps.
    pub fn open(view: Arc<View>, checkpoint: io::Result<Option<Checkpoint>>) -> io::Result<Self> {
        let followed = checkpoint.and_then(|checkpoint| checkpoint.map(|it| it.follow(&view)).transpose());
        match followed {
            Ok(Some(state)) => return Ok(state),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the checkpoint of the index is no use; reading the whole table")
            }
        }
        Self::load(view)
    }

    /// The state that the table holds. Reads every row, for the index.
    pub fn load(view: Arc<View>) -> io::Result<Self> {
        let leases = Leases::load(view.meta.lease_clock_ms, view.all_leases()?);
        Self::continued(view, KeyIndex::default(), leases, 0)
    }

    /// The state that the table holds, from what is known of its rows up to `upto`. Reads the
    /// rows after it.
    pub fn continued(
        view: Arc<View>,
        mut index: KeyIndex,
        mut leases: Leases,
        upto: Revision,
    ) -> io::Result<Self> {
        let mut rows_read = 0;
        let start = RowId::first_of(upto.saturating_add(1));
        for entry in view.rows_between(start, RowId::last_of(Revision::MAX))? {
            let (id, encoded) = entry.map_err(super::table::redb_error)?;
            let row = RowRef::decode(encoded.value())?;
            index.record(row.key, Latest::of(RowId::from_key(id.value()), &row));
            leases.attach(row.key, row.lease);
            rows_read += 1;
        }
        Ok(Self {
            index,
            leases,
            rows_read,
            tail: Tail::default(),
            applied: view.meta.applied(),
            revision: view.meta.revision,
            compacted: view.meta.compacted,
            answering: false,
            view,
        })
    }

    /// Refuses revisions that cannot be read.
    pub fn check_readable(&self, at: Option<Revision>) -> Result<(), ReadError> {
        match at {
            Some(at) if at > self.revision => Err(ReadError::Future { current: self.revision }),
            Some(at) if at < self.compacted => Err(ReadError::Compacted { oldest: self.compacted }),
            _ => Ok(()),
        }
    }

    /// Reads a row that the index names.
    pub fn key_value(&self, id: RowId) -> io::Result<KeyValue> {
        match self.tail.get(id) {
            Some(row) => Ok(row.to_key_value(id)),
            None => self.view.key_value(id),
        }
    }

    /// Starts a log entry: entries come in order, each once.
    pub fn begin_entry(&mut self, at: LogId) -> io::Result<()> {
        match self.applied.last {
            Some(last) if at.index <= last.index => {
                Err(io::Error::other(format!("entry {at} comes to apply after entry {last}")))
            }
            _ => {
                self.applied.last = Some(at);
                Ok(())
            }
        }
    }

    /// Ends the log entry that [`State::begin_entry`] started.
    pub fn end_entry(&mut self) {
        let leases = LeaseState { clock_ms: self.leases.clock_ms(), changes: self.leases.take_changes() };
        self.tail.end_entry(self.applied.clone(), self.revision, self.compacted, leases);
    }
}

pub(super) struct Shared {
    pub state: RwLock<State>,
    pub disk: Arc<dyn Disk>,
    pub metrics: Arc<Metrics>,
    /// The first error that this store cannot live with. Once set, nothing is applied or
    /// flushed any more: a table that missed one write must not see the next.
    failed: OnceLock<(io::ErrorKind, String)>,
    /// One more than the log's durable index; 0 when nothing is durable.
    log_durable_end: AtomicU64,
    /// Wakes the timer that triggers the worker; `scheduled` says that it was.
    pub wake: Notify,
    pub scheduled: AtomicBool,
    /// A flush was asked for before its time, because the tail is long.
    pub early: AtomicBool,
    /// A checkpoint is in the making.
    pub checkpointing: AtomicBool,
    pub marks: Marks,
}

impl Shared {
    pub fn new(state: State, disk: Arc<dyn Disk>, metrics: Arc<Metrics>) -> Self {
        Self {
            state: RwLock::new(state),
            disk,
            metrics,
            failed: OnceLock::new(),
            log_durable_end: AtomicU64::new(0),
            wake: Notify::new(),
            scheduled: AtomicBool::new(false),
            early: AtomicBool::new(false),
            checkpointing: AtomicBool::new(false),
            marks: Marks::default(),
        }
    }

    pub fn check(&self) -> io::Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
        }
    }

    /// Remembers a fatal error and hands it back. Only the first one counts.
    pub fn fail(&self, error: io::Error) -> io::Error {
        if self.failed.set((error.kind(), format!("the store failed: {error}"))).is_ok() {
            tracing::error!(%error, "the store failed and takes no more entries");
        }
        self.check().err().unwrap_or(error)
    }

    pub fn set_log_durable(&self, index: LogIndex) {
        self.log_durable_end.store(index.saturating_add(1), Ordering::Release);
    }

    /// The last log index that the table may hold.
    pub fn log_durable(&self) -> Option<LogIndex> {
        self.log_durable_end.load(Ordering::Acquire).checked_sub(1)
    }

    /// Sees to it that the worker runs soon.
    pub fn schedule(&self) {
        if !self.scheduled.load(Ordering::Acquire) && !self.scheduled.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }
}
