//! Disks that are full or broken under real processes: writes are refused in time, or the
//! node stops; nothing that was acknowledged is lost, and the others go on.
//!
//! Full disks are small file systems in memory, which only root may mount: for others
//! those tests say that they are skipped. Errors are those of `/v1/lab/disk`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Cluster, Lab, Observer, PATIENCE, Request, Settings, Workload, eventually};

/// Room for the table, a few segments of the log, and the reserve.
const DISK_BYTES: u64 = 32 << 20;
/// Settings that let a node live on it.
const SMALL: [(&str, &str); 2] = [("LOG_SEGMENT_BYTES", "1048576"), ("MIN_FREE_BYTES", "8388608")];
const RESERVE_BYTES: u64 = 8 << 20;
/// The twin: nothing is kept back, and the disk fills to its end.
const NO_RESERVE: [(&str, &str); 2] = [("LOG_SEGMENT_BYTES", "65536"), ("MIN_FREE_BYTES", "0")];
const VALUE_BYTES: usize = 100_000;
const SOME_KEYS: usize = 50;
/// More than a small disk holds.
const MANY_VALUES: usize = 2 * DISK_BYTES as usize / VALUE_BYTES;

/// A small file system in memory, gone when it is dropped.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// `None`, and a word about it, where only root could.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory of the test's own");
        let size = format!("size={DISK_BYTES}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "bellwether-test"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at: at.to_owned() }),
            Ok(output) => {
                println!("skipped: cannot mount a small disk: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: cannot mount a small disk: {error}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).expect("a mounted disk");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it until no more than `left` is free.
    fn fill(&self, left: u64) {
        let ballast = vec![0; self.free().saturating_sub(left) as usize];
        // What a node takes at the same moment makes it end early, with the disk full.
        let _ = fs::write(self.ballast(), ballast);
        assert!(self.free() <= left, "{} bytes are free", self.free());
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node may still run on it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// Three nodes, each on a small disk; the disks go first when it is dropped.
struct Cramped {
    disks: Vec<SmallDisk>,
    cluster: Arc<Cluster>,
}

impl Cramped {
    async fn started(env: &[(&str, &str)]) -> Option<Self> {
        let cluster = Cluster::new(3, env);
        let disks = (0..3).map(|i| SmallDisk::mount(&cluster.data_dir(i))).collect::<Option<_>>()?;
        cluster.start_all().await;
        cluster.wait_leader().await;
        Some(Self { disks, cluster: Arc::new(cluster) })
    }
}

fn value(key: usize) -> String {
    format!("{key}-{}", "v".repeat(VALUE_BYTES))
}

/// Waits until a write is answered so; returns the reply.
async fn eventually_answers(cluster: &Cluster, at: usize, target: &str, status: u16) -> Value {
    eventually(PATIENCE, || async {
        let reply = cluster.send(at, Request::put(target, "1")).await.map_err(|error| error.to_string())?;
        if reply.status == status {
            Ok(reply.json())
        } else {
            Err(format!("{}: {}", reply.status, reply.text()))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_growth_is_refused_and_the_rest_goes_on() {
    let Some(Cramped { disks, cluster }) = Cramped::started(&SMALL).await else { return };
    let leader = cluster.wait_leader().await;
    let follower = (leader + 1) % 3;
    for key in 0..SOME_KEYS {
        cluster.put(leader, &format!("/key/{key}"), "1").await.expect(200);
    }
    disks[leader].fill(RESERVE_BYTES / 2);
    let refused = eventually_answers(&cluster, leader, "/key/more", 429).await;
    assert_eq!(refused["outcome"], "not_applied", "{refused}");
    assert!(refused.to_string().contains("disk is nearly full"), "it says why: {refused}");
    let forwarded = cluster.put(follower, "/key/more?forward=true", "1").await;
    forwarded.expect_json(429, json!({"outcome": "not_applied"}));
    // Everything that does not grow goes on, for long.
    for key in 0..SOME_KEYS {
        let target = format!("/key/{key}?forward=true");
        let read = format!("/key/{key}?consistency=linearizable");
        cluster.get(leader, &read).await.expect_json(200, json!({"value": 1}));
        cluster.delete(leader, &target).await.expect(200);
        cluster.get(leader, &read).await.expect(404);
    }
    assert!(cluster.runs(leader));

    disks[leader].make_room();
    eventually_answers(&cluster, leader, "/key/more", 200).await;
    cluster.wait_equal_hashes().await;
}

/// A writer that does not stop runs into the reserve, not into the end of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_filled_by_writes_is_never_filled_to_its_end() {
    let Some(Cramped { disks, cluster }) = Cramped::started(&SMALL).await else { return };
    let leader = cluster.wait_leader().await;
    let acknowledged = write_until_refused(&cluster).await;
    println!("{acknowledged} values before the reserve, {} bytes left", disks[leader].free());
    assert!(disks.iter().all(|disk| disk.free() > 0));
    for key in 0..acknowledged {
        let read = cluster.get(leader, &format!("/key/{key}?consistency=linearizable")).await.expect(200);
        assert_eq!(read.json()["value"], json!(value(key)), "key {key}");
        cluster.delete(leader, &format!("/key/{key}?forward=true")).await.expect(200);
    }
    // Compaction makes room for others, though the file keeps its size.
    let revision = cluster.get(leader, "/status").await.json()["revision"].clone();
    let target = format!("/v1/compact?forward=true&revision={revision}");
    cluster.ask(leader, Request::new(http::Method::POST, target)).await.expect(200);
    assert!((0..3).all(|i| cluster.runs(i)));
}

/// Writes until the reserve is reached; says how many values were acknowledged.
async fn write_until_refused(cluster: &Cluster) -> usize {
    let mut acknowledged = 0;
    while acknowledged < MANY_VALUES {
        let body = json!(value(acknowledged)).to_string();
        let reply = cluster.put(0, &format!("/key/{acknowledged}?forward=true"), &body).await;
        match reply.status.as_u16() {
            200 => acknowledged += 1,
            429 if reply.text().contains("disk is nearly full") => {
                reply.expect_json(429, json!({"outcome": "not_applied"}));
                return acknowledged;
            }
            // Debug builds on a busy machine stall; the same value may be written again.
            429 | 503 | 504 => drop(cluster.wait_leader().await),
            _ => panic!("value {acknowledged}: {}", reply.text()),
        }
    }
    panic!("{acknowledged} values went onto disks without room for them")
}

/// The twins: without a reserve the disk fills to its end, and the node stops rather than
/// lie about a write.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_stops_and_loses_nothing() {
    full_to_the_end(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_is_full_stops_and_loses_nothing() {
    full_to_the_end(false).await;
}

async fn full_to_the_end(leads: bool) {
    let Some(Cramped { disks, cluster }) = Cramped::started(&NO_RESERVE).await else { return };
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(&cluster, Settings { seed: 7, clients: 6 });
    workload.wait_progress(50).await;
    let leader = cluster.wait_leader().await;
    let victim = if leads { leader } else { (leader + 1) % 3 };
    disks[victim].fill(0);
    expect_failed(&cluster, victim, "No space left").await;
    // A start on a full disk fails as plainly.
    assert_eq!(cluster.try_start(victim).await, Err(Some(1)));
    let others = [(victim + 1) % 3, (victim + 2) % 3];
    cluster.wait_leader_among(&others).await;
    workload.wait_progress(50).await;
    disks[victim].make_room();
    cluster.start(victim).await;
    cluster.wait_leader().await;
    workload.wait_progress(50).await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
    cluster.wait_equal_hashes().await;
}

/// The node has stopped by itself, not cleanly, and said why.
async fn expect_failed(cluster: &Cluster, i: usize, why: &str) {
    let log = || fs::read_to_string(cluster.log_path(cluster.name(i))).unwrap_or_default();
    assert_eq!(cluster.wait_exit(i).await, Some(1), "{}", log());
    let log = log();
    assert!(log.contains(why), "it does not say {why:?}:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
}

impl Lab {
    /// Makes the next call of this kind fail, on files whose path contains `path`.
    async fn fail_disk(&self, at: usize, fault: &str, path: &str) {
        let rules = json!({"fail": fault, "path": path}).to_string();
        self.cluster.ask(at, Request::put("/v1/lab/disk", rules)).await.expect(200);
    }
}

/// One fault after the other, each on a leader and on a follower, under clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_its_node_and_loses_nothing() {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(cluster, Settings { seed: 8, clients: 6 });
    let faults = [
        ("sync", ".seg", "failed to sync"),
        ("sync", "state.redb", "failed to sync"),
        ("full", ".seg", "no storage space"),
        ("full", "state.redb", "no storage space"),
    ];
    for (number, (fault, path, why)) in faults.into_iter().enumerate() {
        for leads in [true, false] {
            let leader = cluster.wait_leader().await;
            let victim = if leads { leader } else { (leader + 1 + number % 2) % 3 };
            println!("{fault} of {path} at {} (leads: {leads})", cluster.name(victim));
            lab.fail_disk(victim, fault, path).await;
            expect_failed(cluster, victim, why).await;
            cluster.wait_leader_among(&lab.others(victim)).await;
            workload.wait_progress(20).await;
            let _ = fs::remove_file(cluster.log_path(cluster.name(victim)));
            cluster.start(victim).await;
        }
    }
    lab.expect_whole().await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
}

/// Nobody else vouches for a write of a single node: what its disk failed to sync must
/// not be acknowledged, though the next sync would succeed.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_synced_is_not_acknowledged() {
    for ack in ["leader", "quorum", "all"] {
        let lab = Lab { cluster: Arc::new(Cluster::started(1, &[("LAB", "true")]).await) };
        let cluster = &lab.cluster;
        cluster.put(0, "/key/before", "1").await.expect(200);
        lab.fail_disk(0, "sync", ".seg").await;
        for key in ["first", "second"] {
            let target = format!("/key/{key}?ack={ack}");
            if let Ok(reply) = cluster.send(0, Request::put(target, "1")).await {
                assert!(reply.status.as_u16() >= 500, "{ack}: {}", reply.text());
                assert_ne!(reply.json()["outcome"], "applied", "{}", reply.text());
            }
        }
        expect_failed(cluster, 0, "failed to sync").await;
        cluster.start(0).await;
        cluster.wait_leader().await;
        let read = cluster.get(0, "/key/before?consistency=linearizable").await;
        read.expect_json(200, json!({"value": 1}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_can_be_failed_in_the_laboratory_only() {
    let cluster = Cluster::started(1, &[]).await;
    for request in [Request::get("/v1/lab/disk"), Request::put("/v1/lab/disk", r#"{"fail":"sync"}"#)] {
        let reply = cluster.ask(0, request).await.expect_json(404, json!({"error": "Not found"}));
        assert!(reply.text().contains("--lab"), "{}", reply.text());
    }
    let lab = Cluster::started(1, &[("LAB", "true")]).await;
    lab.put(0, "/v1/lab/disk", r#"{"fail":"read"}"#).await.expect(400);
    lab.put(0, "/v1/lab/disk", r#"{"fail":"sync","path":"nowhere"}"#).await.expect(200);
    let state = lab.get(0, "/v1/lab/disk").await;
    state.expect_json(200, json!({"armed": {"fail": "sync", "path": "nowhere"}, "struck": 0}));
    lab.put(0, "/v1/lab/disk", r#"{"fail":null}"#).await.expect_json(200, json!({"armed": null}));
}
