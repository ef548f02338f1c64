//! Bytes of a segment: its header, its frames and the records in them. Pure functions;
//! `docs/format.md` is the text of record. All numbers are little-endian.
//!
//! ```text
//! segment  header (40 bytes), frames, zeros to the end of the file
//! frame    crc u32, length u32, stamp u64, previous crc u32, records, zeros to 8 bytes
//! record   tag u8, detail u8, zero u16, length u32, body
//! ```
//!
//! The stamp is the segment's random epoch combined with the frame's offset, so a copy
//! of a frame at any other place, even inside a value somebody stored, never parses.

use std::io;

use crate::storage::log::{EntryKind, Vote};
use crate::types::LogId;

/// The newest format of segments that this version reads, and the one it writes.
pub(super) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"BWLOGSEG";
pub(super) const SEGMENT_HEADER_BYTES: usize = 40;
pub(super) const FRAME_HEADER_BYTES: usize = 20;
const RECORD_HEADER_BYTES: usize = 8;
/// A record's header, the entry's id and the checksum of both and of the payload.
pub(super) const ENTRY_HEADER_BYTES: usize = RECORD_HEADER_BYTES + 20;
/// Frames begin at multiples of this, which keeps the search for one cheap.
pub(super) const FRAME_ALIGN: usize = 8;

const TAG_ENTRY: u8 = 1;
const TAG_VOTE: u8 = 2;
const TAG_TRUNCATE: u8 = 3;
const TAG_PURGE: u8 = 4;
const TAG_COMMITTED: u8 = 5;
const TAG_CHECKPOINT: u8 = 6;

/// The state of the log at a point, without its entries. The first frame of each
/// segment holds one, so older segments can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    pub last: Option<LogId>,
}

/// One record as read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The position is that of the record in its frame.
    Entry {
        id: LogId,
        kind: EntryKind,
        at: u32,
        payload_bytes: u32,
    },
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(Option<LogId>),
    Checkpoint(Checkpoint),
}

/// What identifies a segment; the path says the number, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub number: u64,
    pub epoch: u64,
}

/// Why a segment's header does not do.
pub(super) enum HeaderError {
    Newer(u32),
    Damaged(&'static str),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

pub(super) fn segment_header(header: SegmentHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header.number.to_le_bytes());
    bytes.extend_from_slice(&header.epoch.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(SEGMENT_HEADER_BYTES, 0);
    bytes
}

pub(super) fn read_segment_header(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
    let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
        return Err(HeaderError::Damaged("the file ends inside its header"));
    };
    if bytes[..MAGIC.len()] != MAGIC {
        return Err(HeaderError::Damaged("it does not begin with its magic number"));
    }
    // Before the checksum: a newer format may keep it elsewhere.
    let format = u32_at(bytes, 8);
    if format > FORMAT {
        return Err(HeaderError::Newer(format));
    }
    if crc32c::crc32c(&bytes[..32]) != u32_at(bytes, 32) || bytes[36..].iter().any(|b| *b != 0) {
        return Err(HeaderError::Damaged("the checksum of its header does not match"));
    }
    Ok(SegmentHeader { number: u64_at(bytes, 16), epoch: u64_at(bytes, 24) })
}

/// A buffer with room for the header that [`seal`] fills in.
pub(super) fn start_frame(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER_BYTES, 0);
}

/// Completes the frame in `buffer` for its place and pads it; returns its CRC.
pub(super) fn seal(buffer: &mut Vec<u8>, epoch: u64, offset: u64, previous_crc: u32) -> u32 {
    let length = (buffer.len() - FRAME_HEADER_BYTES) as u32;
    buffer[4..8].copy_from_slice(&length.to_le_bytes());
    buffer[8..16].copy_from_slice(&(epoch ^ offset).to_le_bytes());
    buffer[16..20].copy_from_slice(&previous_crc.to_le_bytes());
    let crc = crc32c::crc32c(&buffer[4..]);
    buffer[..4].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(FRAME_ALIGN), 0);
    crc
}

/// A frame whose checksum holds at its place.
pub(super) struct Frame<'a> {
    pub crc: u32,
    pub previous_crc: u32,
    /// Header and records, without the padding.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// Bytes it takes in the segment.
    pub fn padded_len(&self) -> usize {
        self.bytes.len().next_multiple_of(FRAME_ALIGN)
    }
}

