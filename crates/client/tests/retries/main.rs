//! What the client repeats, and above all what it never repeats.

mod toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bellwether_client::{Client, Condition, Error, ReadOptions, Value, WriteOptions, Written};
use toy::{Act, Toy, nobody};

const DONE: &str = r#"{"success":true,"key":"k","value":1,"leaderId":"node-1","revision":7}"#;

fn status(role: &str) -> Act {
    let body =
        format!(r#"{{"nodeId":"n","role":"{role}","term":1,"leaderId":null,"totalKeys":0,"keys":[]}}"#);
    Act::Reply(200, body)
}

/// A node that leads and does `act` with every write.
async fn leader(act: Act) -> Toy {
    Toy::start(move |line| if line.starts_with("GET /status") { status("leader") } else { act.clone() }).await
}

fn refusal(leader_url: Option<&str>) -> Act {
    let url = leader_url.map_or("null".to_owned(), |url| format!("\"{url}\""));
    let body = r#"{"error":"Not the leader","currentRole":"follower","leaderId":null,"outcome":"not_applied","leaderUrl":"#;
    Act::Reply(503, format!("{body}{url}}}"))
}

async fn put(client: &Client, timeout: Duration) -> Result<Written, Error> {
    let options = WriteOptions { timeout, ..Default::default() };
    client.put("k", Value::json("1").expect("JSON"), &options).await
}

/// Long enough that no test meets it by accident.
const LONG: Duration = Duration::from_secs(20);
/// For tests that wait for the deadline itself.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_write_goes_to_the_node_that_says_it_leads() {
    let follower = Toy::start(|_| status("follower")).await;
    let leader = leader(Act::Reply(200, DONE.to_owned())).await;
    let client = Client::new([&follower.url, &leader.url]).expect("valid");
    let written = put(&client, LONG).await.expect("done");
    assert_eq!(written, Written { revision: Some(7), leader: Some("node-1".to_owned()) });
    assert_eq!((follower.count("PUT"), leader.count("PUT")), (0, 1));
    assert!(leader.seen().iter().any(|line| line.starts_with("PUT /key/k?timeout=")));
}

#[tokio::test]
async fn a_paused_node_does_not_hold_up_a_write() {
    let paused = Toy::start(|_| Act::Hang).await;
    let leader = leader(Act::Reply(200, DONE.to_owned())).await;
    let client = Client::new([&paused.url, &leader.url]).expect("valid");
    put(&client, SHORT).await.expect("done well before the paused node's silence counts");
}

#[tokio::test]
async fn a_refusal_that_names_the_leader_is_followed() {
    let new = leader(Act::Reply(200, DONE.to_owned())).await;
    let old = leader(refusal(Some(&new.url))).await;
    let client = Client::new([&old.url]).expect("valid");
    put(&client, LONG).await.expect("done");
    put(&client, LONG).await.expect("done");
    assert_eq!((old.count("PUT"), new.count("PUT")), (1, 2), "the new leader is remembered");
}

#[tokio::test]
async fn a_write_that_was_not_applied_is_tried_until_somebody_takes_it() {
    let refusals = Arc::new(AtomicUsize::new(3));
    let toy = Toy::start(move |line| {
        if line.starts_with("GET") {
            return status("leader");
        }
        let left = refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() { refusal(None) } else { Act::Reply(200, DONE.to_owned()) }
    })
    .await;
    put(&Client::new([&toy.url]).expect("valid"), LONG).await.expect("done at last");
    assert_eq!(toy.count("PUT"), 4);
}

