//! Plays the same requests to Bellwether and to a real etcd, and shows where they differ.

pub mod cluster;
pub mod diff;
pub mod known;
pub mod proto;
pub mod tours;
pub mod with_cluster;
