use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::api::http::reply::body_of;
use crate::types::{LogId, MemberName, Role};

fn parts(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri("/key/a");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("valid request").into_parts().0
}

fn found(value: &'static [u8]) -> KeyValue {
    let (key, value) = (Bytes::from_static(b"a"), Bytes::from_static(value));
    KeyValue { key, value, create_revision: 2, mod_revision: 7, version: 3, lease: 0 }
}

fn place() -> Place {
    Place { role: Role::Follower, term: 4, leader: None, recovered: true }
}

fn written(reply: Option<Reply>) -> Written {
    let leader = MemberName::parse("node-1").expect("valid name");
    let acked = [leader.clone()].into();
    Written { reply, at: LogId { term: 4, index: 9 }, leader, acked }
}

async fn got(headers: &[(&str, &str)], value: &'static [u8]) -> Response<Body> {
    get_reply(parts(headers).headers, "a", &found(value), &place()).expect("found")
}

#[tokio::test]
async fn the_chapters_read() {
    let response = got(&[], b"\"Alice\"").await;
    assert_eq!(response.headers()[header::ETAG], "\"7\"");
    let body = body_of(response).await;
    let expected = json!({
        "key": "a", "value": "Alice", "nodeRole": "follower", "revision": 7, "createRevision": 2, "version": 3
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn digits_are_read_back_as_they_were_written() {
    let bytes = axum::body::to_bytes(got(&[], b"1.10e400").await.into_body(), 4096).await.expect("a body");
    assert!(String::from_utf8_lossy(&bytes).contains("\"value\":1.10e400,"));
}

#[tokio::test]
async fn raw_bytes_out_and_bytes_shown() {
    let raw = got(&[("accept", OCTETS)], b"\xff\x00").await;
    assert_eq!(raw.headers()[header::CONTENT_TYPE], OCTETS);
    assert_eq!(&axum::body::to_bytes(raw.into_body(), 9).await.expect("a body")[..], b"\xff\x00");
    let shown = body_of(got(&[], b"\xff\x00").await).await;
    assert_eq!((&shown["value"], &shown["encoding"]), (&json!("/wA="), &json!("base64")));
}

#[tokio::test]
async fn unmodified_is_304_with_its_tag() {
    let same = got(&[("if-none-match", "\"7\"")], b"1").await;
    assert_eq!(
        (same.status().as_u16(), &same.headers()[header::ETAG]),
        (304, &HeaderValue::from_static("\"7\""))
    );
    assert_eq!(got(&[("if-none-match", "\"6\"")], b"1").await.status(), StatusCode::OK);
}

fn put(body: &'static str, raw: bool, reply: Option<Reply>) -> ApiResult {
    let body = Bytes::from_static(body.as_bytes());
    let sent = Sent::parse(raw, &body)?;
    // Stored without a copy: what is sent on lies within the request's body.
    assert!(body.as_ptr_range().contains(&sent.bytes(&body).as_ptr()));
    put_reply(HeaderMap::new(), "name", &sent, &written(reply), Ack::Quorum)
}

#[tokio::test]
async fn the_chapters_write() {
    let response = put(
        " \"Alice\" ",
        false,
        Some(Reply::Put { revision: 5, create_revision: 5, version: 1, previous: None }),
    )
    .expect("written");
    assert_eq!(response.headers()[header::ETAG], "\"5\"");
    let expected = json!({
        "success": true, "key": "name", "value": "Alice", "leaderId": "node-1", "ack": "quorum", "acked": ["node-1"],
        "revision": 5, "createRevision": 5, "version": 1
    });
    assert_eq!(body_of(response).await, expected);
}

#[tokio::test]
async fn a_write_acknowledged_by_the_leader_alone_has_no_revision() {
    let response = put("1", false, None).expect("written");
    assert!(!response.headers().contains_key(header::ETAG));
    assert_eq!(body_of(response).await.get("revision"), None);
}

#[tokio::test]
async fn replacing_goes_on_counting_and_raw_is_not_echoed() {
    let reply = Reply::Put { revision: 9, create_revision: 2, version: 4, previous: None };
    let body = body_of(put("not json", true, Some(reply)).expect("written")).await;
    assert_eq!(
        (&body["createRevision"], &body["version"], &body["bytes"]),
        (&json!(2), &json!(4), &json!(8))
    );
    assert_eq!(body.get("value"), None);
}

#[test]
fn failed_conditions_and_bad_bodies() {
    let failed = Some(Reply::PreconditionFailed { current: Some(3), revision: 9 });
    assert_eq!(put("1", false, failed).expect_err("failed").status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(put("{", false, None).expect_err("no JSON").status(), StatusCode::BAD_REQUEST);
    let mixed_up = Some(Reply::Compacted { revision: 9 });
    assert_eq!(put("1", false, mixed_up).expect_err("another's").status(), StatusCode::INTERNAL_SERVER_ERROR);
    let large = Bytes::from(vec![b'1'; MAX_VALUE_BYTES + 1]);
    assert_eq!(Sent::parse(true, &large).err().map(|e| e.status()), Some(StatusCode::PAYLOAD_TOO_LARGE));
}

#[tokio::test]
async fn deleting() {
    let deleted = |deleted| Some(Reply::Deleted { revision: 8, deleted, previous: Vec::new() });
    let done = delete_reply("a", &written(deleted(1)), Ack::Quorum).expect("deleted");
    let expected = json!({"success": true, "key": "a", "leaderId": "node-1", "ack": "quorum", "acked": ["node-1"], "revision": 8});
    assert_eq!(body_of(done).await, expected);
    let nothing = delete_reply("a", &written(deleted(0)), Ack::Quorum).expect_err("nothing there");
    let body: Value = body_of(nothing.into_response(true, false)).await;
    assert_eq!((&body["error"], &body["key"]), (&json!("Key not found"), &json!("a")));
}

#[test]
fn what_depends_on_the_outcome_waits_for_it() {
    assert_eq!(effective_ack(Ack::Leader, true), Ack::Quorum);
    assert_eq!(effective_ack(Ack::Leader, false), Ack::Leader);
    assert_eq!(effective_ack(Ack::All, true), Ack::All);
}

#[test]
fn keys_are_the_rest_of_the_path() {
    for (path, key) in [
        ("/key/a/b", "a/b"),
        ("/key/a%2Fb", "a/b"),
        ("/key//", "/"),
        ("/key/../x/.", "../x/."),
        ("/key/%C3%A4", "ä"),
        ("/key/a+b%20c", "a+b c"),
        ("/key/%00", "\0"),
    ] {
        assert_eq!(key_in(path).expect(path), key);
    }
    let long = |n| format!("/key/{}", "%61".repeat(n));
    assert!(key_in(&long(MAX_KEY_BYTES)).is_ok());
    assert_eq!(key_in(&long(MAX_KEY_BYTES + 1)).expect_err("long").status(), StatusCode::URI_TOO_LONG);
    for bad in ["/key/", "/key/%", "/key/%ff"] {
        assert_eq!(key_in(bad).expect_err(bad).status(), StatusCode::BAD_REQUEST);
    }
}
