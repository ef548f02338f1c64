//! One row: one change of one key, and how it is written.
//!
//! The encoding is canonical (one row has one encoding), so the same bytes serve the
//! table, the snapshot and the state hash. `docs/format.md` has the layout.

use std::io;

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use super::types::{Change, HistoryRow, KeyValue};
use crate::types::Revision;

/// Where a row stands in history: a revision, and its number among the changes that
/// one command made at that revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowId {
    pub revision: Revision,
    pub sub: u32,
}

impl RowId {
    pub fn first_of(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }

    pub fn last_of(revision: Revision) -> Self {
        Self { revision, sub: u32::MAX }
    }

    pub fn from_key((revision, sub): (u64, u32)) -> Self {
        Self { revision, sub }
    }

    pub fn to_key(self) -> (u64, u32) {
        (self.revision, self.sub)
    }
}

/// A row that owns its bytes, as the tail keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The version this one replaces; `None` when it creates the key. It names the row
    /// that compaction may forget once this one is compacted too.
    pub previous: Option<RowId>,
    pub key: Bytes,
    /// 0 in a tombstone.
    pub create_revision: Revision,
    /// 0 in a tombstone, which is what makes it one.
    pub version: u64,
    pub lease: i64,
    pub value: Bytes,
}

impl Row {
    pub fn tombstone(key: Bytes, previous: RowId) -> Self {
        let (create_revision, version, lease) = (0, 0, 0);
        Self { previous: Some(previous), key, create_revision, version, lease, value: Bytes::new() }
    }

    pub fn as_ref(&self) -> RowRef<'_> {
        RowRef {
            previous: self.previous,
            key: &self.key,
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            value: &self.value,
        }
    }

    pub fn to_key_value(&self, id: RowId) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: id.revision,
            version: self.version,
            lease: self.lease,
        }
    }

    pub fn to_change(&self, id: RowId) -> Change {
        if self.version == 0 {
            Change::Delete { key: self.key.clone(), revision: id.revision }
        } else {
            Change::Put(self.to_key_value(id))
        }
    }

    pub fn to_history(&self, id: RowId) -> HistoryRow {
        HistoryRow { change: self.to_change(id), replaced: self.previous }
    }
}

/// A row that borrows from its encoding.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRef<'a> {
    pub previous: Option<RowId>,
    pub key: &'a [u8],
    pub create_revision: Revision,
    pub version: u64,
    pub lease: i64,
    pub value: &'a [u8],
}

impl<'a> RowRef<'a> {
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // No row is at revision 0, so that it can stand for "none".
        let previous = self.previous.unwrap_or_default();
        encode_varint(previous.revision, out);
        encode_varint(previous.sub.into(), out);
        encode_varint(self.create_revision, out);
        encode_varint(self.version, out);
        encode_varint(self.lease.cast_unsigned(), out);
        encode_varint(self.key.len() as u64, out);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }

    pub fn decode(encoded: &'a [u8]) -> io::Result<Self> {
        let mut rest = encoded;
        let mut number = || decode_varint(&mut rest).map_err(|_| damaged());
        let previous = RowId { revision: number()?, sub: u32::try_from(number()?).map_err(|_| damaged())? };
        let (create_revision, version, lease) = (number()?, number()?, number()?.cast_signed());
        let key_len = usize::try_from(number()?).map_err(|_| damaged())?;
        let (key, value) = rest.split_at_checked(key_len).ok_or_else(damaged)?;
        let previous = (previous.revision > 0).then_some(previous);
        Ok(Self { previous, key, create_revision, version, lease, value })
    }

    /// Key and value share one allocation.
    pub fn to_key_value(self, id: RowId) -> KeyValue {
        let both = Bytes::from([self.key, self.value].concat());
        KeyValue {
            key: both.slice(..self.key.len()),
            value: both.slice(self.key.len()..),
            create_revision: self.create_revision,
            mod_revision: id.revision,
            version: self.version,
            lease: self.lease,
        }
    }

    pub fn to_row(self) -> Row {
        Row {
            previous: self.previous,
            key: Bytes::copy_from_slice(self.key),
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            value: Bytes::copy_from_slice(self.value),
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a row of the state table cannot be decoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_reads_back_as_written(
            previous in proptest::option::of((1u64.., any::<u32>())),
            numbers in any::<(u64, u64, i64)>(),
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let row = Row {
                previous: previous.map(RowId::from_key),
                key: key.into(),
                create_revision: numbers.0,
                version: numbers.1,
                lease: numbers.2,
                value: value.into(),
            };
            let mut encoded = Vec::new();
            row.as_ref().encode(&mut encoded);
            prop_assert_eq!(RowRef::decode(&encoded).expect("decodes").to_row(), row);
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = RowRef::decode(&bytes);
        }
    }
}
