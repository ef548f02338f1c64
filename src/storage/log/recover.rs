//! Reading the log back at the start.
//!
//! Every frame was synced before the next one was written, and a segment gets its name
//! only with its header and checkpoint on disk. So a crash can leave one bad frame, the
//! last; it was never acknowledged, and is cut. Anything else that does not fit is
//! damage, and then the log does not open: whoever starts without an entry that it
//! acknowledged may elect a leader that lacks it.

use std::collections::BTreeMap;
use std::io;

use super::contents::Contents;
use super::format::{self, Checkpoint, FRAME_ALIGN, Frame, HeaderError, Record, SEGMENT_HEADER_BYTES};
use super::segment::{self, Active, Beginning, DIRECTORY, Listing, Segment, SpareSlot, segment_path};
use super::state::{Frames, Place};
use crate::env::blocks::{BLOCK_BYTES, Blocks};
use crate::env::{Disk, File};

/// The log as it was found.
pub(super) struct Recovered {
    pub contents: Contents,
    pub frames: Frames,
    pub segments: BTreeMap<u64, Segment>,
    pub active: Active,
}

pub(super) fn recover(disk: &dyn Disk, spare: &SpareSlot, segment_bytes: u64) -> io::Result<Recovered> {
    let listing = Listing::read(disk)?;
    *spare.lock() = segment::adopt_spare(disk, &listing, segment_bytes)?;
    let Some((&last, older)) = listing.segments.split_last() else {
        return begin(disk, spare, segment_bytes);
    };
    check_numbers(&listing.segments)?;
    let mut reading = Reading::default();
    for number in older {
        reading.segment(disk, *number, false)?;
    }
    let active = reading.segment(disk, last, true)?;
    if let Some((first, last)) = reading.contents.missing() {
        let why = format!("entries {first} to {last}, which come before it, are gone");
        return Err(damaged(&segment_path(listing.segments[0]), 0, &why));
    }
    // What was read may still be in the kernel's memory only, when the process was
    // killed between a write and its sync; from here on it counts as durable.
    active.file.sync()?;
    disk.sync_dir(DIRECTORY)?;
    Ok(Recovered { contents: reading.contents, frames: reading.frames, segments: reading.segments, active })
}

/// The first segment of a fresh directory.
fn begin(disk: &dyn Disk, spare: &SpareSlot, segment_bytes: u64) -> io::Result<Recovered> {
    let beginning = Beginning { number: 1, checkpoint: &Checkpoint::default(), previous_crc: 0 };
    let active = segment::begin(disk, spare, &beginning, segment_bytes, 0)?;
    // The directory itself is new, too.
    disk.sync_dir("")?;
    let segment = Segment { file: active.file.clone(), bytes: active.bytes, top: None };
    Ok(Recovered {
        contents: Contents::default(),
        frames: Frames::default(),
        segments: BTreeMap::from([(active.number, segment)]),
        active,
    })
}

