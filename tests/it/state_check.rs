//! Silent damage: one node's table is changed behind everybody's back, under checksums that
//! are right. The node notices it by itself and stops serving; the others go on.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Failure, PATIENCE, Request, Settings, Workload, eventually};

/// How often states are compared here.
const INTERVAL_MS: &str = "250";
/// The shortest that is allowed, and a log that is purged soon, for false alarms to show.
const BUSY: &[(&str, &str)] = &[
    ("HASH_CHECK_INTERVAL_MS", "50"),
    ("LOG_KEEP_ENTRIES", "5"),
    ("SNAPSHOT_EVERY_ENTRIES", "20"),
    ("LOG_SEGMENT_BYTES", "65536"),
];
const ROUNDS: usize = 4;
/// Comparisons that must have come out equal before "no false alarm" says anything.
const ENOUGH_CHECKS: u64 = 60;
/// Above the time after which nodes that hear nothing from a third decide without it.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with a laboratory, and a key that every node has in its table.
async fn lab(size: usize, interval_ms: &str) -> Cluster {
    let env = [("LAB", "true"), ("HASH_CHECK_INTERVAL_MS", interval_ms)];
    let cluster = Cluster::started(size, &env).await;
    for key in 0..20 {
        write(&cluster, 0, &key.to_string(), "\"good\"").await;
    }
    cluster.wait_equal_hashes().await;
    cluster
}

