//! Leaders that leave, stall, or lose their followers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_check::Outcome;
use serde_json::{Value, json};

use crate::support::{Cluster, Observer, PATIENCE, Request, Settings, Workload, eventually};

/// Writes whose fate a hand-over may leave unknown: those on the wire at that moment.
const UNKNOWN_AT_HANDOVER: usize = 6;
/// Well below the five seconds a request may wait by default.
const EARLY: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_over() {
    let cluster = Arc::new(Cluster::started(3, &[]).await);
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(&cluster, Settings { seed: 1, clients: 6 });
    workload.wait_progress(50).await;
    let old = cluster.wait_leader().await;
    cluster.term(old);
    assert_eq!(cluster.wait_exit(old).await, Some(0), "a clean stop");
    let new = cluster.wait_leader_other_than(old).await;
    workload.wait_progress(50).await;
    cluster.start(old).await;
    cluster.wait_leader().await;
    let history = workload.finish().await;
    let writes = history.iter().filter(|op| op.action.is_write());
    let unknown: Vec<_> = writes.filter(|op| op.outcome == Outcome::Unknown).collect();
    assert!(unknown.len() <= UNKNOWN_AT_HANDOVER, "to {}: {unknown:#?}", cluster.name(new));
    observer.expect_one_leader_a_term();
    cluster.wait_equal_hashes().await;
}

/// A leader that slept through an election must not answer from the past.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_serves_no_stale_read() {
    let cluster = Cluster::started(3, &[]).await;
    let observer = Observer::start(&cluster.ports());
    for round in 0..3 {
        let old = cluster.wait_leader().await;
        cluster.put(old, "/key/s", &format!("{round}")).await.expect(200);
        cluster.pause(old);
        let new = cluster.wait_leader_other_than(old).await;
        let fresh = json!(round + 100);
        cluster.put(new, "/key/s", &fresh.to_string()).await.expect(200);
        // Asked while it sleeps: these lie in its socket when it wakes, and are the first
        // things it sees.
        let asleep = (0..8).map(|_| {
            let read = Request::get("/key/s?consistency=linearizable&timeout=2s");
            tokio::spawn(read.send(cluster.port(old)))
        });
        let asleep: Vec<_> = asleep.collect();
        cluster.put(new, "/key/other", "1").await.expect(200);
        cluster.resume(old);
        for read in asleep {
            if let Ok(reply) = read.await.expect("a read does not panic") {
                let stale = reply.status == 200 && reply.json()["value"] != fresh;
                assert!(!stale, "{} answered from the past: {}", cluster.name(old), reply.text());
            }
        }
        cluster.wait_leader().await;
    }
    observer.expect_one_leader_a_term();
}

