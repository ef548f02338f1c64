//! Waiting for the store to come to a state.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::storage::mvcc::Store;

use super::Node;

/// Between two looks of one waiter, at least: beside busy writers many who wait must not
/// take the processor from them.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Node {
    /// Looks at this node's store now and after every change, until there is something to
    /// see. The caller bounds how long.
    pub async fn look_until<T>(&self, mut look: impl FnMut(&Store) -> Option<T>) -> Result<T> {
        let running = self.shared.require_running()?;
        let mut applied = running.consensus.watch_applied();
        loop {
            let looked = Instant::now();
            applied.mark_unchanged();
            if let Some(seen) = look(self.store()) {
                return Ok(seen);
            }
            let stopping = |_| Error::stopping();
            applied.changed().await.map_err(stopping)?;
            tokio::time::sleep_until(looked + LOOK_AGAIN).await;
        }
    }
}
