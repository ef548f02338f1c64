//! Watchers that go on elsewhere, by revision, when nodes die or were left behind: no gap,
//! no duplicate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bellwether::proto::etcdserverpb::WatchCreateRequest;
use tonic::{Code, Status};

use crate::support::{Cluster, Etcd, PATIENCE, PATIENT, Watch, eventually};

/// Writes between two kills.
const WRITES: i64 = 60;
const WATCHERS: usize = 6;
/// Everything that the writer writes, and nothing else, is below it.
const PREFIX: &str = "watched/";

fn from(revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: PREFIX.into(),
        range_end: "watched0".into(),
        start_revision: revision,
        ..WatchCreateRequest::default()
    }
}

/// A client that follows every change from revision 2 on, and asks the next node when one
/// does not answer. Each revision has one change, so it knows what must come.
struct Follower {
    cluster: Arc<Cluster>,
    node: usize,
    next: i64,
    watch: Option<Watch>,
    resumed: usize,
}

impl Follower {
    fn new(cluster: Arc<Cluster>, node: usize) -> Self {
        Self { cluster, node, next: 2, watch: None, resumed: 0 }
    }

    async fn resume(&mut self) -> Result<Watch, String> {
        self.node = (self.node + 1) % self.cluster.len();
        let etcd = Etcd::connect(self.cluster.port(self.node)).await?;
        let watch = etcd.watch().await.map_err(|status| status.to_string())?;
        watch.create(from(self.next));
        Ok(watch)
    }

    /// Takes one response; a failure costs the stream, never a change.
    async fn step(&mut self) -> Result<(), String> {
        let mut watch = match self.watch.take() {
            Some(watch) => watch,
            None => self.resume().await?,
        };
        let response = match watch.try_next().await {
            Ok(response) => response,
            Err(status) => {
                expect_resumable(&status);
                self.resumed += 1;
                return Ok(());
            }
        };
        assert!(!response.canceled, "{response:?}");
        for event in response.events {
            let revision = event.kv.expect("a key").mod_revision;
            assert_eq!(
                revision,
                self.next,
                "at {}, resumed {} times",
                self.cluster.name(self.node),
                self.resumed
            );
            self.next += 1;
        }
        self.watch = Some(watch);
        Ok(())
    }

    /// Until it was told the last revision, once that is known; says how often it resumed.
    async fn follow_to(mut self, last: Arc<AtomicI64>) -> usize {
        let deadline = Instant::now() + PATIENCE * 6;
        loop {
            let upto = last.load(Ordering::Relaxed);
            if upto > 0 && self.next > upto {
                return self.resumed;
            }
            // A node that is down is asked again in its turn.
            if let Err(why) = self.step().await {
                assert!(Instant::now() < deadline, "at revision {} of {upto}: {why}", self.next);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// As etcd's clients judge it: with other codes they give up.
fn expect_resumable(status: &Status) {
    let broken =
        status.code() == Code::Unknown || status.code() == Code::Internal || status.code() == Code::Cancelled;
    assert!(status.code() == Code::Unavailable || broken, "{status:?}");
}

/// Writes until told to stop, through whichever node answers. Which of its writes were
/// carried out does not matter: each that was has its revision.
async fn write(cluster: Arc<Cluster>, written: Arc<AtomicI64>, stop: Arc<AtomicBool>) {
    let mut node = 0;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(etcd) = Etcd::connect(cluster.port(node)).await else {
            node = (node + 1) % cluster.len();
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            match etcd.write(format!("{PREFIX}{}", number % 10), number.to_string()).await {
                Ok(_) => drop(written.fetch_add(1, Ordering::Relaxed)),
                Err(_) => break,
            }
        }
        node = (node + 1) % cluster.len();
    }
}

async fn until_written(written: &AtomicI64, more: i64) {
    let goal = written.load(Ordering::Relaxed) + more;
    eventually(PATIENCE * 2, async || {
        let written = written.load(Ordering::Relaxed);
        if written >= goal { Ok(()) } else { Err(format!("{written} of {goal} writes")) }
    })
    .await;
}

/// The current revision of the whole cluster, when all writers have stopped.
async fn last_revision(cluster: &Cluster) -> i64 {
    let leader = cluster.wait_leader().await;
    cluster.wait_equal_hashes().await;
    let status = cluster.status(leader).await.expect("it answers");
    status["revision"].as_i64().expect("a revision")
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_killed_and_nobody_misses_a_change_or_hears_it_twice() {
    let cluster = Arc::new(Cluster::started(3, &[PATIENT]).await);
    let last = Arc::new(AtomicI64::new(0));
    let followers: Vec<_> = (0..WATCHERS)
        .map(|n| tokio::spawn(Follower::new(cluster.clone(), n).follow_to(last.clone())))
        .collect();
    let (written, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn(write(cluster.clone(), written.clone(), stop.clone()));
    until_written(&written, WRITES).await;
    for round in 0..3 {
        let leader = cluster.wait_leader().await;
        // The leader, or one that only serves.
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        cluster.kill9(victim);
        until_written(&written, WRITES).await;
        cluster.start(victim).await;
        until_written(&written, WRITES).await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    // One more, which lets go those who wait for it.
    last.store(last_revision(&cluster).await + 1, Ordering::Relaxed);
    let etcd = Etcd::connect(cluster.port(0)).await.expect("it listens");
    etcd.write(format!("{PREFIX}last"), "").await.expect("written");
    let mut resumed = 0;
    for follower in followers {
        resumed += follower.await.expect("a follower");
    }
    assert!(resumed > 0, "no stream was ever broken");
}

/// A member that was stopped for so long that it gets a snapshot: those who watch it hear
/// every change all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_open_watches_skips_nothing() {
    const MAX_WRITES_TO_A_PURGE: u32 = 100_000;
    const PURGES: &[(&str, &str)] = &[
        ("LOG_KEEP_ENTRIES", "20"),
        ("SNAPSHOT_EVERY_ENTRIES", "50"),
        ("LOG_SEGMENT_BYTES", "65536"),
        PATIENT,
    ];
    let cluster = Cluster::started(3, PURGES).await;
    let leader = cluster.wait_leader().await;
    let stopped = (leader + 1) % 3;
    let etcd = Etcd::connect(cluster.port(stopped)).await.expect("it listens");
    let mut watch = etcd.watch().await.expect("served");
    watch.created(from(0)).await;
    cluster.pause(stopped);
    let etcd = Etcd::connect(cluster.port(leader)).await.expect("it listens");
    let padding = "x".repeat(1_000);
    let mut last = 0;
    // Until the leader does not have any more what the stopped one needs next.
    let needed = cluster.data_dir(leader).join("log/00000001.seg");
    for n in 0.. {
        if !needed.exists() {
            break;
        }
        assert!(n < MAX_WRITES_TO_A_PURGE, "the log is never purged");
        last = etcd.write(format!("{PREFIX}{}", n % 7), format!("{n} {padding}")).await.expect("written");
    }
    cluster.resume(stopped);
    let mut next = 2;
    while next <= last {
        for event in watch.next().await.events {
            assert_eq!(event.kv.expect("a key").mod_revision, next);
            next += 1;
        }
    }
    let log = std::fs::read_to_string(cluster.log_path(cluster.name(stopped))).expect("a log");
    assert!(log.contains("installed a snapshot"), "no snapshot was needed");
    cluster.wait_equal_hashes().await;
}