pub(super) fn read_frame(segment: &[u8], offset: usize, epoch: u64) -> Option<Frame<'_>> {
    let rest = segment.get(offset..)?;
    if rest.len() < FRAME_HEADER_BYTES || u64_at(rest, 8) != epoch ^ offset as u64 {
        return None;
    }
    let bytes = rest.get(..FRAME_HEADER_BYTES + u32_at(rest, 4) as usize)?;
    let crc = u32_at(bytes, 0);
    (crc32c::crc32c(&bytes[4..]) == crc).then(|| Frame { crc, previous_crc: u32_at(bytes, 16), bytes })
}

/// Whether a frame begins at `offset` that the file is too short for. None was ever begun
/// there: the file has been cut since.
pub(super) fn is_cut_off(segment: &[u8], offset: usize, epoch: u64) -> bool {
    let rest = segment.get(offset..).unwrap_or_default();
    if rest.len() < FRAME_HEADER_BYTES {
        return rest.iter().any(|byte| *byte != 0);
    }
    u64_at(rest, 8) == epoch ^ offset as u64 && FRAME_HEADER_BYTES + u32_at(rest, 4) as usize > rest.len()
}

fn put_record(buffer: &mut Vec<u8>, tag: u8, detail: u8, body_bytes: u32) {
    buffer.extend_from_slice(&[tag, detail, 0, 0]);
    buffer.extend_from_slice(&body_bytes.to_le_bytes());
}

fn put_id(buffer: &mut Vec<u8>, id: LogId) {
    buffer.extend_from_slice(&id.term.to_le_bytes());
    buffer.extend_from_slice(&id.index.to_le_bytes());
}

fn put_optional_id(buffer: &mut Vec<u8>, tag: u8, id: Option<LogId>) {
    put_record(buffer, tag, u8::from(id.is_some()), if id.is_some() { 16 } else { 0 });
    if let Some(id) = id {
        put_id(buffer, id);
    }
}

fn kind_byte(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Blank => 0,
        EntryKind::Batch => 1,
        EntryKind::Membership => 2,
    }
}

fn kind_of(byte: u8) -> Option<EntryKind> {
    match byte {
        0 => Some(EntryKind::Blank),
        1 => Some(EntryKind::Batch),
        2 => Some(EntryKind::Membership),
        _ => None,
    }
}

/// The caller has made sure that the payload's length fits.
pub(super) fn put_entry(buffer: &mut Vec<u8>, id: LogId, kind: EntryKind, payload: &[u8]) {
    let start = buffer.len();
    buffer.reserve(ENTRY_HEADER_BYTES + payload.len());
    let body = ENTRY_HEADER_BYTES - RECORD_HEADER_BYTES + payload.len();
    put_record(buffer, TAG_ENTRY, kind_byte(kind), body as u32);
    put_id(buffer, id);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&buffer[start..]), payload);
    buffer.extend_from_slice(&crc.to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// Whether `record` is the entry `id`, whole and undamaged.
pub(super) fn entry_is_sound(record: &[u8], id: LogId) -> bool {
    let Some((header, payload)) = record.split_at_checked(ENTRY_HEADER_BYTES) else { return false };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..24]), payload);
    header[0] == TAG_ENTRY
        && u64_at(header, 8) == id.term
        && u64_at(header, 16) == id.index
        && u32_at(header, 24) == crc
}

pub(super) fn put_vote(buffer: &mut Vec<u8>, vote: Vote) {
    put_record(buffer, TAG_VOTE, u8::from(vote.committed), 16);
    buffer.extend_from_slice(&vote.term.to_le_bytes());
    buffer.extend_from_slice(&vote.voted_for.to_le_bytes());
}

pub(super) fn put_truncate(buffer: &mut Vec<u8>, last: Option<LogId>) {
    put_optional_id(buffer, TAG_TRUNCATE, last);
}

pub(super) fn put_purge(buffer: &mut Vec<u8>, upto: LogId) {
    put_optional_id(buffer, TAG_PURGE, Some(upto));
}

