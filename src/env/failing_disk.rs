//! A disk that fails when it is told to, around any other: for the laboratory, so that
//! real processes can meet what a broken or a full disk does.
//!
//! A fault strikes once. What comes after it succeeds, as it does with a kernel that has
//! reported the error, dropped the data and forgotten both: whoever tries again is told
//! a lie, and must not.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, File};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A sync reports an error of the device.
    Sync,
    /// A write finds no room.
    Full,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::Sync => io::Error::other("the disk failed to sync (a fault of the laboratory)"),
            Fault::Full => io::ErrorKind::StorageFull.into(),
        }
    }
}

/// The next fault: the first call of its kind on a file whose path contains `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    pub fault: Fault,
    pub path: String,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<Armed>,
    struck: u64,
}

/// What is to fail, shared with the disk; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct DiskFaults(Arc<Mutex<State>>);

impl DiskFaults {
    /// Replaces what was armed before.
    pub fn arm(&self, armed: Option<Armed>) {
        self.0.lock().armed = armed;
    }

    pub fn armed(&self) -> Option<Armed> {
        self.0.lock().armed.clone()
    }

    /// How many faults have struck: one that never did proves nothing.
    pub fn struck(&self) -> u64 {
        self.0.lock().struck
    }

    fn check(&self, fault: Fault, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let due = |armed: &mut Armed| armed.fault == fault && path.contains(&armed.path);
        if state.armed.take_if(due).is_none() {
            return Ok(());
        }
        state.struck += 1;
        tracing::warn!(?fault, path, "Lab: the disk fails");
        Err(fault.error())
    }
}

/// What a file is called now: a spare of the log becomes a segment while it is open.
type Name = Arc<Mutex<String>>;

/// See the module's documentation.
pub struct FailingDisk {
    inner: Arc<dyn Disk>,
    faults: DiskFaults,
    /// Of the files that were opened, until they are removed.
    names: Mutex<BTreeMap<String, Name>>,
}

impl FailingDisk {
    pub fn new(inner: Arc<dyn Disk>, faults: DiskFaults) -> Self {
        Self { inner, faults, names: Mutex::default() }
    }
}

struct FailingFile {
    inner: Arc<dyn File>,
    name: Name,
    faults: DiskFaults,
}

impl fmt::Debug for FailingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl File for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.check(Fault::Full, &self.name.lock())?;
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.check(Fault::Sync, &self.name.lock())?;
        self.inner.sync()
    }

    fn write_synced(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.check(Fault::Full, &self.name.lock())?;
        if let Err(error) = self.faults.check(Fault::Sync, &self.name.lock()) {
            // As when the kernel has the bytes and the disk does not.
            self.inner.write_at(offset, bytes)?;
            return Err(error);
        }
        self.inner.write_synced(offset, bytes)
    }
}

impl Disk for FailingDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, create)?;
        let mut names = self.names.lock();
        let name = names.entry(path.to_owned()).or_insert_with(|| Arc::new(Mutex::new(path.to_owned())));
        Ok(Arc::new(FailingFile { inner, name: name.clone(), faults: self.faults.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut names = self.names.lock();
        if let Some(name) = names.remove(from) {
            to.clone_into(&mut name.lock());
            names.insert(to.to_owned(), name);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)?;
        self.names.lock().remove(path);
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.faults.check(Fault::Sync, &format!("{dir}/"))?;
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn place(&self) -> Option<String> {
        self.inner.place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::fake_disk::FakeDisk;

    #[test]
    fn a_fault_strikes_once_and_where_it_was_meant_to() {
        let faults = DiskFaults::default();
        let disk = FailingDisk::new(Arc::new(FakeDisk::new()), faults.clone());
        let (log, table) = (disk.open("log/a", true).expect("open"), disk.open("table", true).expect("open"));
        faults.arm(Some(Armed { fault: Fault::Sync, path: "log/".to_owned() }));
        table.sync().expect("another file");
        log.write_at(0, b"x").expect("another call");
        assert_eq!(faults.struck(), 0);
        assert!(log.sync().is_err());
        log.sync().expect("once only");
        assert_eq!((faults.struck(), faults.armed()), (1, None));
        faults.arm(Some(Armed { fault: Fault::Sync, path: "log/".to_owned() }));
        assert!(disk.sync_dir("log").is_err(), "a directory is synced, too");
        disk.rename("log/a", "log/b").expect("rename");
        faults.arm(Some(Armed { fault: Fault::Sync, path: "log/b".to_owned() }));
        assert!(log.sync().is_err(), "an open file goes by its new name");
        faults.arm(Some(Armed { fault: Fault::Full, path: "table".to_owned() }));
        assert_eq!(table.write_at(0, b"x").map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
    }
}
