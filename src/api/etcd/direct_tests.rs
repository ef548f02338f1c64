use http_body_util::BodyExt;
use prost::Message;
use tower::ServiceExt;

use super::*;
use crate::api::Doors;
use crate::api::testing::leading_node;
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, PutResponse, RangeRequest, TxnRequest,
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
/// What a request may take of memory while it waits: each has so much to itself, and it is
/// moved a few times on its way.
const MAX_STATE_BYTES: usize = 4096;

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    [&[flag], &length[..], message].concat()
}

fn message(message: &impl Message) -> Vec<u8> {
    frame(NOT_COMPRESSED, &message.encode_to_vec())
}

fn request(path: &str, frames: &[&[u8]]) -> Request<Body> {
    let frames: Vec<_> =
        frames.iter().map(|frame| Ok::<_, BoxError>(Bytes::copy_from_slice(frame))).collect();
    let request = Request::post(path).header(header::CONTENT_TYPE, GRPC).header("hasleader", "true");
    request.body(Body::from_stream(stream::iter(frames))).expect("a request")
}

/// All that a client sees: head, messages, trailers.
async fn told(
    response: Response<impl Into<ReplyBody>>,
) -> (http::StatusCode, HeaderMap, Bytes, Option<HeaderMap>) {
    let (parts, body) = response.into_parts();
    let whole = body.into().collect().await.expect("a whole body");
    let trailers = whole.trailers().cloned();
    (parts.status, parts.headers, whole.to_bytes(), trailers)
}

#[tokio::test(start_paused = true)]
async fn the_short_way_answers_as_the_long_way_does() {
    let doors = Doors::new(leading_node().await);
    let put = message(&PutRequest { key: "k".into(), value: vec![7; 10_000].into(), ..Default::default() });
    assert_eq!(doors.kv.clone().dispatch(request(PUT, &[&put])).await.status(), 200);

    // None of these changes anything, so that both ways find the same.
    let found = message(&RangeRequest { key: "k".into(), ..Default::default() });
    let local = message(&RangeRequest { key: "k".into(), serializable: true, ..Default::default() });
    let future = message(&RangeRequest { key: "k".into(), revision: 1 << 40, ..Default::default() });
    let keyless = message(&PutRequest::default());
    let huge = message(&PutRequest { key: "k".into(), value: vec![0; 3 << 20].into(), ..Default::default() });
    let large =
        message(&PutRequest { key: "k".into(), value: vec![0; 7 << 18].into(), ..Default::default() });
    let nothing = message(&DeleteRangeRequest { key: "absent".into(), ..Default::default() });
    let compares = vec![Compare { key: "k".into(), ..Default::default() }];
    let txn = message(&TxnRequest { compare: compares, ..Default::default() });
    let (compressed, broken) = (frame(1, &found[5..]), frame(0, &[0xff; 9]));
    let twice = [&found[..], &found[..]].concat();
    let calls: &[(&str, &[&[u8]])] = &[
        (RANGE, &[&found]),
        (RANGE, &[&local]),
        (RANGE, &[&found[..3], &found[3..6], &found[6..]]),
        (RANGE, &[&future]),
        (PUT, &[&keyless]),
        (PUT, &[&huge]),
        (PUT, &[&huge[..9], &huge[9..]]),
        (PUT, &[&large]),
        (DELETE_RANGE, &[&nothing]),
        (TXN, &[&txn]),
        (RANGE, &[&compressed]),
        (RANGE, &[&broken]),
        (RANGE, &[&twice]),
        (RANGE, &[&found[..found.len() - 1]]),
        (RANGE, &[&found[..4]]),
        (RANGE, &[]),
    ];
    for (number, (path, frames)) in calls.iter().enumerate() {
        let short = told(doors.kv.clone().dispatch(request(path, frames)).await).await;
        let Ok(long) = doors.router.clone().oneshot(request(path, frames)).await;
        assert_eq!(short, told(long).await, "call {number}, {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_is_one_revision_whichever_way_it_came() {
    let doors = Doors::new(leading_node().await);
    let put = message(&PutRequest { key: "k".into(), value: "v".into(), ..Default::default() });
    let revision = |(_, _, body, _): (http::StatusCode, HeaderMap, Bytes, Option<HeaderMap>)| {
        let reply = PutResponse::decode(&body[PREFIX_BYTES..]).expect("a reply");
        reply.header.expect("a header").revision
    };
    let short = revision(told(doors.kv.clone().dispatch(request(PUT, &[&put])).await).await);
    let Ok(long) = doors.router.clone().oneshot(request(PUT, &[&put])).await;
    assert_eq!(revision(told(long).await), short + 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_reply_is_small() {
    let doors = Doors::new(leading_node().await);
    let call = doors.kv.clone().dispatch(request(PUT, &[]));
    assert!(size_of_val(&call) <= MAX_STATE_BYTES, "{} bytes a call", size_of_val(&call));
    let request = Request::put("/key/k").body(Body::empty()).expect("a request");
    let request = doors.keys.clone().dispatch(request);
    assert!(size_of_val(&request) <= MAX_STATE_BYTES, "{} bytes a request", size_of_val(&request));
}