/// A write by any node, again if the machine is so busy that a leader is lost.
async fn write(cluster: &Cluster, i: usize, key: &str, value: &str) {
    eventually(PATIENCE, || async {
        let reply = cluster.put(i, &format!("/key/{key}?forward=true"), value).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

async fn expect_linearizable(cluster: &Cluster, i: usize, key: &str, value: &str) {
    eventually(PATIENCE, || async {
        let reply = cluster.get(i, &format!("/key/{key}?consistency=linearizable")).await;
        if reply.status != 200 {
            return Err(reply.text());
        }
        assert_eq!(reply.json()["value"], value, "{}", cluster.name(i));
        Ok(())
    })
    .await;
}

/// Flips a bit of key 7 at one node, and sees that it is flipped.
async fn damage(cluster: &Cluster, i: usize) {
    let corrupt = || Request::new(http::Method::POST, "/v1/lab/corrupt/7");
    // The row may not be in the table yet.
    eventually(PATIENCE, || async {
        let reply = cluster.ask(i, corrupt()).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let read = cluster.get(i, "/key/7?consistency=stale").await;
    // A comparison may have been quicker.
    let served_damaged = read.status == 200 && read.json()["value"] == "gond";
    assert!(served_damaged || read.status == 503, "the damage did not strike: {}", read.text());
}

async fn not_ready(cluster: &Cluster, i: usize) -> String {
    let reply = cluster.get(i, "/readyz").await;
    if reply.status == 200 { String::new() } else { reply.text() }
}

async fn wait_alarm(cluster: &Cluster, i: usize, patience: Duration) -> String {
    eventually(patience, || async {
        let why = not_ready(cluster, i).await;
        if why.contains("ALARM") { Ok(why) } else { Err(format!("{} is silent: {why}", cluster.name(i))) }
    })
    .await
}

async fn wait_alarm_of_one(cluster: &Cluster, nodes: &[usize], patience: Duration) -> (usize, String) {
    eventually(patience, || async {
        for i in nodes {
            let why = not_ready(cluster, *i).await;
            if why.contains("ALARM") {
                return Ok((*i, why));
            }
        }
        Err("nobody raised the alarm".to_owned())
    })
    .await
}

/// The sum of a counter's series whose labels contain `label`, or a gauge.
async fn metric(cluster: &Cluster, i: usize, name: &str, label: &str) -> u64 {
    let page = cluster.get(i, "/metrics").await.text();
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn agreed(cluster: &Cluster, i: usize) -> u64 {
    metric(cluster, i, "bellwether_state_checks_total", "verdict=\"agrees\"").await
}

async fn expect_serves_nobody(cluster: &Cluster, i: usize) {
    let refused = json!({"error": "State differs"});
    for target in
        ["/key/1", "/key/1?consistency=stale", "/key/1?consistency=linearizable", "/v1/keys", "/v1/changes"]
    {
        cluster.get(i, target).await.expect_json(503, refused.clone());
    }
    let refused = json!({"error": "State differs", "outcome": "not_applied"});
    for target in ["/key/1", "/key/1?forward=true"] {
        cluster.put(i, target, "1").await.expect_json(503, refused.clone());
    }
    cluster.delete(i, "/key/1").await.expect_json(503, refused);
    assert_eq!(metric(cluster, i, "bellwether_state_mismatch ", "").await, 1);
    cluster.get(i, "/livez").await.expect(200);
}

/// The sound nodes are ready, serve, and go on comparing without an alarm.
async fn expect_go_on(cluster: &Cluster, sound: &[usize]) {
    cluster.wait_leader_among(sound).await;
    for i in sound {
        write(cluster, *i, "after", "1").await;
        expect_linearizable(cluster, *i, "7", "good").await;
        assert_eq!(metric(cluster, *i, "bellwether_state_mismatch ", "").await, 0);
    }
}

fn others(one: usize) -> [usize; 2] {
    [(one + 1) % 3, (one + 2) % 3]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_follower_stops_serving_and_the_others_go_on() {
    let cluster = lab(3, INTERVAL_MS).await;
    let leader = cluster.wait_leader().await;
    let [odd, _] = others(leader);
    damage(&cluster, odd).await;
    let why = wait_alarm(&cluster, odd, PATIENCE).await;
    for sound in others(odd) {
        assert!(why.contains(cluster.name(sound)), "it names those that it differs from: {why}");
    }
    expect_serves_nobody(&cluster, odd).await;
    expect_go_on(&cluster, &others(odd)).await;
    // Its log is sound: it makes a majority with one of the others.
    let [a, b] = others(odd);
    cluster.kill9(b);
    write(&cluster, a, "with-two", "1").await;
    cluster.start(b).await;

    // A restart forgets nothing, and serves nothing before it remembers.
    cluster.kill9(odd);
    cluster.start(odd).await;
    assert!(not_ready(&cluster, odd).await.contains("ALARM"));
    expect_serves_nobody(&cluster, odd).await;

    // What the alarm says to do.
    cluster.term(odd);
    cluster.wait_exit(odd).await;
    cluster.wipe(odd);
    cluster.start(odd).await;
    cluster.wait_leader().await;
    cluster.wait_equal_hashes().await;
    expect_go_on(&cluster, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_leader_stops_serving_and_steps_aside() {
    let cluster = lab(3, INTERVAL_MS).await;
    let odd = cluster.wait_leader().await;
    damage(&cluster, odd).await;
    wait_alarm(&cluster, odd, PATIENCE).await;
    expect_serves_nobody(&cluster, odd).await;
    expect_go_on(&cluster, &others(odd)).await;
    // It may not lead again, whoever is lost: the only other one takes over.
    let old = cluster.wait_leader_among(&others(odd)).await;
    let [a, b] = others(odd);
    let last = if old == a { b } else { a };
    cluster.kill9(old);
    expect_go_on(&cluster, &[last]).await;
    let log = std::fs::read_to_string(cluster.log_path(cluster.name(odd))).expect("a log");
    let (before, after) = log.split_once("ALARM").expect("it says so in its log");
    // On a busy machine it may have lost the leadership before it looked.
    let lost = before.contains("Stepping down");
    assert!(lost || after.contains("because of the alarm"), "it did not hand over:\n{log}");
}

/// The twin: what happens to damage when nobody looks.
#[tokio::test(flavor = "multi_thread")]
async fn without_comparisons_damage_is_served() {
    let cluster = lab(3, "0").await;
    let leader = cluster.wait_leader().await;
    let [odd, _] = others(leader);
    damage(&cluster, odd).await;
    for n in 0..100 {
        write(&cluster, leader, &format!("{n}0"), "1").await;
    }
    expect_linearizable(&cluster, odd, "7", "gond").await;
    cluster.wait_leader().await;
    assert_eq!(metric(&cluster, odd, "bellwether_state_checks_total", "").await, 0);
}

/// The leader is damaged while no majority can say so: the other one must doubt itself.
/// When the third is back, the majority decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_is_lifted_when_a_majority_can_be_asked() {
    let cluster = lab(3, INTERVAL_MS).await;
    let odd = cluster.wait_leader().await;
    let [doubted, third] = others(odd);
    cluster.kill9(third);
    damage(&cluster, odd).await;
    // Nearly always the other one; on a busy machine the leader may have changed since.
    let (_, why) = wait_alarm_of_one(&cluster, &[odd, doubted], LONG_PATIENCE).await;
    assert!(why.contains("no majority tells"), "{why}");
    cluster.start(third).await;
    wait_alarm(&cluster, odd, LONG_PATIENCE).await;
    eventually(LONG_PATIENCE, || async {
        let why = not_ready(&cluster, doubted).await;
        if why.is_empty() { Ok(()) } else { Err(why) }
    })
    .await;
    expect_go_on(&cluster, &[doubted, third]).await;
    expect_serves_nobody(&cluster, odd).await;
}

/// With two nodes there never is a majority against one: the leader is believed.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_the_one_that_differs_from_the_leader_stops() {
    let cluster = lab(2, INTERVAL_MS).await;
    let leader = cluster.wait_leader().await;
    damage(&cluster, 1 - leader).await;
    let (stopped, why) = wait_alarm_of_one(&cluster, &[0, 1], PATIENCE).await;
    assert!(why.contains("no majority tells"), "{why}");
    let led = 1 - stopped;
    assert_eq!(cluster.wait_leader_among(&[led]).await, led);
    write(&cluster, led, "after", "1").await;
}

/// Compacts up to about what is there now.
async fn compact(cluster: &Cluster, i: usize) {
    let Some(revision) = cluster.status(i).await.ok().and_then(|status| status["revision"].as_u64()) else {
        return;
    };
    let target = format!("/v1/compact?forward=true&revision={revision}");
    // It may have been compacted by then, or the leader lost.
    let _: Result<_, Failure> = cluster.send(i, Request::new(http::Method::POST, target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_nodes_never_raise_the_alarm() {
    let cluster = Arc::new(Cluster::started(3, BUSY).await);
    let workload = Workload::start(&cluster, Settings { seed: 7, clients: 4 });
    let mut before_restarts = 0;
    for round in 0..ROUNDS {
        let leader = cluster.wait_leader().await;
        let [follower, _] = others(leader);
        // By turns a follower that needs a snapshot, and a change of the leader.
        let lost = if round % 2 == 0 { follower } else { leader };
        before_restarts += agreed(&cluster, lost).await;
        cluster.kill9(lost);
        workload.wait_progress(120).await;
        compact(&cluster, others(lost)[0]).await;
        cluster.start(lost).await;
        cluster.wait_leader().await;
        workload.wait_progress(30).await;
    }
    workload.finish().await;
    eventually(PATIENCE, || async {
        let mut checks = before_restarts;
        for i in 0..3 {
            checks += agreed(&cluster, i).await;
        }
        if checks >= ENOUGH_CHECKS { Ok(()) } else { Err(format!("only {checks} comparisons")) }
    })
    .await;
    cluster.wait_leader().await;
    let mut logs = String::new();
    for i in 0..3 {
        assert_eq!(metric(&cluster, i, "bellwether_state_mismatch ", "").await, 0);
        logs += &std::fs::read_to_string(cluster.log_path(cluster.name(i))).expect("a log");
    }
    assert!(!logs.contains("ALARM") && !logs.contains("differs from"), "{logs}");
    assert!(logs.contains("installed a snapshot"), "no snapshot was needed");
    let compacted = cluster.status(0).await.expect("a status")["compactedRevision"].as_u64();
    assert!(compacted > Some(0), "nothing was compacted");
}
