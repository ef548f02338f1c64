//! Segment files: their names, and how one comes to be with all its zeros on disk.
//!
//! A file under a segment's name always begins with a durable header and checkpoint,
//! because it gets that name last. Before, it is a *spare*: zeros, made ahead on a
//! worker of its own so that no append waits for them. Names are random up to then, so
//! a worker that outlives its log cannot reach a file that somebody else took over.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;

use super::format::{self, Checkpoint, SegmentHeader};
use crate::env::blocks::{BLOCK_BYTES, Blocks};
use crate::env::{Disk, File};
use crate::types::LogIndex;

pub(super) const DIRECTORY: &str = "log";
const SEGMENT_SUFFIX: &str = ".seg";
/// Zeros throughout, and synced.
const SPARE_SUFFIX: &str = ".spare";
/// Zeros as far as it got.
const FILLING_SUFFIX: &str = ".filling";

/// Zeros written and synced at a time: small enough that an append's sync, which may
/// have to wait for ours, waits for a few milliseconds only.
const FILL_CHUNK_BYTES: usize = 1 << 20;

/// A larger buffer is not kept for the next write.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// Size of a segment that is needed at once, at the first start or when appends were
/// faster than the filling: small enough to zero in a few milliseconds.
const HASTY_SEGMENT_BYTES: u64 = 1 << 20;

/// A segment that the log reads from.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub file: Arc<dyn File>,
    pub bytes: u64,
    /// The highest index of an entry in it, truncated ones included: with everything up
    /// to it purged, the file can go.
    pub top: Option<LogIndex>,
}

/// The segment that is written to. There is one writer.
#[derive(Debug)]
pub(super) struct Active {
    pub number: u64,
    pub epoch: u64,
    pub file: Arc<dyn File>,
    pub bytes: u64,
    /// Where the next frame goes.
    pub tail: u64,
    /// What lies before the tail in its block: it is written again with the next frame.
    pub block: Blocks,
    /// CRC of the frame before it.
    pub previous_crc: u32,
}

impl Active {
    /// Puts bytes at the tail; on disk when it returns.
    ///
    /// Whole blocks go past the kernel's cache ([`File::write_synced`]), so the first one is
    /// written again, unchanged up to the tail, and zeros fill the last. A crash in between
    /// harms nothing older: disks write the 512 bytes of a sector wholly or not at all, and
    /// the kernel's own way, a page at a time, relies on the same.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let from = self.tail - self.block.as_slice().len() as u64;
        self.block.extend(bytes);
        let end = self.block.as_slice().len();
        if from + end.next_multiple_of(BLOCK_BYTES) as u64 <= self.bytes {
            self.block.pad();
        }
        self.file.write_synced(from, self.block.as_slice())?;
        self.block.keep(end / BLOCK_BYTES * BLOCK_BYTES..end);
        self.block.shrink(MAX_KEPT_BYTES);
        self.tail += bytes.len() as u64;
        Ok(())
    }

    /// Moves the tail over bytes that were written otherwise. The next append does without
    /// the rest of their block.
    pub fn skip(&mut self, bytes: u64) {
        self.tail += bytes;
        self.block.keep(0..0);
    }
}

/// A file of zeros that can become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    pub name: String,
    pub file: Arc<dyn File>,
    pub bytes: u64,
}

/// The one spare, handed from the worker that fills it to the one that uses it.
pub(super) type SpareSlot = Arc<Mutex<Option<Spare>>>;

pub(super) fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

pub(super) fn segment_path(number: u64) -> String {
    format!("{DIRECTORY}/{number:08}{SEGMENT_SUFFIX}")
}

/// The files of the log's directory by what they are.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Ascending.
    pub segments: Vec<u64>,
    pub spares: Vec<String>,
    pub leftovers: Vec<String>,
}

impl Listing {
    pub fn read(disk: &dyn Disk) -> io::Result<Self> {
        let mut listing = Self::default();
        for name in disk.list(DIRECTORY)? {
            if let Some(number) = name.strip_suffix(SEGMENT_SUFFIX) {
                listing.segments.push(segment_number(number, &name)?);
            } else if name.ends_with(SPARE_SUFFIX) {
                listing.spares.push(name);
            } else if name.ends_with(FILLING_SUFFIX) {
                listing.leftovers.push(name);
            }
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }
}

fn segment_number(digits: &str, name: &str) -> io::Result<u64> {
    let number = digits.parse().ok().filter(|number| segment_path(*number) == path(name));
    number.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("DATA_DIR/{DIRECTORY}/{name} is not named as a segment of the log: move it away"),
        )
    })
}

