//! What is on disk: the data directory's identity, the replicated log, and the
//! multi-version store with its snapshots. Knows neither consensus nor HTTP.
//!
//! `docs/format.md` is the byte-level truth of every file.

pub mod data_dir;
pub mod log;
pub mod mvcc;
