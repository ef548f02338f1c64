//! What is promised under a bad network: real processes started with `--lab`, whose links
//! are spoilt. A fault that never struck fails its test.

use serde_json::{Value, json};

use crate::support::{
    Cluster, Lab, Observer, PATIENCE, PATIENT, Request, Settings, Workload, cut, eventually, slow,
};

/// Far longer than any of these tests waits.
const NEVER_MS: u64 = 30_000;
/// Elections that a healed partition may cost beyond the one it forced.
const FEW_TERMS: u64 = 3;
/// Logs so short that whoever misses some writes needs a snapshot.
const SHORT_LOGS: &[(&str, &str)] = &[("LOG_KEEP_ENTRIES", "5"), ("SNAPSHOT_EVERY_ENTRIES", "20")];

/// Writes one key while replication takes `delay_ms`, kills the leader as soon as it has
/// answered, and says what it answered and what the others make of it.
async fn write_then_lose_the_leader(ack: &str, delay_ms: u64) -> (u16, Value) {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let leader = cluster.wait_leader().await;
    for follower in lab.others(leader) {
        lab.spoil(leader, follower, slow(delay_ms)).await;
    }
    let written = cluster.put(leader, &format!("/key/a?ack={ack}&timeout=1s"), "1").await;
    lab.expect_struck(leader, "delayed").await;
    cluster.kill9(leader);
    let new = cluster.wait_leader_among(&lab.others(leader)).await;
    let read = cluster.get(new, "/key/a?consistency=linearizable").await;
    // Whatever was lost, the old leader comes back with the others' history.
    cluster.start(leader).await;
    lab.expect_whole().await;
    (written.status.as_u16(), read.json()["value"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_only_the_leader_has_is_lost_with_it() {
    assert_eq!(write_then_lose_the_leader("leader", NEVER_MS).await, (200, Value::Null));
}

/// The twins: the same schedule acknowledges nothing at `quorum` and `all`, so nothing
/// that was acknowledged is lost; and what they do acknowledge is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_quorum_has_is_not_lost_with_the_leader() {
    for ack in ["quorum", "all"] {
        let (status, _) = write_then_lose_the_leader(ack, NEVER_MS).await;
        assert_eq!(status, 504, "{ack}: unknown, not a success");
        assert_eq!(write_then_lose_the_leader(ack, 100).await, (200, json!(1)), "{ack}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_replica_missing_all_is_unknown_and_says_why() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    let all = json!(["node-1", "node-2", "node-3"]);
    cluster.put(leader, "/key/a?ack=all", "1").await.expect_json(200, json!({"ack": "all", "acked": all}));
    let quorum = cluster.put(leader, "/key/a", "1").await.expect(200).json();
    assert!(quorum["acked"].as_array().is_some_and(|names| names.len() >= 2), "{quorum}");
    let missing = (leader + 1) % 3;
    cluster.kill9(missing);
    let reply = cluster.put(leader, "/key/a?ack=all&timeout=1s", "2").await;
    let reply = reply.expect_json(504, json!({"outcome": "unknown"}));
    assert!(reply.text().contains(cluster.name(missing)), "it names who lacks it: {}", reply.text());
    // It is committed all the same.
    let read = cluster.get(leader, "/key/a?consistency=linearizable").await;
    read.expect_json(200, json!({"value": 2}));
}

/// Exercise 2.
#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_follower_shows_the_past_to_local_reads_only() {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let leader = cluster.wait_leader().await;
    let [late, _] = lab.others(leader);
    let old = cluster.put(leader, "/key/a?ack=all", "\"old\"").await.expect(200);
    let caught_up = format!("/key/a?min_revision={}", old.json()["revision"]);
    cluster.get(late, &caught_up).await.expect_json(200, json!({"value": "old"}));

    lab.spoil(leader, late, slow(2000)).await;
    let new = cluster.put(leader, "/key/a", "\"new\"").await.expect(200);
    cluster.get(late, "/key/a").await.expect_json(200, json!({"value": "old"}));
    let newest = format!("/key/a?min_revision={}", new.json()["revision"]);
    let (linearizable, waited) =
        tokio::join!(cluster.get(late, "/key/a?consistency=linearizable"), cluster.get(late, &newest),);
    linearizable.expect_json(200, json!({"value": "new"}));
    waited.expect_json(200, json!({"value": "new"}));
    lab.expect_struck(leader, "delayed").await;
    lab.heal().await;
    lab.expect_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_gives_way_to_the_majority() {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(cluster, Settings { seed: 3, clients: 6 });
    workload.wait_progress(100).await;
    let old = cluster.wait_leader().await;
    let majority = lab.others(old);
    let before = lab.term(old).await;
    cluster.put(old, "/key/a", "\"before\"").await.expect(200);
    for peer in majority {
        lab.spoil(old, peer, cut()).await;
    }
    let new = cluster.wait_leader_among(&majority).await;
    cluster.put(new, "/key/a", "\"after\"").await.expect(200);
    workload.wait_progress(100).await;
    // The minority refuses, says so, and reads the past only when asked for it.
    cluster.put(old, "/key/a", "0").await.expect_json(503, json!({"outcome": "not_applied"}));
    let read = cluster.get(old, "/key/a?consistency=linearizable&timeout=1s").await;
    assert!([503, 504].contains(&read.status.as_u16()), "{}", read.text());
    cluster.get(old, "/key/a").await.expect_json(200, json!({"value": "before"}));
    lab.expect_struck(old, "cut").await;

    lab.heal().await;
    lab.expect_whole().await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
    let after = lab.term(old).await;
    assert!(after <= before + 1 + FEW_TERMS, "from term {before} to {after}");
}

/// The leader speaks and hears nobody: its followers must not stay loyal to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_nobody_is_replaced() {
    one_way_at_the_leader(json!({"receive": {"cut": true}})).await;
}

/// The leader hears and nobody hears it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_hears_is_replaced() {
    one_way_at_the_leader(json!({"send": {"cut": true}})).await;
}

async fn one_way_at_the_leader(rules: Value) {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(cluster, Settings { seed: 4, clients: 4 });
    workload.wait_progress(50).await;
    let old = cluster.wait_leader().await;
    let before = lab.term(old).await;
    for peer in lab.others(old) {
        lab.spoil(old, peer, rules.clone()).await;
    }
    cluster.wait_leader_among(&lab.others(old)).await;
    // Slowly: what clients ask of the old one waits for their deadline.
    workload.wait_progress(10).await;
    lab.expect_struck(old, "cut").await;
    lab.heal().await;
    lab.expect_whole().await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
    let after = lab.term(old).await;
    assert!(after <= before + 1 + FEW_TERMS, "from term {before} to {after}");
}

/// Pre-vote: whoever hears no leader asks, and is told that there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_hears_nobody_disturbs_nobody() {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let leader = cluster.wait_leader().await;
    let before = lab.term(leader).await;
    let [deaf, _] = lab.others(leader);
    for peer in lab.others(deaf) {
        lab.spoil(deaf, peer, json!({"receive": {"cut": true}})).await;
    }
    eventually(PATIENCE, || async {
        let role = cluster.status(deaf).await?["role"].clone();
        if role == "candidate" { Ok(()) } else { Err(format!("it is {role}")) }
    })
    .await;
    // It asks for votes all the while, and its answers are lost.
    let asked = lab.struck(deaf, "cut").await;
    eventually(PATIENCE, || async {
        let now = lab.struck(deaf, "cut").await;
        if now > asked + 50 { Ok(()) } else { Err(format!("{now} messages lost")) }
    })
    .await;
    cluster.put(leader, "/key/a", "1").await.expect(200);
    lab.heal().await;
    lab.expect_whole().await;
    assert_eq!((cluster.wait_leader().await, lab.term(leader).await), (leader, before));
}

/// Two nodes that cannot speak to each other, and both to the third.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_cut_leaves_the_leader_in_place() {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let leader = cluster.wait_leader().await;
    let before = lab.term(leader).await;
    let [apart, bridge] = lab.others(leader);
    lab.spoil(leader, apart, cut()).await;
    eventually(PATIENCE, || async {
        let role = cluster.status(apart).await?["role"].clone();
        if role == "candidate" { Ok(()) } else { Err(format!("it is {role}")) }
    })
    .await;
    for value in 0..20 {
        cluster.put(leader, "/key/a", &value.to_string()).await.expect(200);
    }
    assert_eq!(cluster.wait_leader_among(&[leader, bridge]).await, leader);
    lab.expect_struck(leader, "cut").await;
    lab.heal().await;
    lab.expect_whole().await;
    assert_eq!((cluster.wait_leader().await, lab.term(leader).await), (leader, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_lost_doubled_and_out_of_order_change_no_outcome() {
    let lab = Lab::started().await;
    let cluster = &lab.cluster;
    let observer = Observer::start(&cluster.ports());
    // A lost message of replication is missed a second later.
    let bad = json!({"loss": 0.005, "duplicate": 0.2, "reorder": 0.1});
    for at in 0..3 {
        for peer in lab.others(at) {
            lab.spoil(at, peer, json!({"send": bad, "seed": at * 10 + peer})).await;
        }
    }
    let workload = Workload::start(cluster, Settings { seed: 5, clients: 6 });
    workload.wait_progress(200).await;
    let leader = cluster.wait_leader().await;
    for kind in ["lost", "duplicated", "reordered"] {
        lab.expect_struck(leader, kind).await;
    }
    lab.heal().await;
    lab.expect_whole().await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
}

/// Cuts a follower off so long that it needs a snapshot. That call must end, well or not: one
/// that is left unanswered would be waited for long after the heal.
async fn cut_off_past_the_log(rules: Value) {
    let lab = Lab::started_with(&[SHORT_LOGS, &[PATIENT]].concat()).await;
    let cluster = &lab.cluster;
    let leader = cluster.wait_leader().await;
    let [behind, _] = lab.others(leader);
    for peer in lab.others(behind) {
        lab.spoil(behind, peer, rules.clone()).await;
    }
    let told = |what| lab.others(behind).iter().any(|other| cluster.told(*other, what));
    // Many writes, whoever leads: a busy machine may be slow, or elect.
    eventually(PATIENCE * 3, || async {
        cluster.put(leader, "/key/a?forward=true", "1").await;
        let sent = told("sending a snapshot");
        let ended = told("the snapshot was not installed") || cluster.told(behind, "installed a snapshot");
        if sent && ended {
            Ok(())
        } else {
            Err(format!("a snapshot is sent: {sent}, and has ended: {ended}"))
        }
    })
    .await;
    lab.expect_struck(behind, "cut").await;
    lab.heal().await;
    lab.expect_whole().await;
    // It says so when it is done, and its state is seen before.
    eventually(PATIENCE, || async {
        cluster
            .told(behind, "installed a snapshot")
            .then_some(())
            .ok_or_else(|| "it came back without one".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_hears_no_snapshot_gets_it_after_the_heal() {
    cut_off_past_the_log(json!({"receive": {"cut": true}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_word_of_a_snapshot_is_lost_goes_on_after_the_heal() {
    cut_off_past_the_log(json!({"send": {"cut": true}})).await;
}

/// Without `--lab` nobody can spoil anything.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_laboratory_unless_asked_for() {
    let cluster = Cluster::started(1, &[]).await;
    for request in [
        Request::get("/v1/lab/network"),
        Request::put("/v1/lab/network/node-2", cut().to_string()),
        Request::delete("/v1/lab/network"),
    ] {
        let reply = cluster.ask(0, request).await.expect_json(404, json!({"error": "Not found"}));
        assert!(reply.text().contains("--lab"), "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_laboratory_refuses_what_it_does_not_understand() {
    let lab = Lab::started().await;
    for (peer, rules) in [
        ("node-9", "{}"),
        ("node-1", "{}"),
        ("node-2", r#"{"send":{"loss":2}}"#),
        ("node-2", r#"{"send":{"delayMs":-1}}"#),
        ("node-2", r#"{"both":{}}"#),
        ("node-2", "delay"),
    ] {
        let request = Request::put(format!("/v1/lab/network/{peer}"), rules);
        lab.cluster.ask(0, request).await.expect(400);
    }
    assert_eq!(lab.struck(0, "cut").await, 0);
}
