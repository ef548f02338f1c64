//! The leader is killed, told to stop, or frozen: for how long is no write accepted?
//!
//! Meanwhile the other nodes are written to all the time, with a new write every few
//! milliseconds whether or not the ones before are answered: one that hangs in the old leader
//! holds up nobody. The longest time between two accepted writes is the figure.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_load::target::etcd::{EtcdSession, EtcdTarget};
use bellwether_load::target::{Route, Session, Target};
use bytes::Bytes;
use rustix::process::Signal;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::samples::{Figure, Samples};
use super::{Plan, accepted};
use crate::cluster::Cluster;

/// Between two outages: both systems' election timeouts and then some.
const BETWEEN: Duration = Duration::from_secs(2);
/// Between two writes to a node: the resolution of every time taken here.
const STEP: Duration = Duration::from_millis(5);
/// A write that is not answered by then is given up, so that a node's limit of requests on
/// one connection is not what is measured.
const TRY: Duration = Duration::from_millis(500);
/// Written to before an outage, and after somebody else leads.
const AROUND: Duration = Duration::from_secs(1);
/// Past this no leader is coming.
const GIVE_UP: Duration = Duration::from_secs(60);
const KEY: &str = "outage";

/// What befalls the leader, how that is measured.
const OUTAGES: [(Signal, Figure); 3] = [
    (Signal::KILL, Figure::KilledGap),
    (Signal::TERM, Figure::TerminatedGap),
    (Signal::STOP, Figure::PausedGap),
];

pub async fn run(cluster: &mut Cluster, plan: &Plan, to: &mut Samples) -> Result<()> {
    let all = EtcdTarget::new(&cluster.urls(), None)?;
    for (signal, figure) in OUTAGES {
        for _ in 0..plan.outages {
            sleep(BETWEEN).await;
            let leader = all.leader().await?;
            let gap = gap(cluster, leader, signal).await.with_context(|| format!("{figure:?}"))?;
            to.add(figure, gap.as_secs_f64());
            match signal {
                Signal::STOP => cluster.signal(leader, Signal::CONT)?,
                _ => cluster.start(leader)?,
            }
            accepted::everywhere(&all).await?;
        }
    }
    Ok(())
}

async fn gap(cluster: &mut Cluster, leader: usize, signal: Signal) -> Result<Duration> {
    let mut urls = cluster.urls();
    urls.remove(leader);
    let others = EtcdTarget::new(&urls, None)?;
    let accepted = Rc::new(Accepted::default());
    let tasks = LocalSet::new();
    for node in 0..others.nodes() {
        let session = others.session(Route::Node(node)).await?;
        tasks.spawn_local(keep_writing(session, accepted.clone()));
    }
    let outage = async {
        sleep(AROUND).await;
        cluster.signal(leader, signal)?;
        if signal != Signal::STOP {
            cluster.wait_end(leader).await?;
        }
        timeout(GIVE_UP, until_led(&others)).await.context("nobody took over")?;
        sleep(AROUND).await;
        anyhow::Ok(())
    };
    tasks.run_until(outage).await?;
    accepted.longest_gap().context("no write was accepted")
}

async fn keep_writing(session: EtcdSession, accepted: Rc<Accepted>) {
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        steps.tick().await;
        let (mut session, accepted) = (session.another(), accepted.clone());
        tokio::task::spawn_local(async move {
            let value = Bytes::from_static(b"1");
            if matches!(timeout(TRY, session.put(KEY, &value)).await, Ok(Ok(()))) {
                accepted.now();
            }
        });
    }
}

async fn until_led(others: &EtcdTarget) {
    while others.leader().await.is_err() {
        sleep(STEP).await;
    }
}

/// When writes were accepted.
#[derive(Default)]
struct Accepted {
    last: Cell<Option<Instant>>,
    longest: Cell<Duration>,
}

impl Accepted {
    fn now(&self) {
        self.longest.set(self.longest_gap().unwrap_or_default());
        self.last.set(Some(Instant::now()));
    }

    /// What goes on now counts, too.
    fn longest_gap(&self) -> Option<Duration> {
        Some(self.longest.get().max(self.last.get()?.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_gap_may_be_the_last() {
        let accepted = Accepted::default();
        assert_eq!(accepted.longest_gap(), None);
        for ms in [5, 300, 5] {
            sleep(Duration::from_millis(ms)).await;
            accepted.now();
        }
        assert_eq!(accepted.longest_gap(), Some(Duration::from_millis(300)));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(accepted.longest_gap(), Some(Duration::from_secs(1)));
    }
}