/// Longer than an election and any client's patience.
const LONG_SLEEP: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_sleeps_under_load_loses_nothing() {
    let cluster = Arc::new(Cluster::started(3, &[]).await);
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(&cluster, Settings { seed: 6, clients: 6 });
    workload.wait_progress(100).await;
    let old = cluster.wait_leader().await;
    cluster.pause(old);
    let others = [(old + 1) % 3, (old + 2) % 3];
    let asleep = Instant::now();
    let new = cluster.wait_leader_among(&others).await;
    // By now the clients themselves may all wait for the one that sleeps.
    cluster.put(new, "/key/meanwhile", "1").await.expect(200);
    // The length of the sleep is the fault.
    tokio::time::sleep(LONG_SLEEP.saturating_sub(asleep.elapsed())).await;
    cluster.resume(old);
    workload.wait_progress(100).await;
    cluster.wait_leader().await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
    cluster.wait_equal_hashes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_fresh_leaders_in_a_row() {
    let cluster = Cluster::started(3, &[]).await;
    let observer = Observer::start(&cluster.ports());
    let mut term = 0;
    for round in 0..3 {
        let old = cluster.wait_leader().await;
        cluster.put(old, &format!("/key/r{round}"), "1").await.expect(200);
        cluster.kill9(old);
        let new = cluster.wait_leader_other_than(old).await;
        let status = cluster.status(new).await.expect("the leader answers");
        assert!(status["term"].as_u64() > Some(term), "terms grow: {status}");
        term = status["term"].as_u64().expect("a number");
        cluster.start(old).await;
    }
    let leader = cluster.wait_leader().await;
    for round in 0..3 {
        let read = cluster.get(leader, &format!("/key/r{round}?consistency=linearizable")).await;
        read.expect_json(200, json!({"value": 1}));
    }
    observer.expect_one_leader_a_term();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_followers_says_so() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/l", "1").await.expect(200);
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    followers.iter().for_each(|i| cluster.pause(*i));
    eventually(PATIENCE, || async {
        let status = cluster.status(leader).await?;
        if status["role"] == "leader" { Err(format!("it says {status}")) } else { Ok(()) }
    })
    .await;
    let began = Instant::now();
    let refused = cluster.put(leader, "/key/l", "2").await;
    refused.expect_json(503, json!({"outcome": "not_applied"}));
    assert!(began.elapsed() < EARLY, "refused only after {:?}", began.elapsed());
    cluster.get(leader, "/key/l?consistency=linearizable&timeout=1s").await.expect(503);
    cluster.get(leader, "/key/l").await.expect_json(200, json!({"value": 1}));

    followers.iter().for_each(|i| cluster.resume(*i));
    let leader = cluster.wait_leader().await;
    cluster.get(leader, "/key/l?consistency=linearizable").await.expect_json(200, json!({"value": 1}));
    cluster.put(leader, "/key/l", "3").await.expect(200);
}

/// The twin: the same cluster with its followers awake goes on leading and elects nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_loaded_cluster_elects_nobody() {
    let cluster = Arc::new(Cluster::started(3, &[]).await);
    let leader = cluster.wait_leader().await;
    let term = cluster.status(leader).await.expect("answers")["term"].clone();
    let workload = Workload::start(&cluster, Settings { seed: 2, clients: 8 });
    workload.wait_progress(500).await;
    workload.finish().await;
    let status = cluster.status(leader).await.expect("answers");
    assert_eq!((&status["term"], &status["role"]), (&term, &json!("leader")));
}

/// Longer than anybody waits here: an election after it never comes.
const NO_TIMEOUT: (&str, &str) = ("ELECTION_TIMEOUT_MS", "3600000");
const ENDED: &str = "Leader lost!";
const SILENT: &str = "Election timeout!";

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ended_is_replaced_without_any_timeout() {
    for policy in ["raft", "lowest-id", "highest-id"] {
        let cluster = Cluster::started(3, &[NO_TIMEOUT, ("ELECTION", policy)]).await;
        let observer = Observer::start(&cluster.ports());
        // Under the bully's order the leadership may still move to the highest.
        let first = if policy == "highest-id" { 2..3 } else { 0..3 };
        let old = cluster.wait_leader_among(&first.collect::<Vec<_>>()).await;
        cluster.put(old, "/key/k", "1").await.expect(200);
        let term = |status: Value| status["term"].as_u64().expect("a number");
        let before = term(cluster.status(old).await.expect("the leader answers"));
        cluster.kill9(old);
        let new = cluster.wait_leader_other_than(old).await;
        assert!(term(cluster.status(new).await.expect("the leader answers")) > before);
        let read = cluster.get(new, "/key/k?consistency=linearizable").await;
        read.expect_json(200, json!({"value": 1}));
        eventually(PATIENCE, || async {
            let status = cluster.put(new, "/key/k?forward=true", "2").await.status;
            if status == 200 { Ok(()) } else { Err(format!("HTTP status {status}")) }
        })
        .await;
        observer.expect_one_leader_a_term();
    }
}

/// The twins: where the closed port is not looked at, and where the port of a leader that
/// says nothing is open, only the timeout ends its time.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_closed_port_only_silence_counts() {
    let tells = |cluster: &Cluster, what| (0..3).any(|i| cluster.told(i, what));
    let blind = Cluster::started(3, &[("EARLY_ELECTION", "false")]).await;
    let old = blind.wait_leader().await;
    blind.kill9(old);
    blind.wait_leader_other_than(old).await;
    assert!(tells(&blind, SILENT) && !tells(&blind, ENDED));

    let cluster = Cluster::started(3, &[]).await;
    let old = cluster.wait_leader().await;
    cluster.pause(old);
    let new = cluster.wait_leader_other_than(old).await;
    assert!(tells(&cluster, SILENT) && !tells(&cluster, ENDED));
    cluster.resume(old);
    cluster.wait_leader().await;
    cluster.kill9(new);
    cluster.wait_leader_other_than(new).await;
    assert!(tells(&cluster, ENDED));
}
