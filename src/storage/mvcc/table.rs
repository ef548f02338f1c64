//! The table: redb on our disk seam.
//!
//! Three redb tables in `state.redb`: the rows, the leases, and one record that says what
//! they are the state of. All change in the same transaction, always. A [`View`] is one read
//! transaction over all.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rand::Rng as _;
use redb::{Database, Durability, OwnedRange, ReadOnlyTable, ReadableDatabase, TableDefinition};
use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::check;
use super::recent::RecentRows;
use super::row::{RowId, RowRef};
use super::sweep::Sweep;
use super::types::{AppliedMembership, AppliedState, KeyValue, Lease};
use crate::env::random::rng;
use crate::env::{Disk, File};
use crate::types::{LogId, Revision};

pub(super) const STATE_FILE: &str = "state.redb";
/// A database in the making. It becomes [`STATE_FILE`] by a rename, once it is whole and
/// on disk; one found on open is what a crash left behind.
pub(super) const NEW_STATE_FILE: &str = "state.redb.new";
/// Of the rows' encoding and of the record beside them.
pub(super) const FORMAT: u32 = 2;
/// Without leases. Read as well, and then written as [`FORMAT`].
const FORMAT_WITHOUT_LEASES: u32 = 1;
/// Pages that redb keeps in memory, in bytes: the upper levels of the tree for tens of
/// millions of rows. The operating system caches the rest; an idle node has a budget of
/// 25 MB in all.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

const ROWS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("rows");
const LEASES: TableDefinition<i64, &[u8]> = TableDefinition::new("leases");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const META_KEY: &str = "state";

pub(super) type RowsWriter<'txn> = redb::Table<'txn, (u64, u32), &'static [u8]>;

/// What a transaction writes to.
pub(super) struct Writer<'txn> {
    pub rows: RowsWriter<'txn>,
    leases: redb::Table<'txn, i64, &'static [u8]>,
}

impl Writer<'_> {
    /// Adds or replaces a lease, or (`None`) removes it.
    pub fn put_lease(&mut self, id: i64, lease: Option<Lease>) -> io::Result<()> {
        match lease {
            Some(lease) => self.leases.insert(id, lease.encode().as_slice()).map_err(redb_error)?,
            None => self.leases.remove(id).map_err(redb_error)?,
        };
        Ok(())
    }
}

pub(super) type RowsRange = OwnedRange<(u64, u32), &'static [u8]>;

