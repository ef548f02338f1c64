//! The real node, unchanged, several times in one thread, under time, network and disk that
//! are functions of one seed.
//!
//! A [`plan`] says what is done to the cluster and when; a [`history`] carries it out on
//! a [`cluster`] of machines while the [`workload`]'s clients read and write, and the
//! [`judge`] looks on; [`facts`] knows what reads may show that are not linearizable, the
//! [`lab`] spoils single messages. The [`drills`] are plans that provoke planted bugs. Everything that happens goes into a [`trace`], whose hash is
//! equal when the seed is. What the node needs from the world is in [`world`].
//!
//! `docs/simulation.md` says what is real and what is not.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation needs the flags in crates/sim/.cargo/config.toml, which cargo reads only there: cd crates/sim"
);

pub mod cluster;
pub mod drills;
pub mod facts;
pub mod history;
pub mod http;
pub mod judge;
pub mod lab;
mod panics;
pub mod plan;
pub mod trace;
pub mod workload;
pub mod world;
