//! The HTTP API as clients see it: mostly one node, three where somebody else must lead.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::support::{Cluster, PATIENCE, Request, eventually};

async fn one() -> Cluster {
    Cluster::started(1, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn json_comes_back_as_sent() {
    let node = one().await;
    for sent in [
        "123456789012345678901234567890.10",
        "1e400",
        "-0",
        "{\"b\":1,\"a\":[true,null,\"\\u00e9\"]}",
        "\"\"",
        "null",
        "[]",
    ] {
        node.put(0, "/key/v", sent).await.expect(200);
        let text = node.get(0, "/key/v").await.expect(200).text();
        assert!(text.contains(&format!("\"value\":{sent}")), "{sent} came back in {text}");
    }
    for bad in ["", "{", "nul", "1 2", "'a'", "{\"a\":}", "\u{feff}1"] {
        let refused = node.put(0, "/key/v", bad).await;
        refused.expect_json(400, json!({"error": "Invalid JSON", "outcome": "not_applied"}));
    }
    let deep = "[".repeat(100_000);
    node.put(0, "/key/v", &deep).await.expect(400);
    node.get(0, "/key/v").await.expect_json(200, json!({"value": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_any_text() {
    let node = one().await;
    for (path, key) in [
        ("a/b/c", "a/b/c"),
        ("a%2Fb%2Fd", "a/b/d"),
        ("caf%C3%A9", "café"),
        ("%2541", "%41"),
        ("a+b%20c", "a+b c"),
        ("..%2F..%2Fetc", "../../etc"),
        ("%00", "\0"),
    ] {
        node.put(0, &format!("/key/{path}"), "1").await.expect_json(200, json!({"key": key}));
        node.get(0, &format!("/key/{path}")).await.expect_json(200, json!({"key": key, "value": 1}));
    }
    node.get(0, "/key/a%2Fb/c").await.expect(200);
    for bad in ["%", "%4", "%zz", "%ff", ""] {
        node.put(0, &format!("/key/{bad}"), "1").await.expect_json(400, json!({"outcome": "not_applied"}));
    }
    let longest = "k".repeat(4096);
    node.put(0, &format!("/key/{longest}"), "1").await.expect(200);
    let refused = node.put(0, &format!("/key/{longest}x"), "1").await;
    assert!(refused.status.is_client_error(), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_writes() {
    let node = one().await;
    let put = |value: &str| Request::put("/key/c", value.to_owned());
    let first = node.ask(0, put("1").header("if-none-match", "*")).await.expect(200);
    let first = first.etag().expect("a write has an entity tag");
    node.ask(0, put("2").header("if-none-match", "*")).await.expect(412);
    let second = node.ask(0, put("2").header("if-match", format!("\"{first}\""))).await.expect(200);
    assert!(second.etag() > Some(first));
    let stale = node.ask(0, put("3").header("if-match", format!("\"{first}\""))).await;
    assert_eq!(stale.expect(412).json()["outcome"], "not_applied");
    let read = node.get(0, "/key/c").await.expect_json(200, json!({"value": 2}));
    assert_eq!(read.etag(), second.etag(), "a read's tag is the write's");
    for malformed in ["1", "\"x\"", "\"-1\"", "W/\"2\"", "\"99999999999999999999\""] {
        node.ask(0, put("4").header("if-match", malformed)).await.expect(400);
    }
    let delete = || Request::delete("/key/c");
    node.ask(0, delete().header("if-match", format!("\"{first}\""))).await.expect(412);
    let current = second.header("etag").expect("checked above").to_owned();
    node.ask(0, delete().header("if-match", current)).await.expect(200);
    node.ask(0, put("5").header("if-match", "*")).await.expect(412);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_in_and_out() {
    let node = one().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let raw = "application/octet-stream";
    node.ask(0, Request::put("/key/raw", bytes.clone()).header("content-type", raw)).await.expect(200);
    let reply = node.ask(0, Request::get("/key/raw").header("accept", raw)).await.expect(200);
    assert_eq!(&reply.body[..], &bytes[..]);
    assert_eq!(reply.header("content-type"), Some(raw));
    node.get(0, "/key/raw").await.expect_json(200, json!({"encoding": "base64"}));
    node.ask(0, Request::put("/key/text", "héllo").header("content-type", raw)).await.expect(200);
    let shown = json!({"encoding": "text", "value": "héllo"});
    node.get(0, "/key/text").await.expect_json(200, shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_is_json_and_open_to_browsers() {
    let node = one().await;
    for (method, path, status, error) in [
        (Method::GET, "/", 404, "Not found"),
        (Method::GET, "/nothing/here", 404, "Not found"),
        (Method::GET, "/key/absent", 404, "Key not found"),
        (Method::DELETE, "/key/absent", 404, "Key not found"),
    ] {
        let reply = node.ask(0, Request::new(method, path)).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
        reply.expect_json(status, json!({"error": error}));
    }
    let preflight = Request::new(Method::OPTIONS, "/key/a").header("origin", "http://page.example");
    let reply = node.ask(0, preflight).await;
    assert!(reply.status.is_success(), "{}", reply.status);
    let allowed = reply.header("access-control-allow-methods").unwrap_or_default();
    assert!(["GET", "PUT", "DELETE"].iter().all(|m| allowed.contains(m)), "{allowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_queries_are_refused() {
    let node = one().await;
    for query in [
        "consistency=strong",
        "min_revision=-1",
        "min_revision=x",
        "timeout=0",
        "timeout=never",
        "ack=most",
        "forward=maybe",
        "forwrad=true",
        "timeout=1s&timeout=2s",
        "timeout=%zz",
    ] {
        let request = Request::put(format!("/key/q?{query}"), "1");
        node.ask(0, request).await.expect_json(400, json!({"outcome": "not_applied"}));
    }
    node.get(0, "/key/q").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_revision_is_bounded() {
    let node = one().await;
    let at = node.put(0, "/key/r", "1").await.expect(200).etag().expect("a tag");
    node.get(0, &format!("/key/r?min_revision={at}")).await.expect(200);
    let began = Instant::now();
    let late = node.get(0, &format!("/key/r?min_revision={}&timeout=200ms", at + 1)).await;
    assert!(late.status.is_server_error(), "{}", late.text());
    assert!(began.elapsed() < Duration::from_secs(3), "waited {:?}", began.elapsed());
    let waits = node.get(0, "/key/r?min_revision=1000000&timeout=1ms");
    assert!(waits.await.status.is_server_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let node = one().await;
    let fits = format!("\"{}\"", "v".repeat((1 << 20) - 2));
    node.put(0, "/key/large", &fits).await.expect(200);
    let oversize = format!("\"{}\"", "v".repeat(1 << 20));
    node.put(0, "/key/large", &oversize).await.expect_json(413, json!({"outcome": "not_applied"}));
    node.get(0, "/livez").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_s_routes() {
    let node = one().await;
    node.get(0, "/livez").await.expect(200);
    node.get(0, "/readyz").await.expect(200);
    node.put(0, "/key/a", "1").await.expect(200);
    let metrics = node.get(0, "/metrics").await.expect(200).text();
    assert!(metrics.contains("bellwether_"), "{metrics}");
    let hash = node.get(0, "/v1/state-hash").await.expect(200).json();
    assert!(hash["applied"].is_string() && hash["hash"].is_string(), "{hash}");
    let status = node.get(0, "/status").await.expect(200).json();
    for field in ["clusterId", "memberId", "revision", "members"] {
        assert!(!status[field].is_null(), "{field} of {status}");
    }
    assert_eq!(status["members"][0]["voter"], true, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_forwards_or_redirects_when_asked() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    let follower = (leader + 1) % 3;

    cluster.put(follower, "/key/f", "1").await.expect_json(503, json!({"error": "Not the leader"}));
    let forwarded = cluster.put(follower, "/key/f?forward=true", "1").await;
    let at = forwarded.expect_json(200, json!({"leaderId": cluster.name(leader)})).etag().expect("a tag");
    // Read your writes on any node, by the revision that the write told.
    let read = cluster.get(follower, &format!("/key/f?min_revision={at}")).await;
    read.expect_json(200, json!({"value": 1, "nodeRole": "follower"}));
    let read = cluster.get(follower, "/key/f?consistency=linearizable").await;
    read.expect_json(200, json!({"value": 1}));

    let redirect = cluster.put(follower, "/key/f?redirect=true", "2").await.expect(307);
    let location = redirect.header("location").expect("where to").to_owned();
    let prefix = cluster.url(leader);
    assert!(location.starts_with(&format!("{prefix}/key/f")), "{location}");
    let target = location.strip_prefix(&prefix).expect("checked above").to_owned();
    cluster.put(leader, &target, "2").await.expect(200);

    for ack in ["leader", "quorum", "all"] {
        let path = format!("/key/ack?ack={ack}");
        let reply = cluster.put(leader, &path, "1").await.expect(200);
        // A revision exists only once applied; `leader` does not wait for that.
        assert!(reply.etag().is_some() || ack == "leader", "{ack}: {}", reply.text());
    }
    eventually(PATIENCE, || async {
        let reply = cluster.get(follower, "/key/ack").await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}
