//! Building replies: JSON bodies, our headers, and what handlers share.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::error::ApiError;
use super::query::Params;
use crate::node::{Node, Standing};
use crate::types::{MemberName, Revision, Role, Term};

const REVISION: HeaderName = HeaderName::from_static("x-bellwether-revision");
const TERM: HeaderName = HeaderName::from_static("x-bellwether-term");
const LEADER: HeaderName = HeaderName::from_static("x-bellwether-leader");
const MAY_BE_OLDER: HeaderName = HeaderName::from_static("x-bellwether-may-be-older");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const OCTETS: &str = "application/octet-stream";
/// Room for a small reply, so that its buffer grows once at most.
const SMALL_REPLY_BYTES: usize = 512;

pub fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    json_in(HeaderMap::new(), status, body, SMALL_REPLY_BYTES)
}

/// `size`: about how many bytes the body will have; `used` as for [`bytes_in`].
pub fn json_in(used: HeaderMap, status: StatusCode, body: &impl Serialize, size: usize) -> Response<Body> {
    let mut text = Vec::with_capacity(size);
    serde_json::to_writer(&mut text, body).expect("replies have string keys only, and a Vec takes all bytes");
    bytes_in(used, status, JSON, text.into())
}

pub fn bytes(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Body> {
    bytes_in(HeaderMap::new(), status, content_type, body)
}

/// `used`: a map that is not needed any more, such as the request's headers. Its memory
/// serves the reply, whose map is too large for an allocator's quick ways; hyper in turn
/// uses the reply's for the connection's next request.
pub fn bytes_in(
    used: HeaderMap,
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
) -> Response<Body> {
    let mut headers = used;
    headers.clear();
    // Ours and those of CORS fit without growing; more would ask for twice the memory.
    headers.reserve(12);
    headers.insert(header::CONTENT_TYPE, content_type);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

pub fn text(status: StatusCode, body: String) -> Response<Body> {
    bytes(status, HeaderValue::from_static("text/plain; charset=utf-8"), body.into())
}

/// Bytes of a body that is known as a whole; 0 for any other.
pub fn length(response: &Response<Body>) -> usize {
    use axum::body::HttpBody;
    response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default()
}

/// The reply to `HEAD`: the headers of a `GET`, with the length its body would have.
pub fn strip_body(response: &mut Response<Body>) {
    use axum::body::HttpBody;
    let length = response.body().size_hint().exact();
    *response.body_mut() = Body::empty();
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
}

pub fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).expect("digits in quotes are a valid header value")
}

/// Where a reply comes from, for its headers.
pub struct Place {
    pub role: Role,
    pub term: Term,
    pub leader: Option<MemberName>,
    /// See [`Standing::recovered`].
    pub recovered: bool,
}

impl Place {
    pub fn of(node: &Node) -> Self {
        let Standing { role, term, leader, recovered } = node.standing();
        Self { role, term, leader, recovered }
    }
}

impl Place {
    /// [`place`], and the warning that this node may show an older state than before its
    /// restart.
    pub fn mark(&self, headers: &mut HeaderMap, revision: Revision) {
        place(headers, revision, self.term, self.leader.as_ref());
        if !self.recovered {
            headers.insert(MAY_BE_OLDER, HeaderValue::from_static("true"));
        }
    }
}

/// Sets `X-Bellwether-*`. `revision` must not be older than what the reply shows, so that
/// a client that passes it on as `min_revision` never goes back in time.
pub fn place(headers: &mut HeaderMap, revision: Revision, term: Term, leader: Option<&MemberName>) {
    headers.insert(REVISION, revision.into());
    headers.insert(TERM, term.into());
    if let Some(leader) = leader.and_then(|name| HeaderValue::from_str(name.as_str()).ok()) {
        headers.insert(LEADER, leader);
    }
}

/// The same with what the node says of itself now.
pub fn placed(node: &Node, response: &mut Response<Body>) {
    let here = Place::of(node);
    here.mark(response.headers_mut(), node.store().revision());
}

/// How long this request may wait.
pub fn timeout(node: &Node, params: &Params<'_>) -> Duration {
    params.timeout.unwrap_or(node.config().request_timeout)
}

/// Waits until the store may be read as the parameters demand.
pub async fn readable(node: &Node, params: &Params<'_>, parts: &Parts) -> Result<(), ApiError> {
    let barrier = node.read_barrier(params.consistency, params.min_revision, timeout(node, params)).await;
    barrier.map_err(|error| ApiError::from(error).or_redirect(params.redirect, &parts.uri))
}

/// Whether the media type is among those in `Accept`; wildcards do not count.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|range| is_type(range, media_type))
}

/// Whether the body is of that media type.
pub fn has_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| is_type(value, media_type))
}

fn is_type(value: &str, media_type: &str) -> bool {
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}

pub fn status_class(response: &Response<Body>) -> &'static str {
    match response.status().as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
pub async fn body_of(response: Response<Body>) -> serde_json::Value {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        let accept = |value| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        assert!(accepts(&accept("text/html, Application/Octet-Stream;q=0.5"), OCTETS));
        assert!(!accepts(&accept("*/*"), OCTETS));
        assert!(!accepts(&HeaderMap::new(), OCTETS));
    }

    #[test]
    fn head_keeps_the_length() {
        let mut response = text(StatusCode::OK, "hello".into());
        strip_body(&mut response);
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "5");
    }
}
