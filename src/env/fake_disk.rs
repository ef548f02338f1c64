//! A disk in memory that loses power, lies, fails, fills up and rots on demand.
//!
//! It keeps two images of every file: what the process sees, and what would be left
//! after a power cut. A sync carries writes from the first to the second; a directory
//! sync does the same for names. [`FakeDisk::crash`] drops what was in between, wholly
//! or partly, and tears the last write that it keeps. Everything is a function of the
//! calls and of the generator handed to `crash`, so one seed replays one history.
//!
//! It does not model reordering between two un-synced writes of one file beyond a torn
//! last one, nor the loss of data that was synced.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::{Rng, RngExt};

use super::{Disk, File};

/// What a disk writes in one piece: a torn write keeps whole sectors or a prefix.
const SECTOR_BYTES: u64 = 512;

/// What happened to a [`FakeDisk`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Calls that could change what is on disk: writes, lengths, syncs, names.
    pub operations: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub syncs: u64,
    pub crashes: u64,
    /// Un-synced writes that a crash dropped.
    pub lost_writes: u64,
    pub torn_writes: u64,
    /// Calls on handles from before a crash, or after [`FakeDisk::stop_after`].
    pub refused: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Len(len) => image.resize(*len as usize, 0),
            Change::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*offset as usize..end].copy_from_slice(bytes);
            }
        }
    }

    /// Applies a part of a write: a prefix, or some of its sectors.
    fn apply_torn(&self, image: &mut Vec<u8>, rng: &mut impl Rng) {
        let Change::Write(offset, bytes) = self else { return };
        if rng.random_bool(0.5) {
            let keep = rng.random_range(0..=bytes.len());
            return Change::Write(*offset, bytes[..keep].to_vec()).apply(image);
        }
        let mut at = 0;
        while at < bytes.len() {
            let to_boundary = SECTOR_BYTES - (offset + at as u64) % SECTOR_BYTES;
            let end = bytes.len().min(at + to_boundary as usize);
            if rng.random_bool(0.5) {
                Change::Write(offset + at as u64, bytes[at..end].to_vec()).apply(image);
            }
            at = end;
        }
    }
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Applied to `seen` and not yet to `durable`, in order.
    pending: Vec<Change>,
}

type SharedInode = Arc<Mutex<Inode>>;
type Names = BTreeMap<String, SharedInode>;

enum NameChange {
    Link(String, SharedInode),
    Unlink(String),
    Rename(String, String),
}

impl NameChange {
    fn directory(&self) -> &str {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path) => {
                split(path).0
            }
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), inode.clone());
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[derive(Default)]
struct State {
    /// Raised by every crash; handles remember theirs.
    life: u64,
    names: Names,
    durable_names: Names,
    pending_names: Vec<NameChange>,
    /// Operations that still succeed before the power is gone.
    operations_left: Option<u64>,
    capacity: Option<u64>,
    fail_syncs: bool,
    fail_next_sync: bool,
    ignore_syncs: bool,
    stats: DiskStats,
}

impl State {
    fn check_life(&mut self, life: u64) -> io::Result<()> {
        if self.life == life && self.operations_left != Some(0) {
            return Ok(());
        }
        self.stats.refused += 1;
        Err(io::Error::other("the power is gone"))
    }

    /// Counts a call that changes something.
    fn check_change(&mut self, life: u64) -> io::Result<()> {
        self.check_life(life)?;
        self.stats.operations += 1;
        if let Some(left) = &mut self.operations_left {
            *left -= 1;
        }
        Ok(())
    }

    fn check_sync(&mut self, life: u64) -> io::Result<()> {
        self.check_change(life)?;
        self.stats.syncs += 1;
        if self.fail_syncs {
            return Err(io::Error::other("the disk failed to sync"));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| inode.lock().seen.len() as u64).sum()
    }

    fn room(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }
}

/// See the module's documentation. Clones share one disk.
#[derive(Clone, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
    /// The life to which this handle is bound; `None`: whichever is the present one.
    life: Option<u64>,
}

impl fmt::Debug for FakeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let names: Vec<&String> = state.names.keys().collect();
        f.debug_struct("FakeDisk").field("names", &names).field("stats", &state.stats).finish()
    }
}