/// What the rows are the state of. Also the header of a snapshot.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Meta {
    #[prost(uint32, tag = "1")]
    pub format: u32,
    #[prost(message, optional, tag = "2")]
    applied: Option<StoredLogId>,
    #[prost(message, optional, tag = "3")]
    membership_at: Option<StoredLogId>,
    #[prost(bytes = "bytes", tag = "4")]
    membership: Bytes,
    #[prost(uint64, tag = "5")]
    pub revision: Revision,
    /// Reads below it are refused: the logical compaction.
    #[prost(uint64, tag = "6")]
    pub compacted: Revision,
    /// How far the physical compaction has come: [`Sweep::reached`].
    #[prost(uint64, tag = "7")]
    swept_revision: Revision,
    #[prost(uint32, tag = "8")]
    swept_sub: u32,
    #[prost(uint64, tag = "9")]
    pub lease_clock_ms: u64,
    /// Drawn when the table was made: what else is on disk about these rows names it. 0 in a
    /// snapshot, and in a table that an older version wrote to.
    #[prost(uint64, tag = "10")]
    pub generation: u64,
    /// [`Sweep::began`]
    #[prost(uint64, tag = "11")]
    sweep_began_revision: Revision,
    #[prost(uint32, tag = "12")]
    sweep_began_sub: u32,
    /// [`Sweep::goal`]
    #[prost(uint64, tag = "13")]
    sweep_goal: Revision,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredLogId {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

impl Meta {
    pub fn new(
        applied: &AppliedState,
        revision: Revision,
        compacted: Revision,
        sweep: Sweep,
        lease_clock_ms: u64,
    ) -> Self {
        let stored = |id: LogId| StoredLogId { term: id.term, index: id.index };
        let mut meta = Self {
            format: FORMAT,
            applied: applied.last.map(stored),
            membership_at: applied.membership.at.map(stored),
            membership: applied.membership.bytes.clone(),
            revision,
            compacted,
            lease_clock_ms,
            ..Self::default()
        };
        meta.set_sweep(sweep);
        meta
    }

    /// The same in the table of this generation; 0: in none.
    pub fn in_table(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// The same in a table that is new.
    pub fn in_new_table(self) -> Self {
        self.in_table(rng().next_u64().max(1))
    }

    pub fn applied(&self) -> AppliedState {
        let log_id = |id: StoredLogId| LogId { term: id.term, index: id.index };
        let membership =
            AppliedMembership { at: self.membership_at.map(log_id), bytes: self.membership.clone() };
        AppliedState { last: self.applied.map(log_id), membership }
    }

    pub fn sweep(&self) -> Sweep {
        Sweep {
            began: RowId { revision: self.sweep_began_revision, sub: self.sweep_began_sub },
            reached: RowId { revision: self.swept_revision, sub: self.swept_sub },
            goal: self.sweep_goal,
        }
    }

    pub fn set_sweep(&mut self, Sweep { began, reached, goal }: Sweep) {
        (self.sweep_began_revision, self.sweep_began_sub) = (began.revision, began.sub);
        (self.swept_revision, self.swept_sub) = (reached.revision, reached.sub);
        self.sweep_goal = goal;
    }

    /// Whether compaction has rows left to look at.
    pub fn needs_sweep(&self) -> bool {
        self.sweep().is_behind(self.compacted)
    }

    /// Decodes and refuses what a newer version wrote.
    pub fn read(bytes: &[u8]) -> io::Result<Self> {
        let meta = Self::decode(bytes).map_err(invalid)?;
        if ![FORMAT, FORMAT_WITHOUT_LEASES].contains(&meta.format) {
            let found = meta.format;
            return Err(invalid(format!(
                "the state has format {found}, this version reads {FORMAT}: use the version that wrote it"
            )));
        }
        Ok(meta)
    }
}

pub(super) fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// redb's errors, with an I/O error kept as it was.
pub(super) fn redb_error(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(format!("{STATE_FILE}: {other}")),
    }
}

/// redb's file on our disk.
#[derive(Debug)]
struct Backend(Arc<dyn File>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// The open database. Only the store's worker writes to it.
pub(super) struct Table {
    db: Arc<Database>,
    file: Arc<dyn File>,
    recent: Arc<RecentRows>,
    /// After `db`: a disk may be locked against a second process, and closing writes.
    disk: Arc<dyn Disk>,
}

pub(super) fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

impl Table {
    /// Opens `state.redb`, makes it when there is none, and clears what a crash left.
    /// `recent_bytes`: room for rows that were read lately.
    pub fn open(disk: &Arc<dyn Disk>, recent_bytes: u64) -> io::Result<Self> {
        disk.remove(NEW_STATE_FILE)?;
        if disk.list("")?.iter().any(|name| name == STATE_FILE) {
            let file = disk.open(STATE_FILE, false)?;
            check::whole(file.clone())?;
            let table = Self::on(disk, file, recent_bytes)?;
            table.upgrade()?;
            return Ok(table);
        }
        let table = Self::create_new(disk, recent_bytes)?;
        let empty = Meta::new(&AppliedState::default(), 1, 0, Sweep::default(), 0);
        table.write(|_| Ok((empty.in_new_table(), ())))?;
        table.publish()?;
        Ok(table)
    }

    /// Writes the meta record anew, and the tables that it lacks, if an older version wrote it.
    fn upgrade(&self) -> io::Result<()> {
        let txn = self.db.begin_read().map_err(redb_error)?;
        let meta = read_meta(&txn)?;
        if meta.format == FORMAT && meta.generation != 0 {
            return Ok(());
        }
        self.write(|_| Ok((Meta { format: FORMAT, ..meta }.in_new_table(), ())))
    }

    /// An empty database beside the current one, invisible until [`Table::publish`].
    fn create_new(disk: &Arc<dyn Disk>, recent_bytes: u64) -> io::Result<Self> {
        disk.remove(NEW_STATE_FILE)?;
        Self::on(disk, disk.open(NEW_STATE_FILE, true)?, recent_bytes)
    }

    /// An empty one that is to take this one's place.
    pub fn successor(&self) -> io::Result<Self> {
        Self::create_new(&self.disk, self.recent.room())
    }

    /// Puts a new database, once it is committed, in the old one's place.
    pub fn publish(&self) -> io::Result<()> {
        self.disk.rename(NEW_STATE_FILE, STATE_FILE)?;
        self.disk.sync_dir("")
    }

    fn on(disk: &Arc<dyn Disk>, file: Arc<dyn File>, recent_bytes: u64) -> io::Result<Self> {
        let db = builder(CACHE_BYTES).create_with_backend(Backend(file.clone()));
        let (db, recent) = (Arc::new(db.map_err(redb_error)?), Arc::new(RecentRows::new(recent_bytes)));
        Ok(Self { db, file, recent, disk: disk.clone() })
    }

    /// Lets the row be read from the table again.
    pub fn forget_recent(&self, id: RowId) {
        self.recent.remove(id);
    }

    /// One transaction: the rows that `work` changes and the meta it returns, on disk when
    /// this returns. Nothing of it when it fails.
    pub fn write<T>(&self, work: impl FnOnce(&mut Writer<'_>) -> io::Result<(Meta, T)>) -> io::Result<T> {
        let mut txn = self.db.begin_write().map_err(redb_error)?;
        txn.set_durability(Durability::Immediate).map_err(redb_error)?;
        // Opening after a crash is then instant, whatever the size of the file.
        txn.set_quick_repair(true);
        let rows = txn.open_table(ROWS).map_err(redb_error)?;
        let leases = txn.open_table(LEASES).map_err(redb_error)?;
        let mut writer = Writer { rows, leases };
        let (meta, result) = work(&mut writer)?;
        drop(writer);
        let mut record = txn.open_table(META).map_err(redb_error)?;
        record.insert(META_KEY, meta.encode_to_vec().as_slice()).map_err(redb_error)?;
        drop(record);
        txn.commit().map_err(redb_error)?;
        Ok(result)
    }

    pub fn view(&self) -> io::Result<View> {
        let txn = self.db.begin_read().map_err(redb_error)?;
        let meta = read_meta(&txn)?;
        let rows = txn.open_table(ROWS).map_err(redb_error)?;
        let leases = txn.open_table(LEASES).map_err(redb_error)?;
        let (recent, file) = (self.recent.clone(), self.file.clone());
        Ok(View { rows, leases, meta, recent, file, _db: self.db.clone(), _disk: self.disk.clone() })
    }
}

fn read_meta(txn: &redb::ReadTransaction) -> io::Result<Meta> {
    let record = txn.open_table(META).map_err(redb_error)?;
    let meta = record.get(META_KEY).map_err(redb_error)?;
    Meta::read(meta.ok_or_else(|| invalid("state.redb lacks its meta record"))?.value())
}

/// One consistent state of the table. It lasts: old pages are kept while it lives, and
/// the database stays open even after another took its place.
pub(super) struct View {
    rows: ReadOnlyTable<(u64, u32), &'static [u8]>,
    leases: ReadOnlyTable<i64, &'static [u8]>,
    pub meta: Meta,
    recent: Arc<RecentRows>,
    file: Arc<dyn File>,
    /// After `rows`: the transaction ends before its database is closed, and that before
    /// the disk is let go.
    _db: Arc<Database>,
    _disk: Arc<dyn Disk>,
}

impl View {
    /// Reads one row, which must be there: index and view are kept in step.
    pub fn row<T>(&self, id: RowId, read: impl FnOnce(RowRef<'_>) -> T) -> io::Result<T> {
        let encoded = self.rows.get(id.to_key()).map_err(redb_error)?;
        let encoded = encoded.ok_or_else(|| {
            invalid(format!("{STATE_FILE} lacks row {}.{}, which the index names", id.revision, id.sub))
        })?;
        Ok(read(RowRef::decode(encoded.value())?))
    }

    /// What one row says of its key, as readers are shown it.
    pub fn key_value(&self, id: RowId) -> io::Result<KeyValue> {
        if let Some(row) = self.recent.get(id) {
            return Ok(row);
        }
        let row = self.row(id, |row| row.to_key_value(id))?;
        self.recent.add(id, row.clone());
        Ok(row)
    }

    /// Encoded rows from `start` to `end`, both included, in order (or, by `rev`, backwards).
    pub fn rows_between(&self, start: RowId, end: RowId) -> io::Result<RowsRange> {
        self.rows.range_owned(start.to_key()..=end.to_key()).map_err(redb_error)
    }

    pub fn all_rows(&self) -> io::Result<RowsRange> {
        self.rows_between(RowId::default(), RowId::last_of(Revision::MAX))
    }

    /// In order of their ids.
    pub fn all_leases(&self) -> io::Result<Vec<(i64, Lease)>> {
        let leases = self.leases.iter().map_err(redb_error)?;
        let read = leases.map(|entry| {
            let (id, encoded) = entry.map_err(redb_error)?;
            Ok((id.value(), Lease::decode(encoded.value())?))
        });
        read.collect()
    }

    /// How many rows there are. The table knows it without counting.
    pub fn row_count(&self) -> io::Result<u64> {
        self.rows.len().map_err(redb_error)
    }

    /// The CRC32C of a row's encoding; `None` when there is no such row.
    pub fn row_crc(&self, id: RowId) -> io::Result<Option<u32>> {
        let encoded = self.rows.get(id.to_key()).map_err(redb_error)?;
        Ok(encoded.map(|encoded| crc32c::crc32c(encoded.value())))
    }

    /// The last row, and the CRC32C of its encoding.
    pub fn last_row(&self) -> io::Result<Option<(RowId, u32)>> {
        let last = self.rows.last().map_err(redb_error)?;
        Ok(last.map(|(id, encoded)| (RowId::from_key(id.value()), crc32c::crc32c(encoded.value()))))
    }

    pub fn disk_bytes(&self) -> io::Result<u64> {
        self.file.len()
    }
}
