//! etcd's KV service and its JSON gateway on real nodes.

use bellwether::proto::etcdserverpb::*;
use serde_json::json;
use tonic::Code;

use crate::support::{Cluster, Etcd, Request};

fn put_op(key: &'static str, value: &'static str) -> RequestOp {
    let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

fn range_op(key: &'static str) -> RequestOp {
    let range = RangeRequest { key: key.into(), ..RangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestRange(range)) }
}

fn unknown_lease_op(key: &'static str) -> RequestOp {
    let put = PutRequest { key: key.into(), lease: 404, ..PutRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

/// Holds when the key was never written.
fn absent(key: &'static str) -> Compare {
    Compare {
        key: key.into(),
        target: compare::CompareTarget::Version.into(),
        target_union: Some(compare::TargetUnion::Version(0)),
        ..Compare::default()
    }
}

#[tokio::test]
async fn a_transaction_happens_whole_at_one_revision() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    let follower = Etcd::at(&cluster, (leader + 1) % 3);
    let request = TxnRequest {
        compare: vec![absent("a")],
        success: vec![put_op("a", "1"), put_op("b", "2"), range_op("a")],
        failure: vec![range_op("b")],
    };
    let first = follower.kv().txn(request.clone()).await.expect("through the leader").into_inner();
    let revision = first.header.as_ref().expect("a header").revision;
    assert!(first.succeeded);
    for key in ["a", "b"] {
        let found = follower.get(key).await.expect("linearizable on a follower");
        assert_eq!(found.kvs[0].mod_revision, revision, "{key}");
    }
    let again = follower.kv().txn(request).await.expect("answered").into_inner();
    assert!(!again.succeeded);
    let Some(response_op::Response::ResponseRange(found)) = &again.responses[0].response else {
        panic!("the read of the other branch: {again:?}");
    };
    assert_eq!(found.kvs[0].value, "2");
}

#[tokio::test]
async fn a_refused_transaction_changes_nothing() {
    let cluster = Cluster::started(1, &[]).await;
    let etcd = Etcd::at(&cluster, 0);
    let before = etcd.put("a", "1", 0).await.expect("written").header.expect("a header").revision;
    let many = (0..129).map(|_| range_op("a")).collect();
    let refusals = [
        (vec![put_op("a", "2"), unknown_lease_op("b")], Code::NotFound, "requested lease not found"),
        (vec![put_op("a", "2"), put_op("a", "3")], Code::InvalidArgument, "duplicate key"),
        (many, Code::InvalidArgument, "too many operations"),
        (vec![put_op("", "2")], Code::InvalidArgument, "key is not provided"),
    ];
    for (success, code, text) in refusals {
        let request = TxnRequest { compare: vec![], success, failure: vec![] };
        let refused = etcd.kv().txn(request).await.expect_err(text);
        assert_eq!(refused.code(), code, "{refused}");
        assert!(
            refused.message().starts_with("etcdserver: ") && refused.message().contains(text),
            "{refused}"
        );
    }
    let after = etcd.get("a").await.expect("read");
    assert_eq!((after.header.expect("a header").revision, &after.kvs[0].value[..]), (before, &b"1"[..]));
}

#[tokio::test]
async fn all_interfaces_share_one_store() {
    let cluster = Cluster::started(1, &[]).await;
    let etcd = Etcd::at(&cluster, 0);
    cluster.put(0, "/key/chapter", "{\"a\":1}").await;
    assert_eq!(etcd.get("chapter").await.expect("read").kvs[0].value, "{\"a\":1}");
    etcd.put("grpc", "plain words", 0).await.expect("written");
    let shown = cluster.get(0, "/key/grpc").await.json();
    assert_eq!((&shown["value"], &shown["encoding"]), (&json!("plain words"), &json!("text")));
    // Base64 of "curl" and "1".
    let reply = cluster.ask(0, Request::post("/v3/kv/put", r#"{"key":"Y3VybA==","value":"MQ=="}"#)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.json()["header"]["revision"].is_string(), "64 bits are a string: {}", reply.text());
    let read = cluster.ask(0, Request::post("/v3/kv/range", r#"{"key":"Y3VybA=="}"#)).await.json();
    assert_eq!((&read["count"], &read["kvs"][0]["value"]), (&json!("1"), &json!("MQ==")));
    let refused = cluster.ask(0, Request::post("/v3/kv/range", "{}")).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (400, &json!(3)));
}
