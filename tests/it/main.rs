//! The integration tests: one binary, real `bellwether serve` processes.
//!
//! `support` starts and stops clusters, speaks HTTP, watches who leads and records what
//! clients saw. Each test owns its cluster, its directory and its ports, so tests run
//! beside each other. `docs/testing.md` says how to run and reproduce them.

mod bench;
mod bootstrap;
mod damage;
mod disk_faults;
mod docs;
mod etcd_kv;
mod etcd_leases;
mod etcd_locks;
mod etcd_watch;
mod faults;
mod hostile;
mod http_contract;
mod kill_loop;
mod leadership;
mod overload;
mod policies;
mod restart;
mod state_check;
mod support;
mod tidy;
mod walkthrough;
