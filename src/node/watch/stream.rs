//! One client's watches, and what they are given.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::event::Encoded;
use super::state::{CatchUp, Next};
use super::{Delivery, Ended, Hub, RefusedWatch, WatchSpec};
use crate::storage::mvcc::{HistoryRow, ReadError};
use crate::types::Revision;

/// Watches that share a connection to one client. They end when it is dropped.
pub struct WatchStream {
    hub: Hub,
    number: usize,
    wake: Arc<Notify>,
    /// Runs once a watch wants to know the revision now and then.
    ticks: Option<Interval>,
}

impl WatchStream {
    pub(super) fn open(hub: Hub) -> Result<Self, RefusedWatch> {
        let (number, wake) = hub.inner.state.lock().open()?;
        Ok(Self { hub, number, wake, ticks: None })
    }

    /// Begins a watch; says its id.
    pub fn create(&mut self, spec: WatchSpec) -> Result<i64, RefusedWatch> {
        if spec.progress {
            self.tick();
        }
        let inner = &self.hub.inner;
        let current = inner.store.revision();
        inner.state.lock().create(self.number, spec, current)
    }

    fn tick(&mut self) {
        let period = self.hub.inner.limits.progress_interval;
        let start = || {
            let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        self.ticks.get_or_insert_with(start);
    }

    /// False when there is no such watch.
    pub fn cancel(&mut self, id: i64) -> bool {
        self.hub.inner.state.lock().cancel(self.number, id)
    }

    /// Asks for one [`Delivery::Progress`] for all watches together, once they have
    /// everything that the store has now.
    pub fn ask_progress(&mut self) {
        let inner = &self.hub.inner;
        let revision = inner.store.revision();
        inner.state.lock().ask_bookmark(self.number, revision);
    }

    /// The store's revision, for the header of what is no delivery.
    pub fn revision(&self) -> Revision {
        self.hub.inner.store.revision()
    }

    /// What is next for one of the watches. May be dropped at any time and called again:
    /// nothing is lost.
    pub async fn next(&mut self) -> Result<Delivery, Ended> {
        loop {
            match self.step()? {
                Step::Deliver(delivery) => return Ok(delivery),
                // A page of history that had nothing: others have their turn.
                Step::Again => tokio::task::yield_now().await,
                Step::Wait => tokio::select! { biased;
                    () = self.wake.notified() => {}
                    () = ticked(self.ticks.as_mut()) => self.hub.inner.state.lock().tick(self.number),
                },
            }
        }
    }

    pub(super) fn step(&self) -> Result<Step, Ended> {
        let mut state = self.hub.inner.state.lock();
        if let Some(why) = state.ended() {
            return Err(why);
        }
        let next = state.next(self.number);
        drop(state);
        Ok(match next {
            Next::Deliver(delivery) => Step::Deliver(delivery),
            Next::Wait => Step::Wait,
            Next::CatchUp(page) => match self.catch_up(page)? {
                Some(delivery) => Step::Deliver(delivery),
                None => Step::Again,
            },
        })
    }

    /// Gives a slow watcher one page of the store's history.
    fn catch_up(&self, page: CatchUp) -> Result<Option<Delivery>, Ended> {
        let inner = &self.hub.inner;
        let read = self.read_page(&page);
        let mut state = inner.state.lock();
        match read {
            Ok((events, upto)) => Ok(state.caught_up(page.watcher, events, upto)),
            Err(ReadError::Compacted { oldest }) => Ok(Some(state.compacted(page.watcher, oldest + 1))),
            // The node is about to end; it says why elsewhere.
            Err(ReadError::Failed(_) | ReadError::Future { .. }) => Err(Ended::Stopping),
        }
    }

    fn read_page(&self, page: &CatchUp) -> Result<(Vec<Bytes>, Revision), ReadError> {
        let inner = &self.hub.inner;
        let history = inner.store.history(page.after, inner.limits.catch_up_page)?;
        let wanted = history.rows.iter().filter(|row| page.subject.wants(&row.change));
        let wanted: Vec<&HistoryRow> = wanted.collect();
        let previous = match page.subject.previous {
            true => inner.store.replaced(&wanted)?,
            false => vec![None; wanted.len()],
        };
        let rows = wanted.iter().zip(previous);
        let events = rows.map(|(row, previous)| Encoded::new(&row.change, previous).bytes).collect();
        Ok((events, history.upto))
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.hub.inner.state.lock().close(self.number);
    }
}

pub(super) enum Step {
    Deliver(Delivery),
    Again,
    Wait,
}

async fn ticked(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => pending().await,
    }
}
