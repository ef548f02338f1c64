//! Making a snapshot.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::env::planted::{Bug, is_planted};
use crate::storage::mvcc::frame::{self, Footer, Kind};
use crate::storage::mvcc::row::RowId;
use crate::storage::mvcc::table::{RowsRange, View, redb_error};
use crate::storage::mvcc::types::{AppliedState, Lease};

/// A part is closed when it has this many raw bytes: long enough to compress well, short
/// enough to be one message.
const PART_BYTES: usize = 256 * 1024;

/// A consistent image of the store, streamed while writes go on. It is the table as of
/// its last flush, held by one read transaction for as long as this value lives.
pub struct SnapshotImage {
    applied: AppliedState,
    stage: Stage,
    leases: std::vec::IntoIter<(i64, Lease)>,
    lease_count: u64,
    rows: RowsRange,
    row_count: u64,
    hasher: blake3::Hasher,
    /// After `rows`, which read from it.
    view: Arc<View>,
}

enum Stage {
    Header,
    /// Leases, if there are any, then rows.
    Parts,
    Done,
}

impl SnapshotImage {
    pub(in crate::storage::mvcc) fn new(view: Arc<View>) -> io::Result<Self> {
        Ok(Self {
            applied: view.meta.applied(),
            stage: Stage::Header,
            leases: view.all_leases()?.into_iter(),
            lease_count: 0,
            rows: view.all_rows()?,
            row_count: 0,
            hasher: blake3::Hasher::new(),
            view,
        })
    }

    /// What the image contains.
    pub fn applied(&self) -> &AppliedState {
        &self.applied
    }

    /// The next part of the encoded image; `None` at its end.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = BytesMut::new();
        match self.stage {
            Stage::Header => {
                // The receiver's table is another one.
                let raw = self.view.meta.clone().in_table(0).encode_to_vec();
                self.hasher.update(&raw);
                chunk.extend_from_slice(frame::SNAPSHOT.magic);
                frame::write(Kind::Header, &raw, &mut chunk)?;
                self.stage = Stage::Parts;
            }
            Stage::Parts if self.leases.len() > 0 => {
                frame::write(Kind::Leases, &self.next_leases(), &mut chunk)?;
            }
            Stage::Parts => match self.next_part()? {
                Some(raw) => frame::write(Kind::Rows, &raw, &mut chunk)?,
                None => {
                    frame::write(Kind::Footer, &self.footer().encode_to_vec(), &mut chunk)?;
                    self.stage = Stage::Done;
                }
            },
            Stage::Done => return Ok(None),
        }
        Ok(Some(chunk.freeze()))
    }

    fn next_leases(&mut self) -> Vec<u8> {
        let mut raw = Vec::new();
        while raw.len() < PART_BYTES {
            let Some((id, lease)) = self.leases.next() else { break };
            frame::put_lease(id, lease, &mut raw);
            self.lease_count += 1;
        }
        self.hasher.update(&raw);
        raw
    }

    fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut raw = Vec::new();
        while raw.len() < PART_BYTES {
            let Some(entry) = self.rows.next() else { break };
            let (id, encoded) = entry.map_err(redb_error)?;
            let id = RowId::from_key(id.value());
            if is_planted(Bug::SnapshotLacksTheLast) && id.revision == self.view.meta.revision {
                continue;
            }
            frame::put_row(id, encoded.value(), &mut raw);
            self.row_count += 1;
        }
        self.hasher.update(&raw);
        Ok((!raw.is_empty()).then_some(raw))
    }

    fn footer(&self) -> Footer {
        let hash = Bytes::copy_from_slice(self.hasher.finalize().as_bytes());
        Footer { rows: self.row_count, hash, leases: self.lease_count }
    }
}
