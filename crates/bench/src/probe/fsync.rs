//! How many small durable writes a second the disk takes: the bound of any store that
//! acknowledges only what is on disk, and the yardstick its figures are read against.
//!
//! As a log does it: into a file made and zero-filled before, so that no write changes
//! its size, one small record after the other, each followed by `fdatasync`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use bellwether_load::probe::latencies;

/// About one 256-byte value with its frame.
const RECORD_BYTES: usize = 512;
/// Large enough to move on for a while, small enough to be made in no time.
const FILE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug, Serialize)]
pub struct Fsync {
    /// Files written at once, each by a thread of its own.
    pub writers: usize,
    /// Syncs a second, summed over the writers.
    pub per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
}

/// Writes and syncs for this long, in files of its own that it removes again.
pub fn probe(dir: &Path, writers: usize, window: Duration) -> Result<Fsync> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut files = Vec::with_capacity(writers);
    for number in 0..writers {
        files.push(Scratch::make(dir, number)?);
    }
    let began = Instant::now();
    let took = std::thread::scope(|scope| -> Result<Histogram<u64>> {
        let threads: Vec<_> =
            files.iter().map(|scratch| scope.spawn(move || sync_often(&scratch.file, window))).collect();
        let mut all = latencies()?;
        for thread in threads {
            let one = thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
            all.add(one).context("equal histograms")?;
        }
        Ok(all)
    })?;
    Ok(Fsync {
        writers,
        per_second: took.len() as f64 / began.elapsed().as_secs_f64(),
        p50_us: took.value_at_quantile(0.5),
        p99_us: took.value_at_quantile(0.99),
    })
}

fn sync_often(file: &File, window: Duration) -> Result<Histogram<u64>> {
    let mut took = latencies()?;
    let record = [0x5a; RECORD_BYTES];
    let until = Instant::now() + window;
    let mut offset = 0;
    while Instant::now() < until {
        let began = Instant::now();
        file.write_all_at(&record, offset)?;
        file.sync_data()?;
        took.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1));
        offset = (offset + RECORD_BYTES as u64) % FILE_BYTES as u64;
    }
    Ok(took)
}

/// A file that is removed when it goes out of scope.
struct Scratch {
    file: File,
    path: std::path::PathBuf,
}

impl Scratch {
    fn make(dir: &Path, number: usize) -> Result<Self> {
        let path = dir.join(format!("fsync-probe-{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("making {}", path.display()))?;
        let scratch = Self { file, path };
        scratch.file.write_all_at(&vec![0; FILE_BYTES], 0).context("filling the probe's file")?;
        scratch.file.sync_all()?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it does no harm: it is in a directory for scratch.
        let _ = std::fs::remove_file(&self.path);
    }
}