impl FakeDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that a crash makes useless, as it does a process: what still runs of an
    /// old store can't reach the disk of a new one.
    pub fn boot(&self) -> Self {
        Self { life: Some(self.state.lock().life), ..self.clone() }
    }

    /// Ends the process, not the power: whatever it wrote stays, synced or not, and a
    /// power cut may still take it.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.operations_left = None;
    }

    /// Cuts the power: every file keeps its synced bytes and a random part of the rest,
    /// every directory its synced names and a random prefix of the later changes. Open
    /// handles fail from now on. Call it before the node's tasks are dropped, so that
    /// nothing can be written on the way out.
    pub fn crash(&self, rng: &mut impl Rng) {
        let mut state = self.state.lock();
        state.life += 1;
        state.operations_left = None;
        state.stats.crashes += 1;
        let changes = std::mem::take(&mut state.pending_names);
        let keep = rng.random_range(0..=changes.len());
        for change in &changes[..keep] {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let inodes: Vec<SharedInode> = state.names.values().cloned().collect();
        for inode in inodes {
            settle(&mut inode.lock(), &mut state.stats, rng);
        }
    }

    /// Lets `operations` more calls change the disk; then every call fails, as if the
    /// power were gone, until [`FakeDisk::crash`].
    pub fn stop_after(&self, operations: u64) {
        self.state.lock().operations_left = Some(operations);
    }

    /// Whether the limit of [`FakeDisk::stop_after`] was reached.
    pub fn stopped(&self) -> bool {
        self.state.lock().operations_left == Some(0)
    }

    /// Flips the bits of `mask` in one byte, behind everybody's back.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) -> io::Result<()> {
        let state = self.state.lock();
        let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let mut inode = inode.lock();
        let offset = offset as usize;
        *inode.seen.get_mut(offset).ok_or(io::ErrorKind::UnexpectedEof)? ^= mask;
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= mask;
        }
        Ok(())
    }

    /// Writes that would make the files larger than `bytes` in sum fail, and leave as much
    /// as there was room for.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Syncs report an error and make nothing durable.
    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().fail_syncs = fail;
    }

    /// The next sync of a file reports an error, and what it was to carry will never reach
    /// the disk, though it can be read until then and later syncs succeed: what kernels do.
    pub fn fail_next_sync(&self) {
        self.state.lock().fail_next_sync = true;
    }

    /// Syncs report success and make nothing durable: what a test of durability must
    /// notice.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.state.lock().ignore_syncs = ignore;
    }

    pub fn stats(&self) -> DiskStats {
        self.state.lock().stats
    }

    /// The bytes of a file as a process sees them.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        self.state.lock().names.get(path).map(|inode| inode.lock().seen.clone())
    }
}

/// Decides what a crash leaves of one file.
fn settle(inode: &mut Inode, stats: &mut DiskStats, rng: &mut impl Rng) {
    let pending = std::mem::take(&mut inode.pending);
    let keep = rng.random_range(0..=pending.len());
    stats.lost_writes += (pending.len() - keep) as u64;
    for (position, change) in pending[..keep].iter().enumerate() {
        if position + 1 == keep && rng.random_bool(0.5) {
            stats.torn_writes += 1;
            change.apply_torn(&mut inode.durable, rng);
        } else {
            change.apply(&mut inode.durable);
        }
    }
    inode.seen = inode.durable.clone();
}

struct FakeFile {
    disk: FakeDisk,
    life: u64,
    inode: SharedInode,
}

impl fmt::Debug for FakeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeFile").field("life", &self.life).finish_non_exhaustive()
    }
}

impl FakeFile {
    fn change(&self, change: Change, end: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check_change(self.life)?;
        let len = self.inode.lock().seen.len() as u64;
        let room = state.room();
        if room.is_none_or(|room| end.saturating_sub(len) <= room) {
            self.put(change);
            return Ok(());
        }
        if let Change::Write(offset, mut bytes) = change {
            let end = len + room.unwrap_or_default();
            bytes.truncate(end.saturating_sub(offset) as usize);
            if !bytes.is_empty() {
                self.put(Change::Write(offset, bytes));
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn put(&self, change: Change) {
        let mut inode = self.inode.lock();
        change.apply(&mut inode.seen);
        inode.pending.push(change);
    }
}

impl File for FakeFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.state.lock().check_life(self.life)?;
        Ok(self.inode.lock().seen.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.state.lock().check_life(self.life)?;
        let inode = self.inode.lock();
        let from = inode.seen.get(offset as usize..).unwrap_or_default();
        let from = from.get(..out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()), offset + bytes.len() as u64)?;
        let mut state = self.disk.state.lock();
        state.stats.writes += 1;
        state.stats.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len), len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check_sync(self.life)?;
        if state.ignore_syncs {
            return Ok(());
        }
        let inode = &mut *self.inode.lock();
        if std::mem::take(&mut state.fail_next_sync) {
            inode.pending.clear();
            return Err(io::Error::other("the disk failed to sync"));
        }
        for change in inode.pending.drain(..) {
            change.apply(&mut inode.durable);
        }
        Ok(())
    }
}

