//! The load generator: many clients of one running cluster, and what it took to serve them.
//!
//! - a [`Load`] says what is asked of the cluster: which [`Workload`], by how many clients,
//!   at which [`Pace`], for how long;
//! - a [`target`] is the cluster, in one of two protocols: ours over HTTP, or etcd's, which
//!   Bellwether and etcd are spoken to in alike, by the same code;
//! - [`run`](fn@run) puts the one on the other, [`watch`] does it for watchers; both count
//!   into a tally and end with an [`Outcome`], which [`report`] shows.
//!
//! Everything runs on one thread: the generator shares its cores with the servers it
//! measures, so it has to be small, and says itself what it cost.

mod client;
mod keys;
mod load;
mod outcome;
mod pace;
pub mod probe;
pub mod report;
mod run;
mod tally;
pub mod target;
pub mod watch;
mod window;

pub use keys::{Distribution, KEY_BYTES};
pub use load::{ANSWER_TIMEOUT, Extent, Load, Pace, Workload};
pub use outcome::Outcome;
pub use run::{fill, run};
