//! The world behind seams: network, disk, wall clock, worker threads and randomness.
//!
//! A node is one restartable async function of its configuration and a [`World`]; it
//! touches nothing else. The real world is [`World::real`]; `crates/sim` builds
//! simulated ones. Monotonic time is `tokio::time` everywhere, which a simulation
//! drives by itself.

pub mod blocks;
pub mod clock;
pub mod disk;
pub mod failing_disk;
#[cfg(any(test, feature = "testing"))]
pub mod fake_disk;
pub mod net;
pub mod open_files;
pub mod planted;
pub mod random;
#[cfg(test)]
mod tests;
pub mod timer;
pub mod workers;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use clock::Clock;
pub use disk::{Disk, File};
pub use net::Net;
pub use timer::Timer;
pub use workers::{Worker, Workers};

/// Everything outside the process that a node may touch.
#[derive(Clone)]
pub struct World {
    pub net: Arc<dyn Net>,
    /// Rooted at the data directory.
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub workers: Workers,
}

impl World {
    /// Real sockets, real files under `data_dir` (made if missing, locked against a
    /// second process), the system's clock, real threads.
    pub fn real(data_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            net: Arc::new(net::RealNet),
            disk: Arc::new(disk::RealDisk::open(data_dir)?),
            clock: Arc::new(clock::SystemClock),
            workers: Workers::Threads,
        })
    }
}