impl Disk for FakeDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        let life = self.life.unwrap_or(state.life);
        state.check_life(life)?;
        let inode = match state.names.get(path) {
            Some(inode) => inode.clone(),
            None if create => {
                state.check_change(life)?;
                let inode = SharedInode::default();
                state.names.insert(path.to_owned(), inode.clone());
                state.pending_names.push(NameChange::Link(path.to_owned(), inode.clone()));
                inode
            }
            None => return Err(io::Error::new(io::ErrorKind::NotFound, format!("no file {path}"))),
        };
        Ok(Arc::new(FakeFile { disk: self.clone(), life, inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let life = self.life.unwrap_or(state.life);
        state.check_change(life)?;
        if !state.names.contains_key(from) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no file {from}")));
        }
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        change.apply(&mut state.names);
        state.pending_names.push(change);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let life = self.life.unwrap_or(state.life);
        state.check_change(life)?;
        if state.names.remove(path).is_some() {
            state.pending_names.push(NameChange::Unlink(path.to_owned()));
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        let life = self.life.unwrap_or(state.life);
        state.check_life(life)?;
        let in_dir = state.names.keys().map(|path| split(path)).filter(|(at, _)| *at == dir);
        Ok(in_dir.map(|(_, name)| name.to_owned()).collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let life = self.life.unwrap_or(state.life);
        state.check_sync(life)?;
        if state.ignore_syncs {
            return Ok(());
        }
        let (ours, others) =
            std::mem::take(&mut state.pending_names).into_iter().partition(|c| c.directory() == dir);
        state.pending_names = others;
        let ours: Vec<NameChange> = ours;
        for change in &ours {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.state.lock().room()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn file(disk: &FakeDisk, path: &str) -> Arc<dyn File> {
        disk.open(path, true).expect("a file")
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_lose_the_rest() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = FakeDisk::new();
            let handle = file(&disk, "d/a");
            handle.write_at(0, &[1; 2048]).expect("write");
            handle.sync().expect("sync");
            disk.sync_dir("d").expect("sync_dir");
            handle.write_at(0, &[2; 2048]).expect("write");
            disk.crash(&mut SmallRng::seed_from_u64(seed));
            assert!(handle.sync().is_err(), "a handle from before the crash");
            let bytes = disk.contents("d/a").expect("the synced name");
            match bytes.iter().filter(|b| **b == 2).count() {
                0 => lost += 1,
                2048 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 0 && kept > 0 && torn > 0, "{lost} {kept} {torn}");
    }

    #[test]
    fn names_need_a_sync_of_their_own_directory() {
        let mut gone = 0;
        for seed in 0..50 {
            let disk = FakeDisk::new();
            file(&disk, "d/a").sync().expect("sync");
            file(&disk, "b").sync().expect("sync");
            disk.sync_dir("").expect("sync_dir");
            disk.crash(&mut SmallRng::seed_from_u64(seed));
            assert!(disk.contents("b").is_some());
            gone += usize::from(disk.contents("d/a").is_none());
        }
        assert!(gone > 0);
    }

    #[test]
    fn the_power_goes_after_the_given_number_of_operations() {
        let disk = FakeDisk::new();
        let handle = file(&disk, "a");
        disk.stop_after(2);
        handle.write_at(0, b"x").expect("the first");
        handle.sync().expect("the second");
        assert!(disk.stopped() && handle.write_at(1, b"y").is_err() && handle.len().is_err());
        disk.crash(&mut SmallRng::seed_from_u64(1));
        assert!(!disk.stopped());
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let disk = FakeDisk::new();
        let handle = file(&disk, "a");
        handle.write_at(0, &[0; 100]).expect("write");
        disk.set_capacity(Some(100));
        assert_eq!(handle.write_at(1, &[0; 100]).map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
        handle.write_at(0, &[1; 100]).expect("no growth");
        assert_eq!(disk.free_bytes(), Some(0));
        disk.set_capacity(Some(110));
        let short = handle.write_at(90, &[2; 100]).map_err(|e| e.kind());
        assert_eq!(short, Err(io::ErrorKind::StorageFull));
        assert_eq!(disk.contents("a").expect("the file"), [&[1; 90][..], &[2; 20]].concat());
    }

    #[test]
    fn a_failed_sync_loses_what_it_was_to_carry_whatever_comes_after() {
        let disk = FakeDisk::new();
        let handle = file(&disk, "a");
        disk.sync_dir("").expect("sync_dir");
        handle.write_at(0, b"lost").expect("write");
        disk.fail_next_sync();
        assert!(handle.sync().is_err());
        handle.write_at(4, b"kept").expect("write");
        handle.sync().expect("the next one");
        assert_eq!(disk.contents("a").expect("readable until then"), b"lostkept");
        disk.crash(&mut SmallRng::seed_from_u64(1));
        assert_eq!(disk.contents("a").expect("the file"), b"\0\0\0\0kept");
    }

    #[test]
    fn a_booted_handle_ends_with_its_life_and_a_kill_takes_no_bytes() {
        let disk = FakeDisk::new();
        let process = disk.boot();
        file(&process, "a").write_at(0, b"x").expect("write");
        disk.kill();
        assert!(process.open("a", false).is_err() && process.list("").is_err());
        assert!(process.remove("a").is_err() && process.sync_dir("").is_err());
        assert_eq!(disk.contents("a").expect("not synced, and there"), b"x");
    }
}
