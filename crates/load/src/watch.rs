//! How many events reach watchers while clients write.
//!
//! Every watcher watches all keys, so each write is one event for each of them. The values
//! carry when they were sent: a latency is from the start of a write to the moment when a
//! watcher hears of it, taken from the first event of each message, which waited longest.
//! At the end every watcher must have been told every write.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Shared};
use crate::keys::KEY_PREFIX;
use crate::load::Load;
use crate::outcome::Outcome;
use crate::tally::{Tally, bump};
use crate::target::etcd::{EtcdTarget, Watcher, told_value};
use crate::target::{Route, Target, spawn_each};
use crate::window::measure;

/// For the last events, after the last write.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// As [`crate::run()`]; operations are events that reached a watcher.
pub async fn run(target: &EtcdTarget, load: &Load, servers: &[u32], title: &str) -> Result<Outcome> {
    let shared = Shared::new(load)?;
    let heard = Rc::new(Heard { tally: Tally::new(load.extent)?, events: Cell::default() });
    let tasks = LocalSet::new();
    for watcher in target.watch(KEY_PREFIX, Route::Spread, load.watchers).await? {
        tasks.spawn_local(listen(watcher, shared.clone(), heard.clone()));
    }
    let groups = target.sessions(load.workload.route(), load.clients).await?;
    let writer = |session, number| Ok(Client::new(session, shared.clone(), number)?.run());
    let writers = spawn_each(groups, &tasks, writer)?;
    let measuring = async {
        let measured = measure(load, servers, title, &shared.tally).await?;
        for writer in writers {
            let ended = timeout(PATIENCE, writer).await.context("a writer got no answer")?;
            ended.context("a writer panicked")?;
        }
        all_told(&shared, &heard).await?;
        anyhow::Ok(measured)
    };
    let measured = tasks.run_until(measuring).await?;
    heard.tally.take_failures(&shared.tally);
    Ok(Outcome::new(load, &heard.tally, &measured))
}

/// What watchers were told. The writers have a tally of their own, which ends the window.
struct Heard {
    tally: Rc<Tally>,
    /// In the whole run, the warm-up included.
    events: Cell<u64>,
}

async fn listen(mut watcher: Watcher, shared: Rc<Shared>, heard: Rc<Heard>) {
    loop {
        let events = match watcher.events().await {
            Ok(events) => events,
            Err(error) => return heard.tally.fail(&error),
        };
        bump(&heard.events, events.len() as u64);
        if !shared.tally.is_open() {
            continue;
        }
        bump(&heard.tally.operations, events.len() as u64);
        match events.into_iter().next().map(|event| sent_at(event, shared.start)) {
            Some(Ok(sent)) => heard.tally.record(sent, Instant::now()),
            Some(Err(error)) => heard.tally.fail(&error),
            None => (),
        }
    }
}

/// A write whose outcome is unknown may or may not be told, so after one nothing is awaited.
async fn all_told(shared: &Shared, heard: &Heard) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let expected = shared.announced.get() * shared.load.watchers as u64;
    let sure = || shared.tally.errors.get() == 0;
    while sure() && heard.events.get() < expected && Instant::now() < deadline {
        sleep(POLL).await;
    }
    let events = heard.events.get();
    ensure!(!sure() || events >= expected, "{events} events came of {expected}");
    Ok(())
}

/// A value of the same length, if it has room for a time, that tells when it was sent.
pub(crate) fn stamped(value: &Bytes, start: Instant) -> Bytes {
    let mut stamped = BytesMut::with_capacity(value.len().max(size_of::<u64>()));
    stamped.put_u64(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    stamped.extend_from_slice(value.get(size_of::<u64>()..).unwrap_or_default());
    stamped.freeze()
}

fn sent_at(event: Bytes, start: Instant) -> Result<Instant> {
    let mut value = told_value(event)?;
    ensure!(value.len() >= size_of::<u64>(), "an event of somebody else's write");
    Ok(start + Duration::from_nanos(value.get_u64()))
}
