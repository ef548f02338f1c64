//! What a process holds: memory and open files, as the kernel accounts them in `/proc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

/// How often a peak is looked for: memory that is held for a while does not escape it.
const INTERVAL: Duration = Duration::from_millis(50);

/// What a process keeps in memory now (`VmRSS`).
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a live process has memory");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024
}

/// Files and sockets that a process has open now.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that runs").count()
}

/// How many files this process may open, its soft limit raised to the hard one.
pub fn may_open() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }.unwrap_or(u64::MAX)
}

/// The most memory that a process was seen to keep, until it is asked.
pub struct Peak {
    most: Arc<AtomicU64>,
    task: JoinHandle<()>,
    pid: u32,
    start: u64,
}

impl Peak {
    pub fn watch(pid: u32) -> Self {
        let start = resident_bytes(pid);
        let most = Arc::new(AtomicU64::new(start));
        let watched = most.clone();
        let task = tokio::spawn(async move {
            loop {
                watched.fetch_max(resident_bytes(pid), Ordering::Relaxed);
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { most, task, pid, start }
    }

    /// Bytes by which it grew at most since the watch began.
    pub fn growth(&self) -> u64 {
        self.most.fetch_max(resident_bytes(self.pid), Ordering::Relaxed).max(resident_bytes(self.pid))
            - self.start
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.task.abort();
    }
}
