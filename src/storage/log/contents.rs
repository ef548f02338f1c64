//! What the log holds, without the bytes: the entries' positions, the vote and the
//! marks. The same transitions run when a change is handed over and when it is read
//! back, so that what a restart finds is what was there before.

use std::collections::VecDeque;
use std::io;

use super::format::{Checkpoint, Record};
use super::{EntryKind, Vote};
use crate::types::{LogId, LogIndex, Term};

/// One entry's place: a frame, counted from the log's opening, and a position in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub term: Term,
    pub frame: u64,
    pub at: u32,
    pub payload_bytes: u32,
    pub kind: EntryKind,
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// Always an entry that the log holds or once held, hence never beyond the last.
    committed: Option<LogId>,
    /// The entry right before the slots: the purged one, except while a log is read
    /// back whose oldest segments are gone already.
    floor: Option<LogId>,
    /// Index of the first slot; meaningless when there is none.
    first: LogIndex,
    /// Neighbours in index, ascending in term and in frame.
    slots: VecDeque<Slot>,
}

impl Contents {
    /// Where reading back starts when the first segment left begins with `checkpoint`.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { vote, purged, committed, last } = *checkpoint;
        Self { vote, purged, committed, floor: last, ..Self::default() }
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { vote: self.vote, purged: self.purged, committed: self.committed, last: self.last_id() }
    }

    pub fn vote(&self) -> Option<Vote> {
        self.vote
    }

    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub fn committed(&self) -> Option<LogId> {
        self.committed
    }

    pub fn last_id(&self) -> Option<LogId> {
        let slot = self.slots.back();
        slot.map(|slot| LogId { term: slot.term, index: self.end() - 1 }).or(self.floor)
    }

    /// Index of the first entry held.
    pub fn first(&self) -> LogIndex {
        self.first
    }

    /// One past the last entry held.
    pub fn end(&self) -> LogIndex {
        self.first + self.slots.len() as u64
    }

    pub fn slot(&self, index: LogIndex) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// The last entry that lies in a frame before `frame`.
    pub fn last_before_frame(&self, frame: u64) -> Option<LogId> {
        if self.slots.back().is_some_and(|slot| slot.frame < frame) {
            return self.last_id();
        }
        let count = self.slots.partition_point(|slot| slot.frame < frame);
        let Some(position) = count.checked_sub(1) else { return self.floor };
        Some(LogId { term: self.slots[position].term, index: self.first + position as u64 })
    }

    /// The oldest frame that an entry lies in.
    pub fn first_frame(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.frame)
    }

    pub fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    /// False, and nothing changes, when the log does not hold `committed`: an entry of
    /// another term in its place may not be committed at all.
    pub fn set_committed(&mut self, committed: Option<LogId>) -> bool {
        let held = committed.is_none_or(|id| match self.slot(id.index) {
            Some(slot) => slot.term == id.term,
            None => self.floor.is_some_and(|floor| id.index <= floor.index),
        });
        if held {
            self.committed = committed;
        }
        held
    }

    /// Fails unless the ids follow the last entry and one another. An empty log that
    /// nothing was purged from begins anywhere.
    pub fn check_run(&self, ids: impl Iterator<Item = LogId>) -> io::Result<()> {
        let mut last = self.last_id();
        for id in ids {
            if let Some(last) = last
                && (id.index != last.index + 1 || id.term < last.term)
            {
                return Err(invalid(format!("entry {id} does not follow {last}")));
            }
            last = Some(id);
        }
        Ok(())
    }

    /// The caller has checked that the entry comes next.
    pub fn push(&mut self, id: LogId, slot: Slot) {
        if self.slots.is_empty() {
            self.first = id.index;
        }
        self.slots.push_back(slot);
    }

    /// Forgets what is after `last`; fails below what was purged.
    pub fn truncate(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.or(self.purged);
        if last.map(|id| id.index) < self.purged.map(|id| id.index) {
            return Err(invalid(format!("truncating to {last:?} below the purged {:?}", self.purged)));
        }
        let end = last.map_or(0, |id| id.index + 1);
        self.slots.truncate(end.saturating_sub(self.first) as usize);
        if self.slots.is_empty() && end <= self.floor.map_or(0, |id| id.index) {
            self.floor = last;
        }
        self.committed = self.committed.min(self.last_id());
        Ok(())
    }

    pub fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| upto.index <= purged.index) {
            return;
        }
        self.purged = Some(upto);
        let gone = (upto.index + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        self.slots.drain(..gone as usize);
        self.first += gone;
        if self.floor.is_none_or(|floor| floor.index < upto.index) {
            self.floor = Some(upto);
        }
    }

    /// Replays what was read back from the given frame.
    pub fn replay(&mut self, record: Record, frame: u64) -> io::Result<()> {
        match record {
            Record::Entry { id, kind, at, payload_bytes } => {
                self.check_run(std::iter::once(id))?;
                self.push(id, Slot { term: id.term, frame, at, payload_bytes, kind });
            }
            Record::Vote(vote) => self.set_vote(vote),
            Record::Truncate(last) => self.truncate(last)?,
            Record::Purge(upto) => self.purge(upto),
            Record::Committed(committed) => {
                self.set_committed(committed);
            }
            Record::Checkpoint(checkpoint) if checkpoint.last != self.last_id() => {
                return Err(invalid(format!(
                    "the log should end at {:?} here and ends at {:?}",
                    checkpoint.last,
                    self.last_id()
                )));
            }
            Record::Checkpoint(_) => {}
        }
        Ok(())
    }

    /// The entries that are neither here nor purged, after everything was read back.
    pub fn missing(&self) -> Option<(LogIndex, LogIndex)> {
        let needed = self.purged.map_or(0, |id| id.index + 1);
        let floor = self.floor.filter(|floor| floor.index >= needed)?;
        Some((needed, floor.index))
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
