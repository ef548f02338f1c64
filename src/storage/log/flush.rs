//! The flush worker: one synced write for everything that waits. Where the disk is quick, who
//! appends may do its work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::format::{self, Checkpoint};
use super::segment::{self, Active, Beginning, Segment, SpareSlot};
use super::state::{Batch, Failure, Place, State, Work};
use crate::env::planted::{Bug, is_planted};
use crate::env::{Disk, Worker};
use crate::metrics::Metrics;
use crate::types::LogId;

/// A write that took no longer, sync and all, is quick: handing it to another thread and
/// hearing back takes a twentieth of this at least, and nobody notices so short a wait.
const QUICK_WRITE: Duration = Duration::from_millis(1);
/// So many quick writes in a row make a quick disk.
pub(super) const QUICK_IN_A_ROW: u32 = 8;

/// Whether the disk is so quick that a thread with other duties may wait for it.
#[derive(Default)]
pub(super) struct Pace {
    quick_in_a_row: AtomicU32,
}

impl Pace {
    pub fn is_quick(&self) -> bool {
        self.quick_in_a_row.load(Ordering::Relaxed) >= QUICK_IN_A_ROW
    }

    /// Whoever writes says how long it took; one at a time.
    fn took(&self, time: Duration) {
        let row = if time <= QUICK_WRITE {
            self.quick_in_a_row.load(Ordering::Relaxed).saturating_add(1)
        } else {
            0
        };
        self.quick_in_a_row.store(row, Ordering::Relaxed);
    }
}

/// Asks the flush worker to look for batches.
pub(super) struct Wake;
/// Asks the other worker to make a spare segment.
pub(super) struct MakeSpare;

pub(super) struct Flusher {
    pub state: Arc<Mutex<State>>,
    pub disk: Arc<dyn Disk>,
    pub metrics: Arc<Metrics>,
    pub active: Active,
    /// What the frames up to the tail add up to, for the next segment's first frame.
    pub written: Checkpoint,
    /// A frame with nothing but a committed mark lies at the tail, not synced. The next
    /// frame takes its place; it holds at least that mark, so it covers it.
    pub provisional: Option<Provisional>,
    pub spare: SpareSlot,
    pub spare_maker: Worker<MakeSpare>,
    pub segment_bytes: u64,
    pub pace: Arc<Pace>,
}

pub(super) struct Provisional {
    crc: u32,
    bytes: u64,
    committed: Option<LogId>,
}

impl Flusher {
    /// Writes until nothing waits.
    pub fn run(&mut self) {
        loop {
            let work = self.state.lock().take_work();
            let done = match work {
                Work::Batch(batch) => self.flush(batch),
                Work::Committed(committed) => self.write_provisional(committed),
                Work::Nothing => return,
            };
            if let Err(error) = done {
                tracing::error!(%error, segment = self.active.number, "the log failed; this is final");
                self.fail(&error, Vec::new());
            }
        }
    }

    fn flush(&mut self, mut batch: Batch) -> io::Result<()> {
        let place = match batch.frame {
            None => None,
            Some(_) => match self.write(&mut batch) {
                Ok(place) => Some(place),
                Err(error) => {
                    self.fail(&error, batch.waiters);
                    return Err(error);
                }
            },
        };
        let obsolete = self.state.lock().finish(&mut batch, place);
        for waiter in batch.waiters {
            waiter(Ok(()));
        }
        self.remove(&obsolete)
    }

    fn fail(&self, error: &io::Error, waiters: Vec<super::Flushed>) {
        let failure = Failure::new(error);
        let others = self.state.lock().fail(failure.clone());
        for waiter in waiters.into_iter().chain(others) {
            waiter(Err(failure.to_error()));
        }
    }

    fn write(&mut self, batch: &mut Batch) -> io::Result<Place> {
        let bytes = batch.buffer.len().next_multiple_of(format::FRAME_ALIGN) as u64;
        if self.active.tail + bytes > self.active.bytes {
            self.roll(bytes)?;
        }
        let active = &mut self.active;
        let place = Place { segment: active.number, offset: active.tail };
        let crc = format::seal(&mut batch.buffer, active.epoch, active.tail, active.previous_crc);
        let begun = Instant::now();
        if is_planted(Bug::LogNotSynced) {
            active.file.write_at(active.tail, &batch.buffer)?;
            active.skip(bytes);
        } else {
            active.append(&batch.buffer)?;
        }
        let took = begun.elapsed();
        self.pace.took(took);
        self.metrics.log_fsync_seconds.observe(took.as_secs_f64());
        self.metrics.log_written_bytes.inc_by(bytes);
        self.metrics.log_appended_entries.inc_by(batch.entries);
        active.previous_crc = crc;
        self.provisional = None;
        self.written = batch.after;
        Ok(place)
    }

    /// Goes on in a new segment, which has room for a frame of `frame_bytes`.
    fn roll(&mut self, frame_bytes: u64) -> io::Result<()> {
        if let Some(provisional) = self.provisional.take() {
            // Nothing will be written over it any more, so whether it is there must not
            // depend on luck: the next segment is chained to it.
            self.active.file.sync()?;
            self.active.tail += provisional.bytes;
            self.active.previous_crc = provisional.crc;
            self.written.committed = provisional.committed;
        }
        let beginning = Beginning {
            number: self.active.number + 1,
            checkpoint: &self.written,
            previous_crc: self.active.previous_crc,
        };
        self.active = segment::begin(&*self.disk, &self.spare, &beginning, self.segment_bytes, frame_bytes)?;
        let Active { number, ref file, bytes, .. } = self.active;
        self.state.lock().segments.insert(number, Segment { file: file.clone(), bytes, top: None });
        self.spare_maker.send(MakeSpare);
        Ok(())
    }

    /// Writes the mark without a sync, so that it outlives the process if not the power.
    fn write_provisional(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut frame = Vec::new();
        format::start_frame(&mut frame);
        format::put_committed(&mut frame, committed);
        let Active { ref file, epoch, tail, previous_crc, bytes, .. } = self.active;
        let crc = format::seal(&mut frame, epoch, tail, previous_crc);
        if tail + frame.len() as u64 > bytes {
            return Ok(());
        }
        file.write_at(tail, &frame)?;
        self.provisional = Some(Provisional { crc, bytes: frame.len() as u64, committed });
        Ok(())
    }

    /// Oldest first and each durably, so that a crash leaves no hole between segments.
    fn remove(&self, obsolete: &[u64]) -> io::Result<()> {
        for number in obsolete {
            self.disk.remove(&segment::segment_path(*number))?;
            self.disk.sync_dir(segment::DIRECTORY)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_write_makes_a_slow_disk_and_many_quick_ones_a_quick_one() {
        let pace = Pace::default();
        for slow in [QUICK_WRITE * 2, Duration::from_secs(60)] {
            for _ in 0..QUICK_IN_A_ROW {
                assert!(!pace.is_quick());
                pace.took(QUICK_WRITE);
            }
            assert!(pace.is_quick());
            pace.took(slow);
        }
        assert!(!pace.is_quick());
    }
}
