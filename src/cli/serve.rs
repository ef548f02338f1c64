//! `bellwether serve`: settings, logging, runtime; the rest is `crate::serve`.

use std::io::Read;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::{Failure, logging};
use crate::config::{Config, Settings};

/// How long a node whose parent is gone may take to drain before it ends the hard way.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Settings,

    /// Stop when standard input ends. `up` holds the other end of that pipe, and the
    /// kernel closes it however `up` dies, so no node is left behind even after kill -9.
    /// (A parent-death signal would need code between fork and exec, which is unsafe.)
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.settings.validate().map_err(Failure::usage)?;
        logging::init(&self.settings.log, config.name.as_str());
        if self.exit_with_stdin {
            watch_stdin()?;
        }
        let runtime = runtime(&config).map_err(|error| Failure::error(format!("no runtime: {error}")))?;
        // A task of its own: waking the future that `block_on` runs costs a system call.
        let serving = runtime.spawn(crate::serve::run(config));
        let outcome = runtime.block_on(serving);
        runtime.shutdown_background();
        let outcome = outcome.map_err(|error| Failure::error(format!("this node stopped: {error}")))?;
        outcome.map_err(|error| Failure::error(format!("{error:#}")))
    }
}

fn runtime(config: &Config) -> std::io::Result<Runtime> {
    match config.worker_threads {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// Reads standard input to its end on a thread of its own, then stops this process as a
/// SIGTERM would, so that there is one way to drain.
fn watch_stdin() -> Result<(), Failure> {
    let watch = || {
        let mut sink = [0; 256];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut sink) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        tracing::warn!("Standard input ended: whoever started this node is gone, stopping");
        if rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).is_ok() {
            std::thread::sleep(ORPHAN_GRACE);
        }
        std::process::exit(1);
    };
    let thread = std::thread::Builder::new().name("stdin-watch".to_owned()).spawn(watch);
    thread.map(|_| ()).map_err(|error| Failure::error(format!("no thread to watch standard input: {error}")))
}
