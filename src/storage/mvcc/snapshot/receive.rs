//! Receiving a snapshot.

use std::io;
use std::sync::Arc;

use prost::Message;

use super::frame::{self, Footer, Kind};
use crate::env::{Disk, File};
use crate::storage::mvcc::row::{RowId, RowRef};
use crate::storage::mvcc::table::{Meta, RowsWriter, invalid, redb_error};
use crate::storage::mvcc::types::AppliedState;

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
        let meta = for_each_row(&self.file, |_, encoded| RowRef::decode(encoded).map(drop))?;
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
    /// Inserts all rows; checks everything once more on the way.
    pub(in crate::storage::mvcc) fn copy_rows(&self, rows: &mut RowsWriter<'_>) -> io::Result<Meta> {
        for_each_row(&self.file, |id, encoded| {
            rows.insert(id.to_key(), encoded).map_err(redb_error)?;
            Ok(())
        })
    }
}

/// Walks through a whole stream. Refuses anything but a header, parts with rows in
/// order, and the footer that fits them.
fn for_each_row(
    file: &Arc<dyn File>,
    mut each: impl FnMut(RowId, &[u8]) -> io::Result<()>,
) -> io::Result<Meta> {
    let mut frames = frame::Reader::new(file)?;
    let mut hasher = blake3::Hasher::new();
    let (kind, raw) = frames.next()?;
    if kind != Kind::Header {
        return Err(invalid("the snapshot does not begin with its header"));
    }
    let meta = Meta::read(&raw)?;
    hasher.update(&raw);
    let mut last = RowId::default();
    let mut count = 0;
    let footer = loop {
        let (kind, raw) = frames.next()?;
        match kind {
            Kind::Header => return Err(invalid("the snapshot has a second header")),
            Kind::Footer => break Footer::decode(raw.as_slice()).map_err(invalid)?,
            Kind::Rows => hasher.update(&raw),
        };
        let mut part = raw.as_slice();
        while !part.is_empty() {
            let (id, encoded) = frame::take_row(&mut part)?;
            if id <= last || id.revision > meta.revision {
                return Err(invalid(format!(
                    "row {}.{} of the snapshot is out of place",
                    id.revision, id.sub
                )));
            }
            each(id, encoded)?;
            (last, count) = (id, count + 1);
        }
    };
    let whole = footer.rows == count && footer.hash[..] == hasher.finalize().as_bytes()[..];
    if !whole || !frames.at_end() {
        return Err(invalid("the snapshot does not fit its footer"));
    }
    Ok(meta)
}
