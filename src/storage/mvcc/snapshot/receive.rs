//! Receiving a snapshot.

use std::io;
use std::sync::Arc;

use prost::Message;

use crate::env::{Disk, File};
use crate::storage::mvcc::frame::{self, Footer, Kind};
use crate::storage::mvcc::row::{RowId, RowRef};
use crate::storage::mvcc::table::{Meta, Writer, invalid, redb_error};
use crate::storage::mvcc::types::{AppliedState, Lease};

/// Where a snapshot is written as it arrives. Of no use after a restart: it is sent anew.
pub(in crate::storage::mvcc) const INCOMING_FILE: &str = "snapshot.incoming";

/// An image being received: written to disk as it comes, checked, then installed.
pub struct SnapshotWriter {
    file: Arc<dyn File>,
    written: u64,
}

impl SnapshotWriter {
    /// A new file, also when an earlier writer still has the old one: that one's name is gone.
    pub(in crate::storage::mvcc) fn new(disk: &dyn Disk) -> io::Result<Self> {
        disk.remove(INCOMING_FILE)?;
        Ok(Self { file: disk.open(INCOMING_FILE, true)?, written: 0 })
    }

    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_at(self.written, chunk)?;
        self.written += chunk.len() as u64;
        Ok(())
    }

    /// Everything arrived: checks it and makes it durable, not yet visible.
    pub fn finish(self) -> io::Result<ReceivedSnapshot> {
        let meta = for_each(&self.file, |item| match item {
            Item::Row(_, encoded) => RowRef::decode(encoded).map(drop),
            Item::Lease(..) => Ok(()),
        })?;
        self.file.sync()?;
        Ok(ReceivedSnapshot { applied: meta.applied(), file: self.file })
    }
}

/// A complete, checked image on disk, ready for [`Store::install`](super::super::Store::install).
pub struct ReceivedSnapshot {
    pub applied: AppliedState,
    file: Arc<dyn File>,
}

impl ReceivedSnapshot {
    /// Inserts everything; checks it once more on the way.
    pub(in crate::storage::mvcc) fn copy_into(&self, writer: &mut Writer<'_>) -> io::Result<Meta> {
        for_each(&self.file, |item| match item {
            Item::Row(id, encoded) => {
                writer.rows.insert(id.to_key(), encoded).map_err(redb_error)?;
                Ok(())
            }
            Item::Lease(id, lease) => writer.put_lease(id, Some(lease)),
        })
    }
}

enum Item<'a> {
    Row(RowId, &'a [u8]),
    Lease(i64, Lease),
}

/// Walks through a whole stream. Refuses anything but a header, parts with leases, parts
/// with rows in order, and the footer that fits them.
fn for_each(file: &Arc<dyn File>, mut each: impl FnMut(Item<'_>) -> io::Result<()>) -> io::Result<Meta> {
    let mut frames = frame::Reader::new(frame::SNAPSHOT, file)?;
    let mut hasher = blake3::Hasher::new();
    let (kind, raw) = frames.next()?;
    if kind != Kind::Header {
        return Err(invalid("the snapshot does not begin with its header"));
    }
    let meta = Meta::read(&raw)?;
    hasher.update(&raw);
    let mut last = RowId::default();
    let (mut rows, mut leases) = (0, 0);
    let footer = loop {
        let (kind, raw) = frames.next()?;
        let mut part = raw.as_slice();
        match kind {
            Kind::Header => return Err(invalid("the snapshot has a second header")),
            Kind::Keys => return Err(invalid("the snapshot has a frame of a checkpoint")),
            Kind::Footer => break Footer::decode(raw.as_slice()).map_err(invalid)?,
            Kind::Rows | Kind::Leases => hasher.update(&raw),
        };
        while kind == Kind::Leases && !part.is_empty() {
            let (id, lease) = frame::take_lease(&mut part)?;
            each(Item::Lease(id, lease))?;
            leases += 1;
        }
        while !part.is_empty() {
            let (id, encoded) = frame::take_row(&mut part)?;
            if id <= last || id.revision > meta.revision {
                return Err(invalid(format!(
                    "row {}.{} of the snapshot is out of place",
                    id.revision, id.sub
                )));
            }
            each(Item::Row(id, encoded))?;
            (last, rows) = (id, rows + 1);
        }
    };
    let counted = footer.rows == rows && footer.leases == leases;
    if !counted || footer.hash[..] != hasher.finalize().as_bytes()[..] || !frames.at_end() {
        return Err(invalid("the snapshot does not fit its footer"));
    }
    Ok(meta)
}
