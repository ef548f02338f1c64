//! One key of a checkpoint.

use std::io;

use prost::encoding::{decode_varint, encode_varint};

use crate::storage::mvcc::index::{History, Key, Latest, Older};
use crate::storage::mvcc::row::RowId;
use crate::storage::mvcc::table::invalid;

/// Appends a key, its lease (0: none) and its versions: the older ones, oldest first, and the
/// newest.
pub(super) fn put(key: &[u8], lease: i64, older: &[Older], latest: Latest, part: &mut Vec<u8>) {
    encode_varint(key.len() as u64, part);
    part.extend_from_slice(key);
    encode_varint(lease.cast_unsigned(), part);
    encode_varint(older.len() as u64, part);
    let mut before = 0;
    for version in older {
        let RowId { revision, sub } = version.id();
        encode_varint(revision - before, part);
        encode_varint(u64::from(sub) << 1 | u64::from(version.is_live()), part);
        before = revision;
    }
    encode_varint(latest.id.revision - before, part);
    encode_varint(latest.id.sub.into(), part);
    encode_varint(latest.version, part);
    if latest.is_live() {
        encode_varint(latest.id.revision - latest.create_revision, part);
    }
}

/// Versions of a key that room is made for before they are seen.
const MOST_AT_ONCE: u64 = 1024;

/// A key, its lease and its versions, from the front of a part.
pub(super) fn take(part: &mut &[u8]) -> io::Result<(Key, i64, History)> {
    let cut = || invalid("a part of the checkpoint ends inside a key");
    let key_len = decode_varint(part).ok().and_then(|len| usize::try_from(len).ok()).ok_or_else(cut)?;
    let (key, rest) = part.split_at_checked(key_len).ok_or_else(cut)?;
    *part = rest;
    let mut number = || decode_varint(part).map_err(|_| cut());
    let (lease, count) = (number()?.cast_signed(), number()?);
    // With room for versions that came after the checkpoint: without it, nearly every history
    // moves for them. The count may be damage, so room for many is made as they come.
    let room = count.min(MOST_AT_ONCE) as usize;
    let mut older = Vec::with_capacity(room + room / 4);
    let mut revision = 0_u64;
    for _ in 0..count {
        revision = revision.checked_add(number()?).ok_or_else(cut)?;
        let tagged = number()?;
        let sub = u32::try_from(tagged >> 1).map_err(|_| cut())?;
        older.push(Older::new(RowId { revision, sub }, tagged & 1 == 1));
    }
    revision = revision.checked_add(number()?).ok_or_else(cut)?;
    let id = RowId { revision, sub: u32::try_from(number()?).map_err(|_| cut())? };
    let version = number()?;
    let create_revision = match version {
        0 => 0,
        _ => revision.checked_sub(number()?).ok_or_else(cut)?,
    };
    let ordered = older.is_sorted_by(|one, next| one.id() < next.id());
    if !ordered || older.last().is_some_and(|last| last.id() >= id) {
        return Err(invalid("a key's versions in the checkpoint are out of order"));
    }
    Ok((Key::from(key), lease, History::new(older, Latest { id, create_revision, version })))
}