pub(super) fn put_committed(buffer: &mut Vec<u8>, committed: Option<LogId>) {
    put_optional_id(buffer, TAG_COMMITTED, committed);
}

/// Bits of a checkpoint's detail byte: which of its fixed fields hold something.
const HAS_VOTE: u8 = 1;
const VOTE_COMMITTED: u8 = 2;
const HAS_PURGED: u8 = 4;
const HAS_COMMITTED: u8 = 8;
const HAS_LAST: u8 = 16;
const CHECKPOINT_BODY_BYTES: usize = 64;

pub(super) fn put_checkpoint(buffer: &mut Vec<u8>, checkpoint: &Checkpoint) {
    let Checkpoint { vote, purged, committed, last } = *checkpoint;
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    let detail = bit(vote.is_some(), HAS_VOTE)
        | bit(vote.is_some_and(|v| v.committed), VOTE_COMMITTED)
        | bit(purged.is_some(), HAS_PURGED)
        | bit(committed.is_some(), HAS_COMMITTED)
        | bit(last.is_some(), HAS_LAST);
    put_record(buffer, TAG_CHECKPOINT, detail, CHECKPOINT_BODY_BYTES as u32);
    put_id(buffer, vote.map_or(LogId::default(), |v| LogId { term: v.term, index: v.voted_for }));
    for id in [purged, committed, last] {
        put_id(buffer, id.unwrap_or_default());
    }
}

/// Bytes of a sealed frame that holds one checkpoint.
pub(super) fn checkpoint_frame_bytes() -> usize {
    let bytes = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + CHECKPOINT_BODY_BYTES;
    bytes.next_multiple_of(FRAME_ALIGN)
}

fn id_at(bytes: &[u8], at: usize) -> LogId {
    LogId { term: u64_at(bytes, at), index: u64_at(bytes, at + 8) }
}

fn read_checkpoint(detail: u8, body: &[u8]) -> Checkpoint {
    let field = |bit: u8, at: usize| (detail & bit != 0).then(|| id_at(body, at));
    let committed = detail & VOTE_COMMITTED != 0;
    let vote = field(HAS_VOTE, 0);
    Checkpoint {
        vote: vote.map(|id| Vote { term: id.term, voted_for: id.index, committed }),
        purged: field(HAS_PURGED, 16),
        committed: field(HAS_COMMITTED, 32),
        last: field(HAS_LAST, 48),
    }
}

/// Hands every record of a frame to `each`. The frame's checksum held, so an error here
/// means another writer than this one.
pub(super) fn read_records(frame: &[u8], mut each: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
    let mut at = FRAME_HEADER_BYTES;
    while at < frame.len() {
        let (record, bytes) = read_record(frame, at).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "it holds a record unknown to this version")
        })?;
        each(record)?;
        at += bytes;
    }
    Ok(())
}

fn read_record(frame: &[u8], at: usize) -> Option<(Record, usize)> {
    let header = frame.get(at..at + RECORD_HEADER_BYTES)?;
    let (tag, detail, length) = (header[0], header[1], u32_at(header, 4) as usize);
    let body = frame.get(at + RECORD_HEADER_BYTES..)?.get(..length)?;
    let optional_id = match length {
        16 if detail == 1 => Some(Some(id_at(body, 0))),
        0 if detail == 0 => Some(None),
        _ => None,
    };
    let record = match tag {
        TAG_ENTRY if length >= 20 => Record::Entry {
            id: id_at(body, 0),
            kind: kind_of(detail)?,
            at: at as u32,
            payload_bytes: (length - 20) as u32,
        },
        TAG_VOTE if length == 16 => {
            let LogId { term, index: voted_for } = id_at(body, 0);
            Record::Vote(Vote { term, voted_for, committed: detail == 1 })
        }
        TAG_TRUNCATE => Record::Truncate(optional_id?),
        TAG_PURGE => Record::Purge(optional_id??),
        TAG_COMMITTED => Record::Committed(optional_id?),
        TAG_CHECKPOINT if length == CHECKPOINT_BODY_BYTES => {
            Record::Checkpoint(read_checkpoint(detail, body))
        }
        _ => return None,
    };
    Some((record, RECORD_HEADER_BYTES + length))
}
