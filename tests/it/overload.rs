//! More clients than a cluster can serve: refused early, in bounded memory, and without
//! costing the nodes each other. The same for a whole minute, with figures: `just overload`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::support::{
    Cluster, PATIENCE, PATIENT, Peace, Peak, Raw, Request, Session, alone, eventually, may_open, open_files,
    resident_bytes,
};

/// Requests that the cluster of the storm works on at once, and ten times as many writers.
const SERVED_AT_ONCE: &str = "32";
const WRITERS: usize = 320;
/// The storm goes on until so many writes were acknowledged, and as many refused.
const ENOUGH: u64 = 2_000;
/// Of a writer that was refused. It does not wait as long as it was told to.
const PAUSE: Duration = Duration::from_millis(5);
/// What a node may take for the storm; that of `just overload` is stated in
/// `docs/reliability.md`.
const MAX_STORM_BYTES: u64 = 128 << 20;
const IDLE_CONNECTIONS: usize = 5_000;
/// Open files of this process beside those connections: other tests run in it, too.
const OTHER_FILES: u64 = 2_000;
/// For one idle connection, with its buffers and its task. Half of that was measured.
const MAX_IDLE_BYTES: u64 = 48 * 1024;
/// New connections in each tick, and ticks: a thousand a second for three seconds.
const NEWCOMERS: usize = 100;
const TICK: Duration = Duration::from_millis(100);
const TICKS: usize = 30;
/// Peers connect anew now and then, and a file may just be open.
const FILES_BESIDE: usize = 16;

