//! When is the next write accepted, whoever accepts it?

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use bellwether_load::target::{Freshness, Route, Session, Target};

/// Between two tries at one node: the resolution of every time taken here.
const RETRY: Duration = Duration::from_millis(5);
/// A try that is not answered by then is given up and made anew: a node that holds a
/// request during an election may have lost it.
const TRY: Duration = Duration::from_millis(500);
/// Past this the cluster is not coming.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Outside the keys of the loads.
const KEY: &str = "accepted";

/// Returns as soon as any node has accepted a write; all are asked all the time.
pub async fn by_any<T: Target>(target: &T) -> Result<()> {
    let tries = (0..target.nodes()).map(|node| Box::pin(until_accepted(target, node))).collect();
    timeout(GIVE_UP, first(tries)).await.context("no node accepted a write")
}

async fn until_accepted<T: Target>(target: &T, node: usize) {
    let value = Bytes::from_static(b"1");
    until_done(async || target.session(Route::Node(node)).await?.put(KEY, &value).await).await;
}

/// Returns when every node answers linearizable reads, so each is a full member again.
pub async fn everywhere<T: Target>(target: &T) -> Result<()> {
    for node in 0..target.nodes() {
        let read = async || -> Result<()> {
            let mut session = target.session(Route::Node(node)).await?;
            match session.get(KEY, Freshness::Linearizable).await? {
                true => Ok(()),
                false => bail!("it doesn't know what was accepted before"),
            }
        };
        timeout(GIVE_UP, until_done(read)).await.context("a node didn't come back")?;
    }
    Ok(())
}

/// Tries until it succeeds.
pub async fn until_done(mut attempt: impl AsyncFnMut() -> Result<()>) {
    while !matches!(timeout(TRY, attempt()).await, Ok(Ok(()))) {
        sleep(RETRY).await;
    }
}

/// The first of these to end; the others are dropped.
async fn first<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|context| {
        let ready = futures.iter_mut().find_map(|future| match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
