//! Our log under openraft's storage trait. Translation only: what is durable when is
//! `storage::log`'s business.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::mpsc;

use crate::env::planted::{Bug, is_planted};
use crate::storage::log::Log;
use crate::types::LogId;

use super::types::{
    PersistedSlot, RaftEntry, RaftLogId, RaftVote, TypeConfig, from_log_entry, from_raft_id, from_raft_vote,
    to_log_entry, to_raft_id, to_raft_vote,
};

/// Payload bytes in one message to a follower at most. Well below the 4 MiB that gRPC
/// receivers accept, and small enough that a heartbeat does not wait long behind it.
const MAX_REPLICATION_BYTES: usize = 1024 * 1024;

#[derive(Clone)]
pub struct LogStore {
    log: Log,
    appended: mpsc::UnboundedSender<Appended>,
}

impl LogStore {
    /// Needs a runtime: whom an append wakes is woken on it.
    pub fn new(log: Log) -> Self {
        let (appended, mut done) = mpsc::unbounded_channel::<Appended>();
        tokio::spawn(async move {
            while let Some(append) = done.recv().await {
                append.tell();
            }
        });
        Self { log, appended }
    }
}

/// An append that is on disk, or has failed. Waking a task from the log's own thread is a
/// system call; so this wakes one, and that one all the others.
struct Appended {
    result: io::Result<()>,
    persisted: Vec<(PersistedSlot, LogId)>,
    flushed: IOFlushed<TypeConfig>,
}

impl Appended {
    fn tell(self) {
        if self.result.is_ok() {
            self.persisted.into_iter().for_each(|(slot, at)| slot.fire(at));
        }
        self.flushed.io_completed(self.result);
    }
}

/// Half-open bounds of any range.
fn bounds(range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<RaftEntry>> {
        let entries = self.log.read(bounds(&range), usize::MAX)?;
        entries.into_iter().map(from_log_entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.log.vote().map(to_raft_vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let entries = self.log.read(start..end, MAX_REPLICATION_BYTES)?;
        // Purged since it was asked for. Later entries alone would be sent as if they
        // followed directly; with none it sends a heartbeat, and looks again.
        if entries.first().is_some_and(|first| first.id.index != start) {
            return Ok(Vec::new());
        }
        entries.into_iter().map(from_log_entry).collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState {
            last_purged_log_id: self.log.last_purged().map(to_raft_id),
            last_log_id: self.log.last_id().map(to_raft_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        if is_planted(Bug::VoteNotSaved) {
            return Ok(());
        }
        self.log.save_vote(from_raft_vote(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.log.save_committed(committed.map(from_raft_id))
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.log.committed().map(to_raft_id))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut persisted: Vec<(PersistedSlot, LogId)> = Vec::new();
        let mut translated = Vec::new();
        for mut entry in entries {
            if let EntryPayload::Normal(batch) = &mut entry.payload
                && let Some(slot) = batch.persisted.take()
            {
                persisted.push((slot, from_raft_id(entry.log_id)));
            }
            translated.push(to_log_entry(&entry));
        }
        let appended = self.appended.clone();
        let done = move |result| {
            let append = Appended { result, persisted, flushed };
            // The runtime is going down, but somebody may still wait.
            if let Err(unsent) = appended.send(append) {
                unsent.0.tell();
            }
        };
        self.log.append(translated, Box::new(done))
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        if is_planted(Bug::TailNotTruncated) {
            return Ok(());
        }
        self.log.truncate_after(last.map(from_raft_id)).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.log.purge(from_raft_id(upto)).await
    }
}
