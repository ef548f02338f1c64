//! What the callers and the flush worker share, behind one lock held briefly.
//!
//! Callers encode into the open batch and go; the worker takes the whole batch as one
//! frame. So the bytes of an entry are copied once, and everything that was handed
//! over while a sync ran becomes the next frame: group commit.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::cache::Cache;
use super::contents::{Contents, Slot};
use super::format::{self, Checkpoint};
use super::segment::Segment;
use super::{Entry, Flushed, Vote};
use crate::types::{LogId, LogIndex};

/// A batch that has reached this is closed and the next one opened: it bounds the
/// buffers that are kept, and the size of one write when the disk falls behind.
const FULL_BATCH_BYTES: usize = 8 << 20;

/// A larger buffer is not kept for the next batch.
const MAX_RECYCLED_BYTES: usize = 4 << 20;

/// Payload of one append at most: a frame's length is a `u32`, with room to spare.
const MAX_APPEND_BYTES: usize = 1 << 30;

/// One frame to be.
pub(super) struct Batch {
    /// Set with the first record.
    pub frame: Option<u64>,
    /// Room for the header, then records.
    pub buffer: Vec<u8>,
    pub waiters: Vec<Flushed>,
    /// What the log holds once this batch is in it.
    pub after: Checkpoint,
    pub entries: u64,
    /// The highest index among them.
    pub top: Option<LogIndex>,
}

pub(super) enum Work {
    Batch(Batch),
    /// The committed mark alone, for nothing came along that would carry it.
    Committed(Option<LogId>),
    Nothing,
}

/// Where a durable frame lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u64,
}

/// Places by frame number, of the durable frames that may still hold entries.
#[derive(Debug, Default)]
pub(super) struct Frames {
    first: u64,
    places: VecDeque<Place>,
}

impl Frames {
    /// The number that the next durable frame has.
    pub fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    pub fn push(&mut self, place: Place) {
        self.places.push_back(place);
    }

    pub fn get(&self, frame: u64) -> Option<Place> {
        self.places.get(frame.checked_sub(self.first)? as usize).copied()
    }

    fn forget_before(&mut self, frame: u64) {
        let gone = frame.min(self.end()).saturating_sub(self.first);
        self.places.drain(..gone as usize);
        self.first += gone;
    }
}

/// An error that ended the log; every later operation reports it again.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    message: Arc<str>,
}

impl Failure {
    pub fn new(error: &io::Error) -> Self {
        Self { kind: error.kind(), message: format!("the log failed: {error}").into() }
    }

    pub fn to_error(&self) -> io::Error {
        io::Error::new(self.kind, self.message.to_string())
    }
}

pub(super) struct State {
    pub contents: Contents,
    pub cache: Cache,
    pub frames: Frames,
    pub segments: BTreeMap<u64, Segment>,
    /// Number of the next frame that gets a record.
    next_frame: u64,
    pending: VecDeque<Batch>,
    /// The newest committed mark is in no batch yet.
    committed_waits: bool,
    /// A timer runs that will have it written by itself when no batch comes along.
    lingering: bool,
    /// That time has come.
    nudged: bool,
    /// The worker knows that there is something to do.
    woken: bool,
    recycled: Vec<u8>,
    failure: Option<Failure>,
}

impl State {
    pub fn new(
        contents: Contents,
        frames: Frames,
        segments: BTreeMap<u64, Segment>,
        cache_bytes: usize,
    ) -> Self {
        Self {
            contents,
            cache: Cache::new(cache_bytes),
            next_frame: frames.end(),
            frames,
            segments,
            pending: VecDeque::new(),
            committed_waits: false,
            lingering: false,
            nudged: false,
            woken: false,
            recycled: Vec::new(),
            failure: None,
        }
    }

