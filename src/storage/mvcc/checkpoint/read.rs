//! From a checkpoint to the state of the table as it is now.

use std::io;
use std::sync::Arc;

use prost::Message;

use super::{CHECKPOINT_FILE, FORMAT, Footer, Header, record};
use crate::env::Disk;
use crate::storage::mvcc::frame::{self, Kind};
use crate::storage::mvcc::index::{History, Key, Older, SortedKeys};
use crate::storage::mvcc::leases::Leases;
use crate::storage::mvcc::row::RowId;
use crate::storage::mvcc::state::State;
use crate::storage::mvcc::sweep::Sweep;
use crate::storage::mvcc::table::{View, invalid};
use crate::types::Revision;

/// A checkpoint that is whole in itself; whether it fits the table is not known yet.
pub struct Checkpoint {
    header: Header,
    keys: SortedKeys,
    /// Those keys that hang on a lease.
    leases: Vec<(Key, i64)>,
}

/// `None` when there is none.
pub fn read(disk: &dyn Disk) -> io::Result<Option<Checkpoint>> {
    let file = match disk.open(CHECKPOINT_FILE, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut frames = frame::Reader::new(frame::CHECKPOINT, &file)?;
    let (kind, raw) = frames.next()?;
    let header = Header::decode(raw.as_slice()).map_err(invalid)?;
    if kind != Kind::Header || header.format != FORMAT {
        return Err(invalid(format!("its format is {}, this version reads {FORMAT}", header.format)));
    }
    let mut checkpoint = Checkpoint { header, keys: SortedKeys::default(), leases: Vec::new() };
    let mut versions = 0;
    let footer = loop {
        let (kind, raw) = frames.next()?;
        match kind {
            Kind::Keys => versions += checkpoint.take_part(&raw)?,
            Kind::Footer => break Footer::decode(raw.as_slice()).map_err(invalid)?,
            _ => return Err(invalid("the checkpoint has a frame of something else")),
        }
    };
    let counted = Footer { keys: checkpoint.keys.len() as u64, versions };
    if footer != counted || !frames.at_end() {
        return Err(invalid("the checkpoint does not fit its footer"));
    }
    Ok(Some(checkpoint))
}

impl Checkpoint {
    /// Says how many versions the part has.
    fn take_part(&mut self, mut part: &[u8]) -> io::Result<u64> {
        let mut versions = 0;
        while !part.is_empty() {
            let (key, lease, history) = record::take(&mut part)?;
            let in_order = self.keys.last().is_none_or(|last| *last < key);
            if !in_order || history.latest().id.revision > self.header.revision {
                return Err(invalid("a key of the checkpoint is out of place"));
            }
            if lease != 0 {
                self.leases.push((key.clone(), lease));
            }
            versions += 1 + history.older().count() as u64;
            self.keys.push(key, history);
        }
        Ok(versions)
    }

    /// The state of the table, from this and the rows that came later. An error when this
    /// does not belong to the table, or does not lead to it.
    pub fn follow(mut self, view: &Arc<View>) -> io::Result<State> {
        self.check_place(view)?;
        self.sweep(view)?;
        let mut leases = Leases::load(view.meta.lease_clock_ms, view.all_leases()?);
        for (key, lease) in &self.leases {
            leases.attach(key, *lease);
        }
        let index = self.keys.into_index();
        let state = State::continued(view.clone(), index, leases, self.header.revision)?;
        // Each version is a row: whatever went wrong on the way, they would hardly be as many.
        let (versions, rows) = (state.index.size().1, view.row_count()?);
        match versions == rows {
            true => Ok(state),
            false => Err(invalid(format!("it leads to {versions} rows, and the table has {rows}"))),
        }
    }

    /// It is of this table, and everything that happened to the table since can be told.
    fn check_place(&self, view: &View) -> io::Result<()> {
        let (generation, revision) = (self.header.generation, self.header.revision);
        if generation == 0 || generation != view.meta.generation {
            return Err(invalid("it belongs to another table"));
        }
        if revision > view.meta.revision {
            return Err(invalid("it is ahead of the table"));
        }
        let (swept, now) = (self.swept(), view.meta.sweep().reached);
        // A sweep beyond the checkpoint may have taken rows that were never seen here.
        if now < swept || (now > swept && now > RowId::last_of(revision)) {
            return Err(invalid("rows after it were compacted"));
        }
        let last = self.header.last.map(RowId::from).unwrap_or_default();
        let crc = view.row_crc(last)?;
        if crc != Some(self.header.last_crc) {
            return Err(invalid("its last row is not the table's"));
        }
        Ok(())
    }

    fn swept(&self) -> RowId {
        self.header.swept.map(RowId::from).unwrap_or_default()
    }

    /// Forgets what the table's sweeps have removed since.
    fn sweep(&mut self, view: &View) -> io::Result<()> {
        if view.meta.sweep().reached == self.swept() {
            return Ok(());
        }
        let swept = Sweeps { view, sweep: view.meta.sweep(), upto: self.header.revision };
        self.keys.retain(|history| swept.leave(history))
    }
}

/// What sweeps have taken from the table whose rows up to a revision are known.
struct Sweeps<'a> {
    view: &'a View,
    sweep: Sweep,
    upto: Revision,
}

impl Sweeps<'_> {
    /// Leaves of a key what sweeps left; false when that is nothing.
    fn leave(&self, history: &mut History) -> io::Result<bool> {
        let latest = history.latest();
        let older: Vec<Older> = history.older().collect();
        // Most keys have nothing to lose.
        if older.first().map_or(latest.id, Older::id) > self.sweep.reached {
            return Ok(true);
        }
        let mut kept = Vec::with_capacity(older.len());
        for (place, version) in older.iter().enumerate() {
            let next = older.get(place + 1).map_or(latest.id, Older::id);
            let gone = match version.is_live() {
                true => self.sweep.has_taken(version.id(), next),
                false => self.is_tombstone_gone(version.id())?,
            };
            if !gone {
                kept.push(*version);
            }
        }
        *history = History::new(kept, latest);
        let gone = match latest.is_live() {
            true => self.is_latest_gone(latest.id)?,
            false => self.is_tombstone_gone(latest.id)?,
        };
        Ok(!gone)
    }

    /// Where the sweep is, tombstones may have stayed: the table knows.
    fn is_tombstone_gone(&self, id: RowId) -> io::Result<bool> {
        match id.revision == self.sweep.reached.revision {
            true => self.is_missing(id),
            false => Ok(id < self.sweep.reached),
        }
    }

    /// What replaced it, if anything has, is not known here: the table knows.
    fn is_latest_gone(&self, id: RowId) -> io::Result<bool> {
        match self.sweep.has_taken(id, RowId::first_of(self.upto.saturating_add(1))) {
            true => self.is_missing(id),
            false => Ok(false),
        }
    }

    fn is_missing(&self, id: RowId) -> io::Result<bool> {
        Ok(self.view.row_crc(id)?.is_none())
    }
}
