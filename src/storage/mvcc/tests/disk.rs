//! A disk in memory that forgets, on a crash, whatever was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::env::{Disk, File};

#[derive(Debug, Default)]
struct Node {
    now: Vec<u8>,
    synced: Vec<u8>,
}

type Names = BTreeMap<String, Arc<Mutex<Node>>>;

#[derive(Debug, Default)]
struct Platter {
    names: Mutex<Names>,
    synced_names: Mutex<Names>,
    /// Raised by a crash: handles of an earlier life fail.
    life: AtomicU64,
    /// Changes (writes, renames, syncs ...) still allowed before the power fails.
    changes_left: Mutex<Option<u64>>,
    changes: AtomicU64,
}

/// Shared by all lives of the disk; [`MemoryDisk::boot`] gives one life's view.
#[derive(Debug, Default, Clone)]
pub struct MemoryDisk(Arc<Platter>);

#[derive(Debug, Clone)]
pub struct Booted {
    platter: Arc<Platter>,
    life: u64,
}

impl MemoryDisk {
    pub fn boot(&self) -> Booted {
        Booted { platter: self.0.clone(), life: self.0.life.load(Ordering::SeqCst) }
    }

    /// The process is killed: what it wrote stays, synced or not.
    pub fn kill(&self) {
        self.0.life.fetch_add(1, Ordering::SeqCst);
        *self.0.changes_left.lock() = None;
    }

    /// The power fails: only what was synced stays.
    pub fn crash(&self) {
        self.kill();
        let names = self.0.synced_names.lock().clone();
        for node in names.values() {
            let mut node = node.lock();
            node.now = node.synced.clone();
        }
        *self.0.names.lock() = names;
    }

    /// The power fails at the change after the next `count`.
    pub fn fail_after(&self, count: u64) {
        *self.0.changes_left.lock() = Some(count);
    }

    pub fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::SeqCst)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.names.lock().keys().cloned().collect()
    }
}

impl Booted {
    fn reading(&self) -> io::Result<()> {
        match self.life == self.platter.life.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(io::Error::other("power lost")),
        }
    }

    fn changing(&self) -> io::Result<()> {
        self.reading()?;
        self.platter.changes.fetch_add(1, Ordering::SeqCst);
        match &mut *self.platter.changes_left.lock() {
            Some(0) => Err(io::Error::other("power lost")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Handle {
    disk: Booted,
    node: Arc<Mutex<Node>>,
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        self.disk.reading()?;
        Ok(self.node.lock().now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.reading()?;
        let node = self.node.lock();
        let start = offset as usize;
        let bytes = node.now.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.changing()?;
        let mut node = self.node.lock();
        let end = offset as usize + bytes.len();
        if node.now.len() < end {
            node.now.resize(end, 0);
        }
        node.now[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.changing()?;
        self.node.lock().now.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.changing()?;
        let mut node = self.node.lock();
        node.synced = node.now.clone();
        Ok(())
    }
}

impl Disk for Booted {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        self.reading()?;
        let mut names = self.platter.names.lock();
        let node = match names.get(path) {
            Some(node) => node.clone(),
            None if create => {
                self.changing()?;
                names.entry(path.to_owned()).or_default().clone()
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(Handle { disk: self.clone(), node }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.changing()?;
        let mut names = self.platter.names.lock();
        let node = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.changing()?;
        self.platter.names.lock().remove(path);
        Ok(())
    }

    fn list(&self, _dir: &str) -> io::Result<Vec<String>> {
        self.reading()?;
        Ok(self.platter.names.lock().keys().cloned().collect())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        self.changing()?;
        *self.platter.synced_names.lock() = self.platter.names.lock().clone();
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}
