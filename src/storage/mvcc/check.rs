//! Every page's checksum, compared before the table is used.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::{DatabaseError, StorageError};

use super::table::{STATE_FILE, builder, invalid};
use crate::env::File;

/// Pages that redb keeps while every page is read once, in bytes: what the processor's own
/// cache holds, for no page is wanted again.
const CACHE_BYTES: usize = 128 * 1024;
/// How far redb's repair says that it is when it has found every checksum right.
const REPAIR_HAS_COMPARED: f64 = 0.6;
/// Read from the file at a time.
const WINDOW_BYTES: u64 = 64 * 1024;
/// Windows kept: the pages that one branch of the tree names lie in that many, mostly.
const WINDOWS: usize = 32;

/// Reads the whole table and compares every page's checksum: opening alone would not
/// notice a flipped bit, and the node would serve it.
///
/// redb reads all of it twice, the second time to learn which pages are in use. Each of our
/// commits says that already ([`super::table::Table::write`]), so its repair is stopped between the two.
pub(super) fn whole(file: Arc<dyn File>) -> io::Result<()> {
    let sound = Arc::new(AtomicBool::new(false));
    let mut builder = builder(CACHE_BYTES);
    builder.set_check_integrity_on_open(true);
    builder.set_repair_callback({
        let sound = sound.clone();
        move |repair| {
            if repair.progress() > 0.0 {
                sound.store(repair.progress() >= REPAIR_HAS_COMPARED, Ordering::Relaxed);
                repair.abort();
            }
        }
    });
    match builder.create_with_backend(Windowed::new(file)) {
        // Empty: nothing was there to compare.
        Ok(_) => Ok(()),
        Err(DatabaseError::RepairAborted) if sound.load(Ordering::Relaxed) => Ok(()),
        // It would be mended by going back to what it was before: the log may not have the rest.
        Err(DatabaseError::RepairAborted) => Err(damaged("a checksum does not match")),
        Err(DatabaseError::Storage(StorageError::Io(error))) => Err(error),
        Err(error) => Err(damaged(&error.to_string())),
    }
}

fn damaged(why: &str) -> io::Error {
    invalid(format!(
        "{STATE_FILE} is damaged: {why}. Empty this node's data directory and start it again: it comes back by itself and is filled by the others"
    ))
}

/// The file as redb reads it here: page by page, in nearly the order in which they lie.
#[derive(Debug)]
struct Windowed {
    file: Arc<dyn File>,
    /// The newest last.
    windows: Mutex<VecDeque<Window>>,
}

#[derive(Debug)]
struct Window {
    number: u64,
    bytes: Vec<u8>,
}

impl Windowed {
    fn new(file: Arc<dyn File>) -> Self {
        Self { file, windows: Mutex::default() }
    }

    fn read_window(&self, windows: &mut VecDeque<Window>, number: u64) -> io::Result<()> {
        let oldest = if windows.len() < WINDOWS { None } else { windows.pop_front() };
        let mut bytes = oldest.map(|window| window.bytes).unwrap_or_default();
        let offset = number * WINDOW_BYTES;
        let length = self.file.len()?.saturating_sub(offset).min(WINDOW_BYTES);
        bytes.resize(length as usize, 0);
        self.file.read_at(offset, &mut bytes)?;
        windows.push_back(Window { number, bytes });
        Ok(())
    }
}

impl redb::StorageBackend for Windowed {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (number, start) = (offset / WINDOW_BYTES, (offset % WINDOW_BYTES) as usize);
        let mut windows = self.windows.lock();
        if !windows.iter().any(|window| window.number == number) {
            // Some of it may be bad and belong to no page: then the page alone is read, below.
            let _ = self.read_window(&mut windows, number);
        }
        let window = windows.iter().find(|window| window.number == number);
        match window.and_then(|window| window.bytes.get(start..start + out.len())) {
            Some(bytes) => out.copy_from_slice(bytes),
            // It goes on in the next one, or has none.
            None => self.file.read_at(offset, out)?,
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.windows.lock().clear();
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.windows.lock().clear();
        self.file.write_at(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend;

    use super::*;
    use crate::env::Disk;
    use crate::env::fake_disk::FakeDisk;

    #[test]
    fn windows_show_what_the_file_holds() {
        let file = FakeDisk::new().open("file", true).expect("a file");
        let length = WINDOW_BYTES as usize * (WINDOWS + 3) + 100;
        let mut bytes: Vec<u8> = (0..length).map(|at| (at * 31 / 7) as u8).collect();
        file.write_at(0, &bytes).expect("written");
        let windowed = Windowed::new(file);
        let shows = |bytes: &[u8]| {
            for at in (0..length - 4096).step_by(4096 - 5).chain([length - 4096]) {
                let mut page = vec![0; 4096];
                windowed.read(at as u64, &mut page).expect("read");
                assert!(page == bytes[at..at + 4096], "at {at}");
            }
        };
        shows(&bytes);
        windowed.write(length as u64 - 50, &[7; 50]).expect("written");
        bytes[length - 50..].fill(7);
        shows(&bytes);
        assert!(windowed.read(length as u64 - 1, &mut [0; 2]).is_err(), "past its end");
    }
}
