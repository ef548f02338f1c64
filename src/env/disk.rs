//! The disk seam. Paths are relative to the data directory (`log/00000001.seg`).
//!
//! Nothing is durable before a sync: a file's bytes after [`File::sync`], its name
//! after [`Disk::sync_dir`] of the directory that holds it.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;

use super::blocks::are_blocks;

#[allow(clippy::len_without_is_empty, reason = "asking a file for its length can fail")]
pub trait File: Send + Sync + Debug {
    fn len(&self) -> io::Result<u64>;
    /// Fills `out` from `offset`; `UnexpectedEof` when the file ends before that.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Data and, when the length changed, the length are on disk when it returns.
    fn sync(&self) -> io::Result<()>;
    /// Writes, and what it wrote is on disk when it returns. What else was written may not
    /// be: that takes a [`File::sync`]. Whole blocks ([`super::blocks`]) are the cheapest.
    fn write_synced(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)?;
        self.sync()
    }
}

pub trait Disk: Send + Sync + 'static {
    /// `NotFound` when the file is missing and `create` is false. Directories on the
    /// way are made.
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removing what is not there is no error.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Names of the files directly in `dir` (empty string: the root), sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Bytes that can still be written; `None` when unknown.
    fn free_bytes(&self) -> Option<u64>;
    /// The device and inode of the root, as text: a warning when a directory moved.
    fn place(&self) -> Option<String> {
        None
    }
}

/// Real files, locked against a second process.
pub struct RealDisk {
    root: PathBuf,
    /// Held for its lock: released when the process ends, however it ends.
    _lock: std::fs::File,
}

impl RealDisk {
    /// Makes the directory if it is missing and takes its lock.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let lock = std::fs::File::create(root.join("LOCK"))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => io::Error::new(
                ErrorKind::ResourceBusy,
                format!(
                    "{} is in use by another process; stop it or choose another DATA_DIR",
                    root.display()
                ),
            ),
            std::fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }
}

#[derive(Debug)]
struct RealFile {
    file: std::fs::File,
    /// The same file, past the kernel's cache, and each write synced; made when it is first
    /// wanted, `None` where that cannot be had.
    direct: OnceLock<Option<std::fs::File>>,
}

impl RealFile {
    /// Opens the file once more.
    fn open_direct(&self) -> Option<std::fs::File> {
        // By its handle, for it may have another name by now.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits();
        std::fs::OpenOptions::new().write(true).custom_flags(flags.cast_signed()).open(path).ok()
    }

    /// False when the file system does not write this way, which is no failure: it took
    /// nothing. Some refuse when the file is opened, others only what is written.
    fn write_direct(&self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        if !are_blocks(offset, bytes) {
            return Ok(false);
        }
        let Some(direct) = self.direct.get_or_init(|| self.open_direct()) else { return Ok(false) };
        match direct.write_all_at(bytes, offset) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_synced(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.write_direct(offset, bytes)? {
            return Ok(());
        }
        self.write_at(offset, bytes)?;
        self.sync()
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn File>> {
        let path = self.root.join(path);
        if create && let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Arc::new(RealFile { file, direct: OnceLock::new() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match std::fs::remove_file(self.root.join(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.root.join(dir)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        std::fs::File::open(self.root.join(dir))?.sync_all()
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail * stat.f_frsize)
    }
}