#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_never_sent_twice() {
    let error = |status, body: &str| Act::Reply(status, body.to_owned());
    for act in [
        Act::Break,
        error(503, r#"{"error":"timed out","outcome":"unknown"}"#),
        error(503, r#"{"error":"Not the leader"}"#),
        error(503, "<html>a proxy's words</html>"),
        error(500, r#"{"error":"oops"}"#),
        error(504, r#"{"error":"late","outcome":"unknown"}"#),
        error(408, ""),
    ] {
        let toy = leader(act.clone()).await;
        let spare = leader(Act::Reply(200, DONE.to_owned())).await;
        let client = Client::new([&toy.url]).expect("valid");
        let outcome = put(&client, LONG).await;
        assert!(matches!(outcome, Err(Error::Unknown { .. })), "{act:?}: {outcome:?}");
        assert_eq!((toy.count("PUT"), spare.count("PUT")), (1, 0), "{act:?}");
    }
}

#[tokio::test]
async fn a_leader_that_never_answers_leaves_the_outcome_unknown() {
    let toy = leader(Act::Hang).await;
    let outcome = put(&Client::new([&toy.url]).expect("valid"), SHORT).await;
    assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
    assert_eq!(toy.count("PUT"), 1);
}

#[tokio::test]
async fn a_remembered_leader_that_is_gone_is_looked_for_again() {
    let gone = nobody().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let toy = Toy::start(move |line| match line.starts_with("GET") {
        true => status("leader"),
        // The first refusal points at a node that is dead; then this one leads.
        false if refused.fetch_add(1, Ordering::SeqCst) == 0 => refusal(Some(&gone)),
        false => Act::Reply(200, DONE.to_owned()),
    })
    .await;
    put(&Client::new([&toy.url]).expect("valid"), LONG).await.expect("done");
    assert_eq!(toy.count("PUT"), 2);
}

#[tokio::test]
async fn no_leader_and_nobody_there_are_told_apart() {
    let follower = Toy::start(|_| status("follower")).await;
    let outcome = put(&Client::new([&follower.url]).expect("valid"), SHORT).await;
    assert!(matches!(outcome, Err(Error::NoLeader { .. })), "{outcome:?}");
    assert_eq!(follower.count("PUT"), 0);
    let client = Client::new([nobody().await, nobody().await]).expect("valid");
    let outcome = put(&client, LONG).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    let outcome = client.get("k", &ReadOptions::default()).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn final_answers_are_final() {
    let reply = |status, body: &str| Act::Reply(status, body.to_owned());
    type Expected = fn(&Error) -> bool;
    let cases: [(Act, Expected); 3] = [
        (reply(412, r#"{"error":"Precondition failed"}"#), |e| matches!(e, Error::PreconditionFailed { .. })),
        (reply(400, r#"{"error":"Invalid JSON","hint":"h"}"#), |e| e.hint() == Some("h")),
        (reply(401, "{}"), |e| matches!(e, Error::Unauthenticated { .. })),
    ];
    for (act, expected) in cases {
        let toy = leader(act.clone()).await;
        let client = Client::new([&toy.url]).expect("valid");
        let options = WriteOptions { condition: Condition::IfAbsent, ..Default::default() };
        let error = client.put("k", Value::string("v"), &options).await.expect_err("refused");
        assert!(expected(&error), "{act:?}: {error:?}");
        assert_eq!(toy.count("PUT"), 1);
    }
    let toy = leader(reply(404, r#"{"error":"Key not found","key":"k"}"#)).await;
    let client = Client::new([&toy.url]).expect("valid");
    assert_eq!(client.delete("k", &WriteOptions::default()).await, Ok(None));
    assert_eq!(client.get("k", &ReadOptions::default()).await, Ok(None));
}

#[tokio::test]
async fn a_read_goes_on_to_the_next_node_whatever_happened_to_the_first() {
    let value = r#"{"key":"k","value":1.00,"nodeRole":"follower"}"#;
    for act in [Act::Break, Act::Hang, refusal(None)] {
        let bad = Toy::start(move |_| act.clone()).await;
        let good = Toy::start(move |_| Act::Reply(200, value.to_owned())).await;
        let client = Client::new([nobody().await, bad.url.clone(), good.url.clone()]).expect("valid");
        let options = ReadOptions { timeout: Duration::from_secs(2), ..Default::default() };
        let entry = client.get("k", &options).await.expect("read").expect("there");
        assert_eq!((entry.value, entry.mod_revision), (Value::Json("1.00".to_owned()), Some(7)));
        client.get("k", &options).await.expect("read");
        assert_eq!((bad.count("GET"), good.count("GET")), (1, 2), "the node that answered is kept");
    }
}
