//! Clients that take their time: dripping, silent, half closed, and never reading. And
//! crowds of them: what peers and well-meaning clients need is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{
    Cluster, PATIENCE, PATIENT, Peace, Peak, Raw, Request, Settings, Workload, alone, eventually, may_open,
    open_files,
};

/// Of each kind of slow client, at the leader.
const SLOW_CLIENTS: usize = 50;
/// A value near the largest, and readers of it whose replies together are far beyond the
/// budget of replies.
const LARGE_VALUE_BYTES: usize = 1_000_000;
const DEAF_READERS: usize = 600;
/// Beyond the 256 MiB that replies may hold: what readers under way and the allocator take.
const MAX_GROWTH_BYTES: u64 = (256 + 128) << 20;
/// Bodies that never end, far more than their budget has room for.
const ENDLESS_BODIES: usize = 300;
/// Open files of a process in the test of that limit, and connections at its node.
const FEW_FILES: u64 = 512;
const MANY_CONNECTIONS: usize = 700;

async fn connect(port: u16) -> Raw {
    Raw::connect(port).await.expect("the node listens")
}

/// How each kind begins; none ever goes on.
fn beginnings() -> Vec<(&'static str, Vec<u8>)> {
    let put = "PUT /key/never HTTP/1.1\r\nHost: a\r\n";
    vec![
        ("silent", Vec::new()),
        ("half a head", b"GET /key/a HTTP/1.1\r\nHo".to_vec()),
        ("half a preface", b"PRI * HT".to_vec()),
        ("a preface alone", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("half a body", format!("{put}Content-Length: 100\r\n\r\n\"half").into_bytes()),
        ("half a chunk", format!("{put}Transfer-Encoding: chunked\r\n\r\n64\r\n\"half").into_bytes()),
    ]
}

/// What is cut off within the ten seconds of each step (and up to five more), and what may
/// stay as long as an idle connection.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off_while_others_are_served() {
    let _alone = alone().await;
    let cluster = Arc::new(Cluster::started(3, &[PATIENT]).await);
    let peace = Peace::of(&cluster).await;
    let port = cluster.port(peace.leader());
    let (mut slow, mut drips) = (Vec::new(), Vec::new());
    for (told, beginning) in beginnings() {
        for n in 0..SLOW_CLIENTS {
            let mut client = connect(port).await;
            client.send(&beginning).await;
            if n % 5 == 0 {
                client.half_close().await;
            }
            slow.push((told, client));
        }
    }
    for _ in 0..SLOW_CLIENTS {
        drips.push(tokio::spawn(drip(port)));
    }
    let workload = Workload::start(&cluster, Settings { seed: 1, clients: 4 });
    workload.wait_progress(300).await;
    for drip in drips {
        assert!(drip.await.expect("no panic"), "a dripped head was never cut off");
    }
    for (told, client) in slow {
        // HTTP/2 without a request is idle, which may last longer.
        if !told.contains("preface") {
            let mut client = client;
            assert!(client.hear_end().await.closed, "{told}: never cut off");
        }
    }
    workload.finish().await;
    peace.expect_kept(&cluster, "slow clients").await;
    cluster.wait_equal_hashes().await;
    cluster.get(peace.leader(), "/key/never").await.expect(404);
}

/// A head that grows by a byte now and then; true when the server ends it.
async fn drip(port: u16) -> bool {
    let mut client = connect(port).await;
    client.send(b"GET /key/a HTTP/1.1\r\nX: ").await;
    eventually(PATIENCE, || {
        let client = &mut client;
        let sent = futures::executor::block_on(async { client.send(b"x").await });
        std::future::ready(if sent { Err("still open".to_owned()) } else { Ok(true) })
    })
    .await
}

