//! openraft's storage conformance suite over our log and our state machine.
#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::types::TypeConfig;
use crate::env::fake_disk::FakeDisk;
use crate::env::{Disk, Workers};
use crate::storage::log::{Log, LogOptions};
use crate::storage::mvcc::Store;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let disk: Arc<dyn Disk> = Arc::new(FakeDisk::default());
        let workers = Workers::Tasks { delay: || Duration::ZERO };
        let options = LogOptions { segment_bytes: 64 * 1024, cache_bytes: 1024, reserve_bytes: 0 };
        let log = Log::open(disk.clone(), &workers, options, Arc::default()).expect("a log");
        let store = Store::open(disk, &workers, 0, Arc::default()).expect("a store");
        // The suite applies entries that it never appended.
        store.log_is_durable_upto(u64::MAX);
        Ok(((), LogStore::new(log.clone()), StateMachine::new(store, log)))
    }
}

#[tokio::test]
async fn storage_keeps_the_engines_contract() {
    Suite::<TypeConfig, LogStore, StateMachine, Builder, ()>::test_all(Builder)
        .await
        .expect("openraft's conformance suite");
}
