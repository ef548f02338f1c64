//! Our log under openraft's storage trait. Translation only: what is durable when is
//! `storage::log`'s business.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::runtime::Handle;
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

/// A leader's own append of so much, at most, may be written where requests are served: at
/// a few clients. With more the next requests are read meanwhile.
const SMALL_APPEND_BYTES: usize = 4096;

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
        let mut followed = false;
        let mut bytes = 0;
        for mut entry in entries {
            if let EntryPayload::Normal(batch) = &mut entry.payload {
                let slot = batch.persisted.take();
                followed |= !batch.own;
                bytes += batch.encoded.len();
                persisted.extend(slot.map(|slot| (slot, from_raft_id(entry.log_id))));
            }
            translated.push(to_log_entry(&entry));
        }
        let appended = self.appended.clone();
        let done = move |result| {
            let append = Appended { result, persisted, flushed };
            if Handle::try_current().is_ok() {
                // Written here, while the engine looks on: it need not be woken.
                return append.tell();
            }
            // The runtime is going down, but somebody may still wait.
            if let Err(unsent) = appended.send(append) {
                unsent.0.tell();
            }
        };
        if followed {
            // Nothing else is left to do for this write here, and the leader waits for it.
            return self.log.append_here(translated, Box::new(done));
        }
        if bytes <= SMALL_APPEND_BYTES {
            // There is little to do meanwhile; the followers should hear of it before.
            return self.log.append_soon(translated, Box::new(done));
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::env::Workers;
    use crate::env::fake_disk::FakeDisk;
    use crate::storage::log::{Entry, EntryKind, LogOptions};

    const PURGED_UPTO: u64 = 4;
    const END: u64 = 10;

    fn id(index: u64) -> LogId {
        LogId { term: 1, index }
    }

    /// A log of `END` entries whose first are purged.
    async fn purged_log() -> Log {
        let workers = Workers::Tasks { delay: || Duration::ZERO };
        let options = LogOptions { segment_bytes: 64 * 1024, cache_bytes: 1024, reserve_bytes: 0 };
        let log = Log::open(Arc::new(FakeDisk::default()), &workers, options, Arc::default()).expect("a log");
        let entry = |index| Entry { id: id(index), kind: EntryKind::Blank, payload: Bytes::new() };
        log.append((0..END).map(entry).collect(), Box::new(drop)).expect("an append");
        log.flush().await.expect("a flush");
        log.purge(id(PURGED_UPTO)).await.expect("a purge");
        log
    }

    /// What the reader gives for entries from `start` on.
    async fn sent_from(start: u64) -> Vec<u64> {
        let entries = LogStore::new(purged_log().await).limited_get_log_entries(start, END).await;
        entries.expect("a sound log").iter().map(|entry| entry.log_id.index).collect()
    }

    #[tokio::test]
    async fn entries_after_purged_ones_are_not_sent_as_if_they_followed_directly() {
        let held: Vec<u64> = (PURGED_UPTO + 1..END).collect();
        for purged in 0..=PURGED_UPTO {
            assert_eq!(sent_from(purged).await, [0; 0], "from {purged} on");
            // The log itself gives what it has.
            let read = purged_log().await.read(purged..END, usize::MAX).expect("a sound log");
            assert_eq!(read.iter().map(|entry| entry.id.index).collect::<Vec<_>>(), held);
        }
        assert_eq!(sent_from(PURGED_UPTO + 1).await, held);
        assert_eq!(sent_from(END).await, [0; 0]);
    }
}
