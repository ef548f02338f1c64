//! Many watchers of one key, under load: all are told all, and what they cost is bounded.

use bellwether::proto::etcdserverpb::WatchCreateRequest;
use futures::future::join_all;

use crate::support::{Cluster, Etcd, PATIENT, Peak, Watch, alone, env_number, resident_bytes};

/// Watches; `BELLWETHER_WATCHERS` sets another number.
const WATCHERS: u64 = 2_000;
const CONNECTIONS: usize = 4;
const WATCHES_A_STREAM: usize = 20;
/// Changes of the key.
const PUTS: i64 = 100;
/// What a watch may cost while nothing happens: its share of a stream and of a connection
/// with it.
const MAX_IDLE_BYTES: u64 = 4 << 10;
/// What the node may grow by for the load: one window of events for all watchers together,
/// and buffers of the streams.
const MAX_LOAD_BYTES: u64 = 64 << 20;

async fn open(etcd: Etcd, watches: usize) -> Watch {
    let mut stream = etcd.watch().await.expect("served");
    for _ in 0..watches {
        stream.created(WatchCreateRequest { key: "hot".into(), ..WatchCreateRequest::default() }).await;
    }
    stream
}

/// Reads until each watch of the stream was told every revision, in order.
async fn hear(mut stream: Watch, watches: usize, first: i64) {
    let mut next = vec![first; watches];
    while next.iter().any(|next| *next < first + PUTS) {
        let response = stream.next().await;
        let next = &mut next[usize::try_from(response.watch_id).expect("a watch")];
        for event in response.events {
            assert_eq!(event.kv.expect("a key").mod_revision, *next);
            *next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_of_one_key_are_all_told_all() {
    let _alone = alone().await;
    let watchers = env_number("BELLWETHER_WATCHERS", WATCHERS);
    let cluster = Cluster::started(1, &[PATIENT]).await;
    let pid = cluster.pid(0);
    let writer = Etcd::connect(cluster.port(0)).await.expect("it listens");
    let first = writer.write("hot", "0").await.expect("written") + 1;
    let before = resident_bytes(pid);
    let streams = usize::try_from(watchers).expect("a number").div_ceil(WATCHES_A_STREAM);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS.max(streams.div_ceil(200)) {
        connections.push(Etcd::connect(cluster.port(0)).await.expect("it listens"));
    }
    let opening = (0..streams).map(|n| open(connections[n % connections.len()].clone(), WATCHES_A_STREAM));
    let open = join_all(opening).await;
    let watches = open.len() * WATCHES_A_STREAM;
    let each = resident_bytes(pid).saturating_sub(before) / watches as u64;
    let peak = Peak::watch(pid);
    let began = std::time::Instant::now();
    let hearing =
        join_all(open.into_iter().map(|stream| tokio::spawn(hear(stream, WATCHES_A_STREAM, first))));
    let writing = async {
        for n in 0..PUTS {
            writer.write("hot", format!("{n} {}", "x".repeat(200))).await.expect("written");
        }
    };
    let (heard, ()) = tokio::join!(hearing, writing);
    heard.into_iter().for_each(|heard| heard.expect("all of it"));
    let growth = peak.growth();
    let events = watches as f64 * PUTS as f64;
    println!(
        "{watches} watches: {each} bytes each when idle, {} KiB more under load, {:.0} events/s",
        growth >> 10,
        events / began.elapsed().as_secs_f64()
    );
    assert!(each <= MAX_IDLE_BYTES, "a watch costs {each} bytes");
    assert!(growth <= MAX_LOAD_BYTES, "the load cost {growth} bytes");
}