fn check_numbers(numbers: &[u64]) -> io::Result<()> {
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            let why = format!("it is missing, although {} exists", segment_path(pair[1]));
            return Err(damaged(&segment_path(pair[0] + 1), 0, &why));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Reading {
    contents: Contents,
    frames: Frames,
    segments: BTreeMap<u64, Segment>,
    /// CRC of the last frame read; `None` before the first segment.
    previous_crc: Option<u32>,
    /// One segment's bytes; kept to be used again.
    bytes: Vec<u8>,
}

impl Reading {
    fn segment(&mut self, disk: &dyn Disk, number: u64, is_last: bool) -> io::Result<Active> {
        let path = segment_path(number);
        let file = disk.open(&path, false)?;
        let mut bytes = std::mem::take(&mut self.bytes);
        // Not emptied before: zeros would be written over the last segment's for nothing.
        bytes.resize(file.len()? as usize, 0);
        file.read_at(0, &mut bytes)?;
        let epoch = check_header(&path, number, &bytes)?;
        let segment = Segment { file: file.clone(), bytes: bytes.len() as u64, top: None };
        self.segments.insert(number, segment);
        let tail = self.frames(number, epoch, &bytes)?;
        check_rest(&path, &*file, epoch, &bytes, tail, is_last)?;
        let mut block = Blocks::default();
        block.extend(&bytes[tail / BLOCK_BYTES * BLOCK_BYTES..tail]);
        let (tail, length) = (tail as u64, bytes.len() as u64);
        self.bytes = bytes;
        let previous_crc = self.previous_crc.unwrap_or_default();
        Ok(Active { number, epoch, file, bytes: length, tail, block, previous_crc })
    }

    /// Replays the frames; returns where the last good one ends.
    fn frames(&mut self, number: u64, epoch: u64, bytes: &[u8]) -> io::Result<usize> {
        let path = segment_path(number);
        let mut at = SEGMENT_HEADER_BYTES;
        while let Some(frame) = format::read_frame(bytes, at, epoch) {
            if self.previous_crc.is_some_and(|crc| crc != frame.previous_crc) {
                return Err(damaged(&path, at as u64, "the frame before this one is not the one it follows"));
            }
            self.replay(number, at, &frame).map_err(|error| match error.kind() {
                io::ErrorKind::Unsupported => newer(&path, &format!("at byte {at}, {error}")),
                _ => damaged(&path, at as u64, &error.to_string()),
            })?;
            self.previous_crc = Some(frame.crc);
            at += frame.padded_len();
        }
        if at == SEGMENT_HEADER_BYTES {
            // It was durable before the file had its name.
            return Err(damaged(&path, at as u64, "its first frame is bad"));
        }
        Ok(at)
    }

    fn replay(&mut self, number: u64, offset: usize, frame: &Frame<'_>) -> io::Result<()> {
        let frame_number = self.frames.end();
        let is_start = self.previous_crc.is_none();
        let mut top = None;
        format::read_records(frame.bytes, |record| match record {
            Record::Checkpoint(checkpoint) if is_start => {
                self.contents = Contents::from_checkpoint(&checkpoint);
                Ok(())
            }
            record => {
                if let Record::Entry { id, .. } = record {
                    top = top.max(Some(id.index));
                }
                self.contents.replay(record, frame_number)
            }
        })?;
        self.frames.push(Place { segment: number, offset: offset as u64 });
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.top = segment.top.max(top);
        }
        Ok(())
    }
}

fn check_header(path: &str, number: u64, bytes: &[u8]) -> io::Result<u64> {
    match format::read_segment_header(bytes) {
        Ok(header) if header.number == number => Ok(header.epoch),
        Ok(header) => Err(damaged(path, 0, &format!("it is segment {} by its header", header.number))),
        Err(HeaderError::Damaged(why)) => Err(damaged(path, 0, why)),
        Err(HeaderError::Newer(format)) => Err(newer(
            path,
            &format!("it has format {format} and this version reads up to {}", format::FORMAT),
        )),
    }
}

/// Judges what follows the last good frame: zeros, a torn tail to cut, or damage.
fn check_rest(
    path: &str,
    file: &dyn File,
    epoch: u64,
    bytes: &[u8],
    tail: usize,
    is_last: bool,
) -> io::Result<()> {
    let rest = bytes.get(tail..).unwrap_or_default();
    let Some(end) = last_written(rest) else { return Ok(()) };
    if !is_last {
        return Err(damaged(path, tail as u64, "a bad frame, and the log goes on in the next segment"));
    }
    let mut later = (tail..bytes.len()).step_by(FRAME_ALIGN).skip(1);
    if let Some(good) = later.find(|at| format::read_frame(bytes, *at, epoch).is_some()) {
        let why = format!("a bad frame, and a good one after it at byte {good}");
        return Err(damaged(path, tail as u64, &why));
    }
    if format::is_cut_off(bytes, tail, epoch) {
        return Err(damaged(path, tail as u64, "the file ends inside a frame: it has been cut short"));
    }
    tracing::warn!(
        file = path,
        offset = tail,
        bytes = end + 1,
        "cut the torn end of the log: a write that a crash interrupted, never acknowledged"
    );
    // Zeros, so that its remains cannot be taken for something else after later appends.
    file.write_at(tail as u64, &vec![0; end + 1])?;
    file.sync()
}

/// The last byte that is not zero. Most segments end in megabytes of zeros, so they are looked
/// through in blocks, which compilers do many bytes at a time.
fn last_written(bytes: &[u8]) -> Option<usize> {
    let is_written = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) != 0;
    let zeros = bytes.rchunks(BLOCK_BYTES).take_while(|block| !is_written(block)).map(<[u8]>::len);
    let end = bytes.len() - zeros.sum::<usize>();
    bytes.iter().take(end).rposition(|byte| *byte != 0)
}

pub(super) fn damaged(path: &str, offset: u64, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the log is damaged: DATA_DIR/{path} at byte {offset}: {why}. Acknowledged entries may be \
             lost, so this node does not start; restore the directory from a backup of its own, or \
             empty it and let the node come back as a new member"
        ),
    )
}

fn newer(path: &str, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("DATA_DIR/{path} was written by a newer version: {why}. Start that version again"),
    )
}
