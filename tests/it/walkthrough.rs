//! The chapter, step by step, as its reader would type it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Cluster, Observer, PATIENCE, Request, eventually};

/// The chapter's order: the lowest name leads first, the next one after it.
const CHAPTER: &[(&str, &str)] = &[("ELECTION", "lowest-id")];
/// A refusal must be early: well below the five seconds a request may wait by default.
const EARLY: Duration = Duration::from_secs(3);

async fn status_is(cluster: &Cluster, i: usize, role: &str, leader: &str) {
    eventually(PATIENCE, || async {
        let status = cluster.status(i).await?;
        let as_told = status["role"] == role && status["leaderId"] == leader;
        if as_told { Ok(()) } else { Err(format!("{} says {status}", cluster.name(i))) }
    })
    .await;
}

async fn value_is(cluster: &Cluster, i: usize, key: &str, value: serde_json::Value) {
    eventually(PATIENCE, || async {
        let reply = cluster.get(i, &format!("/key/{key}")).await;
        if reply.status == 200 && reply.json()["value"] == value { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_1_to_8() {
    // Step 1: start the cluster. Step 2: ask everybody.
    let cluster = Cluster::new(3, CHAPTER);
    let observer = Observer::start(&cluster.ports());
    cluster.start_all().await;
    assert_eq!(cluster.wait_leader().await, 0, "the lowest name leads first");
    let first_term = cluster.status(0).await.expect("answers")["term"].as_u64().expect("a number");
    for (i, role) in [(0, "leader"), (1, "follower"), (2, "follower")] {
        let expected = json!({
            "nodeId": cluster.name(i), "role": role, "term": first_term, "leaderId": "node-1",
            "totalKeys": 0, "keys": [],
        });
        cluster.get(i, "/status").await.expect_json(200, expected);
    }

    // Step 3: write to the leader.
    for (key, value) in [("name", json!("Alice")), ("age", json!(30)), ("city", json!("NYC"))] {
        let reply = cluster.put(0, &format!("/key/{key}"), &value.to_string()).await;
        reply.expect_json(200, json!({"success": true, "key": key, "value": value, "leaderId": "node-1"}));
    }

    // Step 4: read from the followers, which apply a moment later.
    value_is(&cluster, 1, "name", json!("Alice")).await;
    value_is(&cluster, 2, "city", json!("NYC")).await;
    let expected = json!({"key": "name", "value": "Alice", "nodeRole": "follower"});
    cluster.get(1, "/key/name").await.expect_json(200, expected);
    let expected = json!({"totalKeys": 3, "keys": ["age", "city", "name"]});
    cluster.get(0, "/status").await.expect_json(200, expected);

    // Step 5: a follower refuses writes.
    let refused = cluster.put(1, "/key/test", "\"should fail\"").await;
    let expected = json!({"error": "Not the leader", "currentRole": "follower", "leaderId": "node-1"});
    refused.expect_json(503, expected);

    // Step 6: the leader fails, node-2 takes over.
    cluster.kill9(0);
    status_is(&cluster, 1, "leader", "node-2").await;
    status_is(&cluster, 2, "follower", "node-2").await;

    // Step 7: write to the new leader.
    let reply = cluster.put(1, "/key/newleader", "\"node-2\"").await;
    reply.expect_json(200, json!({"success": true, "leaderId": "node-2"}));

    // Step 8: the old leader returns as a follower and has what it missed.
    cluster.start(0).await;
    status_is(&cluster, 0, "follower", "node-2").await;
    value_is(&cluster, 0, "newleader", json!("node-2")).await;
    let term = cluster.status(0).await.expect("answers")["term"].as_u64();
    assert!(term > Some(first_term), "a new leader has a new term");

    cluster.delete(1, "/key/name").await.expect_json(200, json!({"success": true, "key": "name"}));
    cluster.delete(1, "/key/name").await.expect_json(404, json!({"error": "Key not found", "key": "name"}));
    observer.expect_one_leader_a_term();
}

/// Exercise 1: nodes are stopped one at a time; with two of three gone, the survivor
/// says what it can and cannot do.
#[tokio::test(flavor = "multi_thread")]
async fn exercise_1() {
    let cluster = Cluster::started(3, CHAPTER).await;
    cluster.put(0, "/key/kept", "1").await.expect(200);
    cluster.kill9(2);
    cluster.put(0, "/key/kept", "2").await.expect(200);
    value_is(&cluster, 1, "kept", json!(2)).await;
    cluster.kill9(0);

    status_is_not_leader(&cluster, 1).await;
    let began = Instant::now();
    let refused = cluster.put(1, "/key/kept", "3").await.expect(503);
    assert!(began.elapsed() < EARLY, "refused only after {:?}", began.elapsed());
    assert_eq!(refused.json()["outcome"], "not_applied", "{}", refused.text());
    assert!(refused.text().to_lowercase().contains("quorum"), "says why: {}", refused.text());

    cluster.get(1, "/key/kept").await.expect_json(200, json!({"value": 2}));
    let linearizable = Request::get("/key/kept?consistency=linearizable&timeout=2s");
    cluster.ask(1, linearizable).await.expect(503);
    cluster.get(1, "/readyz").await.expect(503);
    cluster.get(1, "/livez").await.expect(200);

    cluster.start(0).await;
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/kept", "4").await.expect(200);
}

async fn status_is_not_leader(cluster: &Cluster, i: usize) {
    eventually(PATIENCE, || async {
        let status = cluster.status(i).await?;
        let alone = status["role"] != "leader" && status["leaderId"].is_null();
        if alone { Ok(()) } else { Err(format!("without a majority it says {status}")) }
    })
    .await;
}
