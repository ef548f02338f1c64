//! What every integration test stands on.

mod cluster;
mod http;
mod lab;
mod observer;
mod process;
mod rng;
mod workload;

use std::future::Future;
use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use http::{Failure, Request};
pub use lab::{Lab, cut, slow};
pub use observer::Observer;
pub use process::Process;
pub use rng::Rng;
pub use workload::{Settings, Workload};

/// How long anything may take on a loaded machine before a test gives up. Generous: it
/// is only ever waited out by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

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