    pub fn check(&self) -> io::Result<()> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.to_error()))
    }

    /// Whether the worker sleeps, with nothing left to do.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        !self.woken
    }

    /// True when the worker must be woken; it is taken as woken from then on.
    pub fn must_wake(&mut self) -> bool {
        !std::mem::replace(&mut self.woken, true)
    }

    /// The batch that takes more, with whatever committed mark waited for one.
    fn open_batch(&mut self) -> usize {
        let full = self.pending.back().is_none_or(|batch| batch.buffer.len() >= FULL_BATCH_BYTES);
        if full {
            let mut buffer = std::mem::take(&mut self.recycled);
            format::start_frame(&mut buffer);
            self.pending.push_back(Batch {
                frame: None,
                buffer,
                waiters: Vec::new(),
                after: Checkpoint::default(),
                entries: 0,
                top: None,
            });
        }
        let position = self.pending.len() - 1;
        if std::mem::take(&mut self.committed_waits) {
            let committed = self.contents.committed();
            self.number_frame(position);
            format::put_committed(&mut self.pending[position].buffer, committed);
        }
        position
    }

    /// Gives the batch its frame number; the caller adds a record next.
    fn number_frame(&mut self, position: usize) -> u64 {
        *self.pending[position].frame.get_or_insert_with(|| {
            self.next_frame += 1;
            self.next_frame - 1
        })
    }

    fn close(&mut self, position: usize, waiter: Option<Flushed>) {
        let batch = &mut self.pending[position];
        batch.after = self.contents.checkpoint();
        batch.waiters.extend(waiter);
    }

    /// Leaves the waiter in place on failure.
    pub fn append(&mut self, entries: &mut Vec<Entry>, waiter: &mut Option<Flushed>) -> io::Result<()> {
        self.check()?;
        check_sizes(entries)?;
        self.contents.check_run(entries.iter().map(|entry| entry.id))?;
        let position = self.open_batch();
        let frame = self.number_frame(position);
        for entry in entries.drain(..) {
            let batch = &mut self.pending[position];
            let slot = Slot {
                term: entry.id.term,
                frame,
                at: batch.buffer.len() as u32,
                payload_bytes: entry.payload.len() as u32,
                kind: entry.kind,
            };
            self.contents.push(entry.id, slot);
            format::put_entry(&mut batch.buffer, entry.id, entry.kind, &entry.payload);
            batch.entries += 1;
            batch.top = batch.top.max(Some(entry.id.index));
            self.cache.push(entry);
        }
        self.close(position, waiter.take());
        self.evict();
        Ok(())
    }

    pub fn save_vote(&mut self, vote: Vote, waiter: Flushed) -> io::Result<()> {
        self.check()?;
        self.contents.set_vote(vote);
        self.record(|buffer| format::put_vote(buffer, vote), Some(waiter));
        Ok(())
    }

    pub fn truncate(&mut self, last: Option<LogId>, waiter: Flushed) -> io::Result<()> {
        self.check()?;
        // The order in the log is that of the calls, so a mark that waits goes first.
        let position = self.open_batch();
        let truncated = self.contents.truncate(last);
        if truncated.is_ok() {
            self.cache.truncate(self.contents.last_id().map_or(0, |id| id.index + 1));
            self.number_frame(position);
            // What was held, whatever term the caller named with the index.
            let kept = self.contents.last_id();
            format::put_truncate(&mut self.pending[position].buffer, kept);
        }
        self.close(position, Some(waiter));
        truncated
    }

    pub fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.check()?;
        let position = self.open_batch();
        self.contents.purge(upto);
        self.cache.purge(upto.index);
        self.number_frame(position);
        format::put_purge(&mut self.pending[position].buffer, upto);
        self.close(position, None);
        Ok(())
    }

    /// True when the mark is new and waits for a batch.
    pub fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<bool> {
        self.check()?;
        if committed == self.contents.committed() || !self.contents.set_committed(committed) {
            return Ok(false);
        }
        self.committed_waits = true;
        Ok(true)
    }

    /// Starts the time for which a committed mark waits for a batch; true when it runs
    /// already.
    pub fn linger(&mut self) -> bool {
        std::mem::replace(&mut self.lingering, true)
    }

    /// True when the mark still waits and must be written by itself.
    pub fn end_linger(&mut self) -> bool {
        self.lingering = false;
        self.nudged = self.committed_waits;
        self.nudged && self.must_wake()
    }

    pub fn flush(&mut self, waiter: Flushed) -> io::Result<()> {
        self.check()?;
        let position = self.open_batch();
        self.close(position, Some(waiter));
        Ok(())
    }

    fn record(&mut self, put: impl FnOnce(&mut Vec<u8>), waiter: Option<Flushed>) {
        let position = self.open_batch();
        self.number_frame(position);
        put(&mut self.pending[position].buffer);
        self.close(position, waiter);
    }

    /// The last entry that is on disk.
    pub fn durable_id(&self) -> Option<LogId> {
        self.contents.last_before_frame(self.frames.end())
    }

    fn evict(&mut self) {
        let (contents, durable) = (&self.contents, self.frames.end());
        let on_disk = |index| contents.slot(index).is_some_and(|slot| slot.frame < durable);
        self.cache.evict(on_disk);
    }

    /// What the worker does next. After `Nothing` it sleeps until it is woken.
    pub fn take_work(&mut self) -> Work {
        if self.failure.is_none() {
            if let Some(batch) = self.pending.pop_front() {
                return Work::Batch(batch);
            }
            if std::mem::take(&mut self.nudged) && self.committed_waits {
                // The mark goes on waiting: the next frame replaces this one.
                return Work::Committed(self.contents.committed());
            }
        }
        self.woken = false;
        Work::Nothing
    }

    /// Records that a batch is durable; returns the numbers of segments that can go.
    pub fn finish(&mut self, batch: &mut Batch, place: Option<Place>) -> Vec<u64> {
        if batch.buffer.capacity() <= MAX_RECYCLED_BYTES {
            self.recycled = std::mem::take(&mut batch.buffer);
        }
        let Some(place) = place else { return Vec::new() };
        self.frames.push(place);
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.top = segment.top.max(batch.top);
        }
        self.frames.forget_before(self.contents.first_frame().unwrap_or(self.next_frame));
        self.evict();
        self.take_obsolete(place.segment, batch.after.purged)
    }

    /// Takes out the segments before `active` that hold nothing after `purged`.
    fn take_obsolete(&mut self, active: u64, purged: Option<LogId>) -> Vec<u64> {
        let mut gone = Vec::new();
        while let Some((&number, segment)) = self.segments.first_key_value() {
            if number == active || segment.top > purged.map(|id| id.index) {
                break;
            }
            gone.push(number);
            self.segments.remove(&number);
        }
        gone
    }

    /// Ends the log; returns those who wait for what will never be written.
    pub fn fail(&mut self, failure: Failure) -> Vec<Flushed> {
        self.failure.get_or_insert(failure);
        self.pending.drain(..).flat_map(|batch| batch.waiters).collect()
    }
}

fn check_sizes(entries: &[Entry]) -> io::Result<()> {
    let bytes: usize = entries.iter().map(|e| format::ENTRY_HEADER_BYTES + e.payload.len()).sum();
    if bytes > MAX_APPEND_BYTES {
        let message = format!("one append of {bytes} bytes; at most {MAX_APPEND_BYTES} are possible");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}
