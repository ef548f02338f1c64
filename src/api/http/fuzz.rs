//! Arbitrary requests through the router, in process, at a node that leads.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::{key, query, v1};
use crate::api::testing::leading_node;
use crate::fuzz::{explore, text_of};

const METHODS: [&str; 8] = ["GET", "PUT", "DELETE", "HEAD", "POST", "OPTIONS", "PATCH", "BREW"];
const PATHS: &[&str] = &[
    "/key/",
    "/key/a",
    "/key/",
    "/status",
    "/v1/keys",
    "/v1/changes",
    "/v1/compact",
    "/v1/state-hash",
    "/livez",
    "/readyz",
    "/metrics",
    "/v1/lab/network",
    "/v1/lab/network/node-2",
    "%2F",
    "%00",
    "%ff",
    "%",
    "%c3%a9",
    "..",
    "/",
    "a",
    "b",
    "+",
];
const QUERIES: &[&str] = &[
    "ack=",
    "leader",
    "quorum",
    "all",
    "&",
    "&",
    "&",
    "=",
    "timeout=",
    "1",
    "0",
    "ms",
    "s",
    "60s",
    "consistency=",
    "linearizable",
    "stale",
    "local",
    "min_revision=",
    "revision=",
    "since=",
    "limit=",
    "10000",
    "18446744073709551615",
    "-1",
    "prefix=",
    "start=",
    "end=",
    "keys_only",
    "forward",
    "redirect=",
    "true",
    "%00",
    "%",
    "%zz",
    "a",
    "b",
];
const VALUES: &[&str] =
    &["\"", "1", "2", "*", ",", "W/", " ", "application/json", "application/octet-stream", "q=0", ";"];
const HEADERS: [&str; 6] =
    ["if-match", "if-none-match", "content-type", "accept", "content-length", "x-other"];
const BODIES: &[&str] =
    &["\"", "{", "}", "[", "]", ":", ",", "1", "e400", "null", "\\u", "00e9", "a", " ", "-"];
/// Everything that docs/http-api.md lists; 500 is what none of these requests may cause.
const STATUSES: [u16; 15] = [200, 304, 307, 400, 404, 405, 408, 410, 412, 413, 414, 429, 503, 504, 501];

/// The pieces of one request, each as long as the byte before it says.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let mut rest = input;
    let mut next = || {
        let (length, bytes) = rest.split_first()?;
        let (piece, after) = bytes.split_at(usize::from(*length % 16).min(bytes.len()));
        rest = after;
        Some(piece)
    };
    let (method, path, query) = (next()?, next()?, next()?);
    let method = METHODS[usize::from(method.first().copied().unwrap_or_default()) % METHODS.len()];
    let target = match query {
        [] => text_of(PATHS, path),
        query => format!("{}?{}", text_of(PATHS, path), text_of(QUERIES, query)),
    };
    let uri = Uri::try_from(target).ok()?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(uri);
    for name in HEADERS {
        let value = text_of(VALUES, next().unwrap_or_default());
        if !value.is_empty() {
            request = request.header(HeaderName::from_static(name), HeaderValue::try_from(value).ok()?);
        }
    }
    let body = text_of(BODIES, next().unwrap_or_default());
    request.body(Body::from(body)).ok()
}

#[test]
fn http_requests_of_random_pieces_are_answered() {
    // Time passes by itself when everybody waits: no wait of a request takes any.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let app = runtime.block_on(async { crate::api::Doors::new(leading_node().await).router });
    explore("http_requests_of_random_pieces", 128, |input| {
        let Some(request) = request(input) else { return };
        let told = format!("{request:?}");
        runtime.block_on(async {
            let reply = app.clone().oneshot(request).await.expect("infallible");
            let (status, is_json) = (reply.status(), is_json(reply.headers()));
            assert!(STATUSES.contains(&status.as_u16()), "{status} for {told}");
            let body = reply.into_body().collect().await.expect("a whole body").to_bytes();
            if is_json && !body.is_empty() {
                serde_json::from_slice::<serde_json::Value>(&body)
                    .unwrap_or_else(|why| panic!("{why}: {body:?}"));
            }
        });
    });
}

fn is_json(headers: &http::HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")))
}

#[test]
fn queries_of_random_pieces_are_parsed_or_refused() {
    explore("queries_of_random_pieces", 64, |input| {
        let text = text_of(QUERIES, input);
        for known in
            [key::READ_PARAMS, key::WRITE_PARAMS, v1::KEYS_PARAMS, v1::CHANGES_PARAMS, v1::COMPACT_PARAMS]
        {
            let once = query::parse(Some(&text), known).ok();
            assert_eq!(once, query::parse(Some(&text), known).ok());
        }
    });
}