/// Takes over a spare that an earlier run made, and removes what else it left.
pub(super) fn adopt_spare(disk: &dyn Disk, listing: &Listing, bytes: u64) -> io::Result<Option<Spare>> {
    let mut adopted = None;
    for name in &listing.spares {
        let file = disk.open(&path(name), false)?;
        if adopted.is_none() && file.len()? == bytes {
            adopted = Some(Spare { name: name.clone(), file, bytes });
        } else {
            disk.remove(&path(name))?;
        }
    }
    for name in &listing.leftovers {
        disk.remove(&path(name))?;
    }
    Ok(adopted)
}

/// Makes a file of zeros; everything but its directory entry is durable.
fn fill(disk: &dyn Disk, bytes: u64) -> io::Result<Spare> {
    let random = crate::env::random::rng().next_u64();
    let filling = path(&format!("{random:016x}{FILLING_SUFFIX}"));
    let name = format!("{random:016x}{SPARE_SUFFIX}");
    let file = disk.open(&filling, true)?;
    match write_zeros(&*file, bytes).and_then(|()| disk.rename(&filling, &path(&name))) {
        Ok(()) => Ok(Spare { name, file, bytes }),
        Err(error) => {
            // The room is worth more than the file; the next start would remove it, too.
            let _ = disk.remove(&filling);
            Err(error)
        }
    }
}

fn write_zeros(file: &dyn File, bytes: u64) -> io::Result<()> {
    let zeros = Blocks::zeros(FILL_CHUNK_BYTES.min(bytes as usize));
    let mut at = 0;
    while at < bytes {
        let chunk = zeros.as_slice().len().min((bytes - at) as usize);
        file.write_synced(at, &zeros.as_slice()[..chunk])?;
        at += chunk as u64;
    }
    Ok(())
}

/// Fills the slot if it is empty and the disk keeps its reserve. Without a spare the log
/// goes on with small segments, so a failure is worth a warning only; a disk that is really
/// broken or full fails the next append.
pub(super) fn keep_spare(disk: &dyn Disk, slot: &SpareSlot, bytes: u64, reserve: u64) {
    if slot.lock().is_some() {
        return;
    }
    // The reserve is for what must go on when writes are refused: deletes, votes, purges.
    if disk.free_bytes().is_some_and(|free| free < bytes.saturating_add(reserve)) {
        tracing::debug!("too little room to make a log segment ahead");
        return;
    }
    let made = fill(disk, bytes).and_then(|spare| disk.sync_dir(DIRECTORY).map(|()| spare));
    match made {
        Ok(spare) => *slot.lock() = Some(spare),
        Err(error) => tracing::warn!(%error, "cannot make a log segment ahead; going on without"),
    }
}

/// What a new segment begins with.
pub(super) struct Beginning<'a> {
    pub number: u64,
    pub checkpoint: &'a Checkpoint,
    pub previous_crc: u32,
}

/// Turns the spare, or a file made now when that is missing or cannot hold a frame of
/// `frame_bytes`, into the segment that is written to next. Durable when it returns,
/// the name included.
pub(super) fn begin(
    disk: &dyn Disk,
    spare: &SpareSlot,
    beginning: &Beginning<'_>,
    segment_bytes: u64,
    frame_bytes: u64,
) -> io::Result<Active> {
    let overhead = format::SEGMENT_HEADER_BYTES + format::checkpoint_frame_bytes();
    let needed = overhead as u64 + frame_bytes;
    let ready = spare.lock().take_if(|spare| spare.bytes >= needed);
    let spare = match ready {
        Some(spare) => spare,
        None => fill(disk, needed.max(segment_bytes.min(HASTY_SEGMENT_BYTES)))?,
    };
    let header = SegmentHeader { number: beginning.number, epoch: crate::env::random::rng().next_u64() };
    let mut start = format::segment_header(header);
    let mut frame = Vec::new();
    format::start_frame(&mut frame);
    format::put_checkpoint(&mut frame, beginning.checkpoint);
    let crc = format::seal(&mut frame, header.epoch, start.len() as u64, beginning.previous_crc);
    start.extend_from_slice(&frame);
    let mut active = Active {
        number: header.number,
        epoch: header.epoch,
        file: spare.file,
        bytes: spare.bytes,
        tail: 0,
        block: Blocks::default(),
        previous_crc: crc,
    };
    active.append(&start)?;
    disk.rename(&path(&spare.name), &segment_path(header.number))?;
    disk.sync_dir(DIRECTORY)?;
    Ok(active)
}
