//! Making a checkpoint.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::{CHECKPOINT_FILE, FORMAT, Footer, Header, NEW_CHECKPOINT_FILE, record};
use crate::env::{Disk, File};
use crate::storage::mvcc::frame::{self, Kind};
use crate::storage::mvcc::index::{History, Latest, Older};
use crate::storage::mvcc::state::{Shared, State};
use crate::storage::mvcc::table::View;
use crate::types::Revision;

/// A part is closed when it has this many raw bytes: a step's work, a few milliseconds.
const PART_BYTES: usize = 256 * 1024;
/// Keys, and versions, read under one lock of the state: a fraction of a millisecond, in
/// which no entry is applied.
const KEYS_A_LOCK: usize = 500;
const VERSIONS_A_LOCK: usize = 5_000;

/// A checkpoint in the making.
pub struct Writing {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    written: u64,
    /// The rows that it is of.
    upto: Revision,
    /// The last key that was looked at.
    cursor: Option<Bytes>,
    footer: Footer,
}

/// A key as it was at the checkpoint's revision.
struct Found {
    key: Bytes,
    older: Vec<Older>,
    newest: Newest,
}

enum Newest {
    /// With the key's lease.
    Known(Latest, i64),
    /// The key has a newer version by now; the table knows the rest of the one before.
    InTable(Older),
}

#[derive(Default)]
struct LookedAt {
    found: Vec<Found>,
    /// The last key; `None` when there are no more.
    last: Option<Bytes>,
}

impl Writing {
    /// Begins one of the rows that the view has; `None` when it has none.
    pub fn begin(disk: &Arc<dyn Disk>, view: &View) -> io::Result<Option<Self>> {
        let Some((last, last_crc)) = view.last_row()? else { return Ok(None) };
        disk.remove(NEW_CHECKPOINT_FILE)?;
        let file = disk.open(NEW_CHECKPOINT_FILE, true)?;
        let upto = view.meta.revision;
        let header = Header {
            format: FORMAT,
            generation: view.meta.generation,
            revision: upto,
            swept: Some(view.meta.sweep().reached.into()),
            last: Some(last.into()),
            last_crc,
        };
        let (written, cursor, footer) = (0, None, Footer::default());
        let mut writing = Self { disk: disk.clone(), file, written, upto, cursor, footer };
        let mut start = BytesMut::from(&frame::CHECKPOINT.magic[..]);
        frame::write(Kind::Header, &header.encode_to_vec(), &mut start)?;
        writing.write(&start)?;
        Ok(Some(writing))
    }

    /// Writes the next part; true when there is nothing left, and the checkpoint is in its
    /// place.
    pub fn step(&mut self, shared: &Shared) -> io::Result<bool> {
        let mut part = Vec::new();
        while part.len() < PART_BYTES {
            let (looked_at, view) = {
                let state = shared.state.read();
                (self.look_at_some(&state), state.view.clone())
            };
            for found in looked_at.found {
                self.put(found, &view, &mut part)?;
            }
            match looked_at.last {
                Some(key) => self.cursor = Some(key),
                None => {
                    self.write_part(&part)?;
                    self.finish()?;
                    return Ok(true);
                }
            }
        }
        self.write_part(&part)?;
        Ok(false)
    }

    /// The next keys, as they were at the checkpoint's revision.
    fn look_at_some(&self, state: &State) -> LookedAt {
        let mut looked_at = LookedAt::default();
        let (mut versions, mut last) = (0, None);
        for (key, history) in state.index.after(self.cursor.as_deref()).take(KEYS_A_LOCK) {
            last = Some(key);
            if let Some(found) = self.find(state, key, history) {
                versions += found.older.len();
                looked_at.found.push(found);
            }
            if versions >= VERSIONS_A_LOCK {
                break;
            }
        }
        looked_at.last = last.map(Bytes::copy_from_slice);
        looked_at
    }

    /// `None` when all of the key's versions are newer.
    fn find(&self, state: &State, key: &[u8], history: &History) -> Option<Found> {
        let latest = history.latest();
        let mut older: Vec<Older> =
            history.older().take_while(|version| version.id().revision <= self.upto).collect();
        let newest = match latest.id.revision <= self.upto {
            true => Newest::Known(latest, state.leases.of_key(key)),
            false => Newest::InTable(older.pop()?),
        };
        Some(Found { key: Bytes::copy_from_slice(key), older, newest })
    }

    fn put(&mut self, found: Found, view: &View, part: &mut Vec<u8>) -> io::Result<()> {
        let Found { key, older, newest } = found;
        let (latest, lease) = match newest {
            Newest::Known(latest, lease) => (latest, lease),
            Newest::InTable(version) if version.is_live() => {
                let id = version.id();
                view.row(id, |row| (Latest::of(id, &row), row.lease))?
            }
            Newest::InTable(version) => (Latest { id: version.id(), create_revision: 0, version: 0 }, 0),
        };
        self.footer.keys += 1;
        self.footer.versions += 1 + older.len() as u64;
        record::put(&key, lease, &older, latest, part);
        Ok(())
    }

    fn write_part(&mut self, part: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::new();
        if !part.is_empty() {
            frame::write(Kind::Keys, part, &mut frame)?;
        }
        self.write(&frame)
    }

    /// On disk when it returns: many small syncs, for after one of everything the log's next
    /// would wait.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_synced(self.written, bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut frame = BytesMut::new();
        frame::write(Kind::Footer, &self.footer.encode_to_vec(), &mut frame)?;
        self.write(&frame)?;
        self.disk.rename(NEW_CHECKPOINT_FILE, CHECKPOINT_FILE)?;
        self.disk.sync_dir("")
    }
}