/// Replies that nobody reads take no more than their budget, and small reads go on.
#[tokio::test(flavor = "multi_thread")]
async fn replies_that_nobody_reads_are_bounded() {
    let _alone = alone().await;
    let cluster = Cluster::started(3, &[PATIENT]).await;
    let leader = cluster.wait_leader().await;
    let large = json!("v".repeat(LARGE_VALUE_BYTES)).to_string();
    for n in 0..8 {
        cluster.put(leader, &format!("/key/large/{n}"), &large).await.expect(200);
    }
    cluster.put(leader, "/key/small", "1").await.expect(200);
    let peace = Peace::of(&cluster).await;
    let memory = Peak::watch(cluster.pid(leader));
    let mut deaf = Vec::new();
    for n in 0..DEAF_READERS {
        let mut reader = connect(cluster.port(leader)).await;
        let target = if n % 2 == 0 { "/key/large/1" } else { "/v1/keys?prefix=large/" };
        reader.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        deaf.push(reader);
    }
    let refusal = eventually(PATIENCE, || async {
        let reply = cluster.get(leader, "/v1/keys?prefix=large/").await;
        if reply.status == 429 { Ok(reply) } else { Err(format!("{}", reply.status)) }
    })
    .await;
    assert!(refusal.header("retry-after").is_some(), "{refusal:?}");
    cluster.get(leader, "/key/small?consistency=linearizable").await.expect(200);
    cluster.put(leader, "/key/small", "2").await.expect(200);
    let grown = memory.growth();
    assert!(grown < MAX_GROWTH_BYTES, "{} MiB for replies that nobody reads", grown >> 20);
    println!("{DEAF_READERS} deaf readers: {} MiB", grown >> 20);
    drop(deaf);
    // What they held is given back.
    eventually(PATIENCE, || async {
        let reply = cluster.get(leader, "/v1/keys?prefix=large/").await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    peace.expect_kept(&cluster, "deaf readers").await;
}

/// Bodies that never end take no more than their budget, and small writes go on.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_are_bounded() {
    let _alone = alone().await;
    let cluster = Cluster::started(3, &[PATIENT]).await;
    let peace = Peace::of(&cluster).await;
    let (leader, memory) = (peace.leader(), Peak::watch(cluster.pid(peace.leader())));
    let head = "PUT /key/never HTTP/1.1\r\nHost: a\r\nContent-Length: 1500000\r\n\r\n";
    let body = [head.as_bytes(), &vec![b'1'; 1_400_000]].concat();
    let mut clients = Vec::new();
    for _ in 0..ENDLESS_BODIES {
        let mut client = connect(cluster.port(leader)).await;
        client.send(&body).await;
        clients.push(client);
    }
    let mut refused = 0;
    for client in &mut clients {
        let heard = client.hear_head().await;
        match heard.status() {
            Some(429) => refused += 1,
            status => assert!(heard.closed || status == Some(408), "{heard:?}"),
        }
    }
    assert!(refused > 0, "no body was refused: the budget never ran out");
    let grown = memory.growth();
    assert!(grown < MAX_GROWTH_BYTES, "{} MiB for bodies", grown >> 20);
    println!("{refused} of {ENDLESS_BODIES} bodies refused, {} MiB", grown >> 20);
    cluster.put(leader, "/key/small", "1").await.expect(200);
    peace.expect_kept(&cluster, "endless bodies").await;
    cluster.get(leader, "/key/never").await.expect(404);
}

/// Strangers who open connections, more than a node takes, and say nothing; each is opened
/// again when it is closed.
struct Crowd {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn at(port: u16, strangers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stranger = |_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Refused for a moment, for instance while the node restarts.
                    let Ok(mut silent) = Raw::connect(port).await else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    silent.hear_end().await;
                }
            })
        };
        Self { tasks: (0..strangers).map(stranger).collect(), stop }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Every node has taken more strangers than it may; a node that comes back still reaches
/// its peers, and they it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_back_through_a_crowd_of_silent_strangers() {
    let _alone = alone().await;
    let cluster = Cluster::started(3, &[PATIENT, ("MAX_CONNECTIONS", "16")]).await;
    let leader = cluster.wait_leader().await;
    let follower = (leader + 1) % 3;
    let crowds: Vec<Crowd> = (0..3).map(|i| Crowd::at(cluster.port(i), 250)).collect();
    for i in [leader, follower] {
        eventually(PATIENCE, || async {
            let open = open_files(cluster.pid(i));
            if open > 144 { Ok(()) } else { Err(format!("{open} files open: no crowd yet")) }
        })
        .await;
    }
    cluster.kill9(follower);
    // Its port is its own: nobody else waits for it to be answered through the crowd.
    cluster.spawn(follower);
    eventually(PATIENCE, || async {
        let log = std::fs::read_to_string(cluster.log_path(cluster.name(follower))).unwrap_or_default();
        let lives = log.matches("Store Node listening").count();
        let following = log.rsplit("Store Node listening").next().unwrap_or_default().contains("Following");
        if lives == 2 && following {
            Ok(())
        } else {
            Err(format!("{}'s log:\n{log}", cluster.name(follower)))
        }
    })
    .await;
    drop(crowds);
    cluster.wait_leader().await;
    cluster.put(leader, "/key/after", "1").await.expect(200);
    cluster.wait_equal_hashes().await;
}

/// Connections are open files. Clients take what can be spared, and the log still gets its
/// next segments.
#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_the_log_the_files_it_needs() {
    let _alone = alone().await;
    if may_open() < 4 * MANY_CONNECTIONS as u64 {
        println!("skipped: this process may open {} files only", may_open());
        return;
    }
    let cluster = Cluster::new(1, &[("LOG_SEGMENT_BYTES", "65536")]).with_max_files(FEW_FILES);
    cluster.start_all().await;
    cluster.wait_leader().await;
    let log = std::fs::read_to_string(cluster.log_path(cluster.name(0))).expect("a log");
    assert!(log.contains("may open only 512 files"), "{log}");
    let mut crowd = Vec::new();
    for _ in 0..MANY_CONNECTIONS {
        crowd.push(connect(cluster.port(0)).await);
    }
    let value = json!("v".repeat(10_000)).to_string();
    for n in 0..100 {
        // The crowd leaves after ten seconds of silence; until then clients hear 503.
        eventually(PATIENCE, || async {
            let put = Request::put(format!("/key/{n}"), value.clone());
            match cluster.send(0, put).await {
                Ok(reply) if reply.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    assert!(cluster.runs(0), "the node ended");
    drop(crowd);
}
