//! The differential test: random sequences, the same for both, and every reply compared.
//!
//! 1. [`generate`] draws a sequence from a seed, in symbols for what servers choose.
//! 2. [`pair`] plays it to both [`side`]s in step; a side turns [`symbols`] into its own
//!    numbers and back. [`watches`] makes the moment at which events are compared exact.
//! 3. [`normal`] takes out what may differ; what is left must be equal as text.
//! 4. [`shrink`] makes a failing sequence small; its seed and the places of what is left
//!    reproduce it.
//!
//! [`coverage`] tells what a run has met, [`alter`] proves that it would notice. Each
//! sequence begins by deleting what the one before left, so that thousands run on one
//! pair of clusters.

pub mod alter;
pub mod coverage;
pub mod generate;
mod normal;
pub mod op;
pub mod pair;
mod proto;
pub mod run;
pub mod shrink;
pub mod side;
mod symbols;
mod watches;
