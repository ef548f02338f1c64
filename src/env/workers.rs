//! Work that blocks on the disk, away from the threads that serve requests.
//!
//! A worker is a synchronous function over batches of jobs: everything that queued
//! while the last batch ran comes as the next one, which is what makes group commit.
//! In production a thread drives it; in a simulation a task on simulated time does.

use std::io;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::env::random::rng;

/// Jobs handed to a worker in one batch at most: bounds the memory of one disk write.
const MAX_BATCH: usize = 4096;

#[derive(Clone)]
pub enum Workers {
    /// One operating-system thread a worker.
    Threads,
    /// One task a worker; before each batch it sleeps for what `delay` says, as a
    /// disk would.
    Tasks { delay: fn() -> Duration },
}

/// The sending end of a worker's queue. The worker ends when all of them are dropped.
pub struct Worker<J>(mpsc::UnboundedSender<J>);

impl<J> Clone for Worker<J> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J> Worker<J> {
    /// False when the worker has ended; the job is dropped then.
    pub fn send(&self, job: J) -> bool {
        self.0.send(job).is_ok()
    }
}

impl Workers {
    /// Whether a worker's work may be done by who would hand it over. In a simulation, where
    /// that takes no time, now and then.
    pub fn may_be_spared(&self) -> bool {
        match self {
            Workers::Threads => true,
            Workers::Tasks { .. } => rng().random(),
        }
    }

    /// Runs one long job away from the threads that serve requests, and waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, result) = oneshot::channel();
        let mut job = Some(job);
        let worker = self.spawn(name, move |batch: &mut Vec<oneshot::Sender<T>>| {
            if let (Some(job), Some(sender)) = (job.take(), batch.pop()) {
                // Whoever asked may have given up.
                let _ = sender.send(job());
            }
        });
        worker.send(sender);
        result.await.map_err(|_| io::Error::other(format!("the worker {name} ended without a result")))
    }

    /// Does two things, at the same time if it can, and waits for both. The first must not need
    /// a runtime.
    pub fn both<A: Send, B>(
        &self,
        name: &str,
        first: impl FnOnce() -> A + Send,
        second: impl FnOnce() -> B,
    ) -> io::Result<(A, B)> {
        match self {
            Workers::Tasks { .. } => Ok((first(), second())),
            Workers::Threads => std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().name(name.to_owned());
                let first = thread.spawn_scoped(scope, first)?;
                let second = second();
                let ended = |_| io::Error::other(format!("the thread {name} ended without a result"));
                Ok((first.join().map_err(ended)?, second))
            }),
        }
    }

    /// Starts a worker named `name` (at most 15 bytes: the kernel cuts the rest).
    /// `handle` must leave the batch empty.
    pub fn spawn<J: Send + 'static>(
        &self,
        name: &str,
        mut handle: impl FnMut(&mut Vec<J>) + Send + 'static,
    ) -> Worker<J> {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        match *self {
            Workers::Threads => {
                let run = move || {
                    let mut batch = Vec::new();
                    while jobs.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
                        handle(&mut batch);
                        batch.clear();
                    }
                };
                let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
                if let Err(error) = spawned {
                    // Without its worker the sender's queue is closed: every caller sees it.
                    tracing::error!(%error, name, "cannot start a thread");
                }
            }
            Workers::Tasks { delay } => {
                tokio::spawn(async move {
                    let mut batch = Vec::new();
                    while jobs.recv_many(&mut batch, MAX_BATCH).await > 0 {
                        tokio::time::sleep(delay()).await;
                        handle(&mut batch);
                        batch.clear();
                    }
                });
            }
        }
        Worker(sender)
    }
}
