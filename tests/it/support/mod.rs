//! What every integration test stands on.

mod cluster;
mod etcd;
mod http;
mod lab;
mod measure;
mod observer;
mod peace;
mod process;
mod raw;
mod rng;
mod watch;
mod workload;

use std::future::Future;
use std::time::{Duration, Instant};

pub use cluster::{Cluster, claim_port};
pub use etcd::Etcd;
pub use http::{Failure, Request, Session};
pub use lab::{Lab, cut, slow};
pub use measure::{Peak, may_open, open_files, resident_bytes};
pub use observer::Observer;
pub use peace::Peace;
pub use process::Process;
pub use raw::Raw;
pub use rng::Rng;
pub use watch::Watch;
pub use workload::{Settings, Workload};

/// How long anything may take on a loaded machine before a test gives up. Generous: it
/// is only ever waited out by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// For tests that keep the machine busy: at most one of them at a time, or they would
/// disturb each other's elections.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}

/// A setting for those tests: on a machine that is busy on purpose, beside other tests, a
/// node that gets no processor for a second is not a lost leader.
pub const PATIENT: (&str, &str) = ("ELECTION_TIMEOUT_MS", "3000");

/// Tries until `attempt` succeeds, and panics with its last complaint at the deadline.
#[track_caller]
pub fn eventually<T, F, Fut>(deadline: Duration, mut attempt: F) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let caller = std::panic::Location::caller();
    let end = Instant::now() + deadline;
    async move {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(why) if Instant::now() > end => {
                    panic!("not within {deadline:?}, at {caller}: {why}")
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

/// An environment number, for tests whose length is chosen by the caller.
pub fn env_number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
        Err(_) => default,
    }
}
