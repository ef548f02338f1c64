//! Cross-origin headers. Every reply carries them, so that a page from anywhere may use
//! the API, as the chapter's does. There are no cookies to steal.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("Content-Type, Accept, If-Match, If-None-Match");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Location, Retry-After, X-Bellwether-Revision, X-Bellwether-Term, X-Bellwether-Leader, X-Bellwether-May-Be-Older",
);
/// Seconds a browser may remember a preflight: a day, as nothing here depends on who asks.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

pub fn allow(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// The reply to `OPTIONS`; [`allow`] does the rest, as for every reply.
pub fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}
