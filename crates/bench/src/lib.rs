//! What other crates of the workspace use of the benchmark: clusters of real processes,
//! of Bellwether and of etcd.

pub mod cluster;
