//! Puts a load on a target, and fills a store before.
//!
//! All clients run as tasks of one thread and count into one tally. They run through a
//! warm-up first; then the window opens: counts, latencies and the processors' time of the
//! servers and of this process are taken between its two ends, and only what *ends* inside
//! it counts.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context, Result};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::client::{Client, Shared};
use crate::keys::{Values, write_key};
use crate::load::{ANSWER_TIMEOUT, Load};
use crate::outcome::Outcome;
use crate::target::{Route, Session, Target, spawn_each};
use crate::window::measure;

/// Runs the load and measures; `servers` are the process ids whose time and memory count.
pub async fn run<T: Target>(target: &T, load: &Load, servers: &[u32], title: &str) -> Result<Outcome> {
    let groups = target.sessions(load.workload.route(), load.clients).await?;
    let shared = Shared::new(load)?;
    let clients = LocalSet::new();
    spawn_each(groups, &clients, |session, number| Ok(Client::new(session, shared.clone(), number)?.run()))?;
    let measured = clients.run_until(measure(load, servers, title, &shared.tally)).await?;
    let outcome = Outcome::new(load, &shared.tally, &measured);
    // The clients notice at their next answer; one that never gets it is dropped.
    drop(clients);
    Ok(outcome)
}

/// Writes every key once, with this many clients.
pub async fn fill<T: Target>(target: &T, keys: u64, value_bytes: usize, clients: usize) -> Result<()> {
    let values = Rc::new(Values::new(value_bytes, keys));
    let next = Rc::new(Cell::new(0));
    let tasks = LocalSet::new();
    let groups = target.sessions(Route::Leader, clients).await?;
    let running = spawn_each(groups, &tasks, |mut session, _| {
        let (next, values) = (next.clone(), values.clone());
        Ok(async move {
            let mut key = String::new();
            while next.get() < keys {
                let number = next.replace(next.get() + 1);
                write_key(&mut key, number);
                let put = timeout(ANSWER_TIMEOUT, session.put(&key, values.get(number))).await;
                put.with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"))??;
            }
            anyhow::Ok(())
        })
    })?;
    tasks.await;
    for task in running {
        task.await.context("a client panicked")?.context("filling the store")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