/// What the writers saw.
#[derive(Default)]
struct Storm {
    over: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

/// Writes its own key again and again; returns the last value that was acknowledged.
async fn writer(storm: Arc<Storm>, port: u16, key: String) -> u64 {
    let mut session = Session::open(port).await.expect("the leader listens");
    let (mut value, mut acknowledged) = (0, 0);
    while !storm.over.load(Ordering::Relaxed) {
        value += 1;
        let reply = session.send(Request::put(format!("/key/{key}"), value.to_string())).await;
        let reply = reply.unwrap_or_else(|error| panic!("{key}: {error}"));
        match reply.status.as_u16() {
            200 => {
                acknowledged = value;
                storm.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            429 | 503 => {
                assert!(reply.header("retry-after").is_some(), "{reply:?}");
                assert_eq!(reply.json()["outcome"], "not_applied");
                storm.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            // It timed out: it may be there or not, which the next write settles.
            504 => {}
            status => panic!("{key}: {status}: {}", reply.text()),
        }
    }
    acknowledged
}

/// A storm of writers on a cluster that works on so many requests at once, until both counts
/// are reached; every acknowledged write is then read.
async fn storm(served_at_once: &str, enough_refused: u64) -> Arc<Storm> {
    let cluster = Cluster::started(3, &[PATIENT, ("MAX_INFLIGHT_REQUESTS", served_at_once)]).await;
    let peace = Peace::of(&cluster).await;
    let leader = peace.leader();
    let memory: Vec<Peak> = (0..3).map(|i| Peak::watch(cluster.pid(i))).collect();
    let storm = Arc::<Storm>::default();
    let spawn = |n| tokio::spawn(writer(storm.clone(), cluster.port(leader), format!("storm/{n}")));
    let writers: Vec<_> = (0..WRITERS).map(spawn).collect();
    eventually(PATIENCE * 3, || async {
        let now = (storm.acknowledged.load(Ordering::Relaxed), storm.refused.load(Ordering::Relaxed));
        if now.0 >= ENOUGH && now.1 >= enough_refused { Ok(()) } else { Err(format!("only {now:?}")) }
    })
    .await;
    // What operators look at is served in the storm, too.
    cluster.get(leader, "/status").await.expect(200);
    storm.over.store(true, Ordering::Relaxed);
    let acknowledged = join_all(writers).await;
    for (i, memory) in memory.iter().enumerate() {
        let grown = memory.growth();
        println!("{}: {} MiB more", cluster.name(i), grown >> 20);
        assert!(grown < MAX_STORM_BYTES, "{} took {grown} bytes more", cluster.name(i));
    }
    peace.expect_kept(&cluster, "the storm").await;
    for (n, acknowledged) in acknowledged.into_iter().enumerate() {
        let acknowledged = acknowledged.expect("a writer panicked");
        if acknowledged == 0 {
            continue;
        }
        let target = format!("/key/storm/{n}?consistency=linearizable");
        let found = cluster.get(leader, &target).await.expect(200).json()["value"].as_u64();
        assert!(
            found >= Some(acknowledged),
            "storm/{n}: {acknowledged} was acknowledged, {found:?} is there"
        );
    }
    cluster.wait_equal_hashes().await;
    storm
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_more_writers_than_are_served_are_refused_early() {
    let _alone = alone().await;
    let storm = storm(SERVED_AT_ONCE, ENOUGH).await;
    println!("{:?} acknowledged, {:?} refused", storm.acknowledged, storm.refused);
}

/// The refusals come from the limit, and from nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_limit_the_same_writers_are_all_served() {
    let _alone = alone().await;
    let storm = storm("1000000", 0).await;
    assert_eq!(storm.refused.load(Ordering::Relaxed), 0);
}

/// A connection that was used once and is kept.
async fn idle(port: u16) -> Raw {
    let mut client = Raw::connect(port).await.expect("the node listens");
    assert!(client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await);
    assert_eq!(client.hear_head().await.status(), Some(200));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_connections_cost_little_and_nobody_their_service() {
    let _alone = alone().await;
    let room = usize::try_from(may_open().saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let connections = IDLE_CONNECTIONS.min(room);
    println!("{connections} connections of {IDLE_CONNECTIONS}");
    let cluster = Cluster::started(3, &[PATIENT]).await;
    let peace = Peace::of(&cluster).await;
    let (leader, pid) = (peace.leader(), cluster.pid(peace.leader()));
    let (files, memory) = (open_files(pid), resident_bytes(pid));
    let mut clients = Vec::new();
    while clients.len() < connections {
        let batch = (0..100.min(connections - clients.len())).map(|_| idle(cluster.port(leader)));
        clients.extend(join_all(batch).await);
    }
    let open = open_files(pid);
    assert!(open + FILES_BESIDE >= files + connections, "{open} files are open, {files} were before");
    let each = resident_bytes(pid).saturating_sub(memory) / connections as u64;
    println!("{each} bytes for one idle connection");
    assert!(each < MAX_IDLE_BYTES, "an idle connection costs {each} bytes");
    for i in 0..3 {
        cluster.put(leader, &format!("/key/{i}"), &json!(i).to_string()).await.expect(200);
        let target = format!("/key/{i}?consistency=linearizable");
        cluster.get(i, &target).await.expect_json(200, json!({"value": i}));
    }
    peace.expect_kept(&cluster, "idle connections").await;
    drop(clients);
    expect_files_given_back(pid, files).await;
}

async fn expect_files_given_back(pid: u32, before: usize) {
    eventually(PATIENCE, || async {
        let now = open_files(pid);
        if now <= before + FILES_BESIDE { Ok(()) } else { Err(format!("{now} files open, {before} before")) }
    })
    .await;
}

/// One of those who come: leaves at once, in the middle of a request, or served.
async fn newcomer(port: u16, kind: usize) -> bool {
    let Ok(mut client) = Raw::connect(port).await else { return false };
    match kind {
        0 => false,
        1 => !client.send(b"GET /key/a HTT").await,
        _ => {
            client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.hear_head().await.status() == Some(200)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_new_connections_a_second_leave_nothing_behind() {
    let _alone = alone().await;
    let cluster = Cluster::started(3, &[PATIENT]).await;
    let peace = Peace::of(&cluster).await;
    let (leader, pid) = (peace.leader(), cluster.pid(peace.leader()));
    let (files, memory) = (open_files(pid), Peak::watch(pid));
    let mut tick = tokio::time::interval(TICK);
    let mut served = 0;
    for n in 0..TICKS {
        tick.tick().await;
        let newcomers = (0..NEWCOMERS).map(|kind| newcomer(cluster.port(leader), kind % 4));
        served += join_all(newcomers).await.into_iter().filter(|served| *served).count();
        if n % 10 == 0 {
            cluster.put(leader, &format!("/key/{n}"), "1").await.expect(200);
        }
    }
    println!("{served} of {} served, {} MiB more", TICKS * NEWCOMERS / 2, memory.growth() >> 20);
    assert!(served > 0, "nobody was served");
    expect_files_given_back(pid, files).await;
    assert!(memory.growth() < MAX_STORM_BYTES, "{} bytes", memory.growth());
    peace.expect_kept(&cluster, "new connections").await;
    cluster.wait_equal_hashes().await;
}
