//! Frames: `kind, raw length, stored length, CRC32C` and the stored bytes. Snapshots and
//! checkpoints of the index are made of them.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::env::File;
use crate::storage::mvcc::row::RowId;
use crate::storage::mvcc::table::invalid;
use crate::storage::mvcc::types::Lease;
use prost::encoding::{decode_varint, encode_varint};

/// What a stream of frames is: how it begins, and what errors call it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub magic: &'static [u8; 8],
    pub name: &'static str,
}

pub(super) const SNAPSHOT: Stream = Stream { magic: b"bwsnap1\n", name: "snapshot" };
pub(super) const CHECKPOINT: Stream = Stream { magic: b"bwindex\n", name: "checkpoint" };

/// kind (1), raw length (4), stored length (4), CRC32C (4); little-endian.
const HEADER_BYTES: usize = 13;
/// No frame is longer, raw or stored, in bytes. A part ends with the row that fills it,
/// so this bounds one row; it keeps a damaged length from asking for all memory.
const MAX_FRAME_BYTES: usize = 256 * 1024 * 1024;
/// zstd's level: 1 is the fastest, and the network is faster than the higher ones.
const ZSTD_LEVEL: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Rows = 2,
    Footer = 3,
    Leases = 4,
    Keys = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> io::Result<Self> {
        match byte {
            1 => Ok(Kind::Header),
            2 => Ok(Kind::Rows),
            3 => Ok(Kind::Footer),
            4 => Ok(Kind::Leases),
            5 => Ok(Kind::Keys),
            other => Err(invalid(format!("a frame of unknown kind {other}"))),
        }
    }

    fn is_compressed(self) -> bool {
        match self {
            Kind::Rows | Kind::Leases | Kind::Keys => true,
            Kind::Header | Kind::Footer => false,
        }
    }
}

/// The record of a snapshot's footer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Footer {
    #[prost(uint64, tag = "1")]
    pub rows: u64,
    /// blake3 over the raw bytes of all frames before it.
    #[prost(bytes = "bytes", tag = "2")]
    pub hash: Bytes,
    #[prost(uint64, tag = "3")]
    pub leases: u64,
}

/// Appends a frame to `out`; all but header and footer are compressed.
pub(super) fn write(kind: Kind, raw: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let compressed;
    let stored = if kind.is_compressed() {
        compressed = zstd::bulk::compress(raw, ZSTD_LEVEL)?;
        &compressed
    } else {
        raw
    };
    if raw.len().max(stored.len()) > MAX_FRAME_BYTES {
        return Err(invalid("a row or key is too long for a frame"));
    }
    out.reserve(HEADER_BYTES + stored.len());
    let lengths = [raw.len() as u32, stored.len() as u32];
    out.put_u8(kind as u8);
    out.put_u32_le(lengths[0]);
    out.put_u32_le(lengths[1]);
    out.put_u32_le(checksum(kind as u8, lengths, stored));
    out.extend_from_slice(stored);
    Ok(())
}

/// Over everything else in the frame.
fn checksum(kind: u8, lengths: [u32; 2], stored: &[u8]) -> u32 {
    let mut head = [0; 9];
    head[0] = kind;
    head[1..5].copy_from_slice(&lengths[0].to_le_bytes());
    head[5..].copy_from_slice(&lengths[1].to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), stored)
}

/// Reads frames from a file, one after the other.
pub(super) struct Reader<'a> {
    stream: Stream,
    file: &'a Arc<dyn File>,
    offset: u64,
    len: u64,
}

impl<'a> Reader<'a> {
    pub fn new(stream: Stream, file: &'a Arc<dyn File>) -> io::Result<Self> {
        let mut reader = Self { stream, file, offset: 0, len: file.len()? };
        if reader.take(stream.magic.len())? != stream.magic {
            return Err(invalid(format!("this is no {}", stream.name)));
        }
        Ok(reader)
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if self.len - self.offset < count as u64 {
            return Err(invalid(format!("the {} was cut off at byte {}", self.stream.name, self.len)));
        }
        let mut bytes = vec![0; count];
        self.file.read_at(self.offset, &mut bytes)?;
        self.offset += count as u64;
        Ok(bytes)
    }

    pub fn at_end(&self) -> bool {
        self.offset == self.len
    }

    /// The next frame's kind and raw bytes.
    pub fn next(&mut self) -> io::Result<(Kind, Vec<u8>)> {
        let at = self.offset;
        let head = self.take(HEADER_BYTES)?;
        let word = |place: usize| {
            u32::from_le_bytes([head[place], head[place + 1], head[place + 2], head[place + 3]])
        };
        let (raw_len, stored_len, crc) = (word(1), word(5), word(9));
        if raw_len.max(stored_len) as usize > MAX_FRAME_BYTES {
            return Err(self.damaged(at));
        }
        let stored = self.take(stored_len as usize)?;
        if checksum(head[0], [raw_len, stored_len], &stored) != crc {
            return Err(self.damaged(at));
        }
        let kind = Kind::from_byte(head[0])?;
        let raw = match kind.is_compressed() {
            true => zstd::bulk::decompress(&stored, raw_len as usize)?,
            false => stored,
        };
        if raw.len() != raw_len as usize {
            return Err(self.damaged(at));
        }
        Ok((kind, raw))
    }

    fn damaged(&self, at: u64) -> io::Error {
        invalid(format!("the {} is damaged in the frame at byte {at}", self.stream.name))
    }
}

/// Appends a lease to a part.
pub(super) fn put_lease(id: i64, lease: Lease, part: &mut Vec<u8>) {
    let encoded = lease.encode();
    encode_varint(id.cast_unsigned(), part);
    encode_varint(encoded.len() as u64, part);
    part.extend_from_slice(&encoded);
}

/// Takes a lease from the front of a part.
pub(super) fn take_lease(part: &mut &[u8]) -> io::Result<(i64, Lease)> {
    let cut = || invalid("a part of the snapshot ends inside a lease");
    let id = decode_varint(part).map_err(|_| cut())?.cast_signed();
    let len = usize::try_from(decode_varint(part).map_err(|_| cut())?).map_err(|_| cut())?;
    let (encoded, rest) = part.split_at_checked(len).ok_or_else(cut)?;
    *part = rest;
    Ok((id, Lease::decode(encoded)?))
}

/// Appends a row to a part.
pub(super) fn put_row(id: RowId, encoded: &[u8], part: &mut Vec<u8>) {
    encode_varint(id.revision, part);
    encode_varint(id.sub.into(), part);
    encode_varint(encoded.len() as u64, part);
    part.extend_from_slice(encoded);
}

/// Takes a row from the front of a part.
pub(super) fn take_row<'a>(part: &mut &'a [u8]) -> io::Result<(RowId, &'a [u8])> {
    let cut = || invalid("a part of the snapshot ends inside a row");
    let mut number = || decode_varint(part).map_err(|_| cut());
    let (revision, sub, len) = (number()?, number()?, number()?);
    let sub = u32::try_from(sub).map_err(|_| cut())?;
    let len = usize::try_from(len).map_err(|_| cut())?;
    let (encoded, rest) = part.split_at_checked(len).ok_or_else(cut)?;
    *part = rest;
    Ok((RowId { revision, sub }, encoded))
}
