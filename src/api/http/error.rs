//! Every refusal, and the one map from the node's errors to HTTP.
//!
//! Errors keep the chapter's `error` text and add what the caller does next: `outcome`
//! of a write (`not_applied`: safe to repeat; `unknown`: read first), `hint`, and where
//! it helps `leaderUrl` and `Retry-After`. Under `/v1` the same facts are
//! `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use serde::Serialize;

use super::reply;
use super::{MAX_BODY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::error::Error;
use crate::storage::mvcc::ReadError;
use crate::types::{Revision, Role};

pub type ApiResult = Result<Response<Body>, ApiError>;
type Text = Cow<'static, str>;

const NOT_APPLIED: &str = "not_applied";
const UNKNOWN: &str = "unknown";
/// The chapter's word for a leader nobody knows.
const NO_LEADER: &str = "Unknown";
/// A full disk is not free again in a moment.
const DISK_FULL_RETRY_SECS: u64 = 10;
/// For states that an election or a restart ends, usually within a second.
const RETRY_AFTER_SECS: u64 = 1;

/// One refusal; boxed, because results are moved around and most are fine.
#[derive(Debug)]
pub struct ApiError(Box<Fields>);

#[derive(Debug, Default)]
struct Fields {
    status: StatusCode,
    /// The problem's type under `/v1`: `urn:bellwether:<kind>`.
    kind: &'static str,
    facts: Facts,
    /// `Retry-After`, `Allow`, `Location`, `ETag`.
    headers: HeaderMap,
}

/// What the body says, in either style.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    error: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// The inner `None`, shown as null: the key does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_revision: Option<Option<Revision>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_revision: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Text>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(flatten)]
    facts: &'a Facts,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, error: impl Into<Text>) -> Self {
        let facts = Facts { error: error.into(), ..Facts::default() };
        Self(Box::new(Fields { status, kind, facts, ..Fields::default() }))
    }

    pub fn invalid(error: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", error)
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found")
    }

    pub fn key_not_found(key: &str) -> Self {
        let mut error = Self::new(StatusCode::NOT_FOUND, "key-not-found", "Key not found");
        error.0.facts.key = Some(key.to_owned());
        error
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    pub fn invalid_json(error: &serde_json::Error, empty: bool) -> Self {
        let hint = match empty {
            true => "the body is empty; send one JSON value, such as \"text\", 30 or {\"a\":1}".into(),
            false => {
                format!("{error}; text needs double quotes, raw bytes Content-Type: application/octet-stream")
            }
        };
        let mut api = Self::new(StatusCode::BAD_REQUEST, "invalid-json", "Invalid JSON").with_hint(hint);
        api.0.facts.line = Some(error.line());
        api.0.facts.column = Some(error.column());
        api
    }

    pub fn too_deep(max: usize) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-json", "Invalid JSON")
            .with_hint(format!("nested more than {max} levels deep"))
    }

    pub fn too_large() -> Self {
        let hint = format!("a value may have {MAX_VALUE_BYTES} bytes, a request body {MAX_BODY_BYTES}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large").with_hint(hint)
    }

    pub fn key_too_long() -> Self {
        let hint = format!("a key may have {MAX_KEY_BYTES} bytes after percent-decoding");
        Self::new(StatusCode::URI_TOO_LONG, "key-too-long", "Key too long").with_hint(hint)
    }

    pub fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body did not arrive in time")
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub fn precondition_failed(key: &str, current: Option<Revision>) -> Self {
        let hint = match current {
            Some(_) => "the key was changed; read it again and decide anew",
            None => "the key does not exist",
        };
        let mut error =
            Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", "Precondition failed");
        error.0.facts.key = Some(key.to_owned());
        error.0.facts.current_revision = Some(current);
        if let Some(current) = current {
            error.0.headers.insert(header::ETAG, reply::etag(current));
        }
        error.with_hint(hint)
    }

    /// The store answered what the request can't have caused.
    pub fn unexpected(what: &'static str) -> Self {
        Self::from(Error::Failed { why: what.to_owned() })
    }

    pub fn of_read(error: ReadError, asked: Option<Revision>) -> Self {
        let asked = asked.unwrap_or_default();
        Self::from(match error {
            ReadError::Compacted { oldest } => Error::Compacted { asked, oldest },
            ReadError::Future { current } => Error::FutureRevision { asked, current },
            ReadError::Failed(why) => Error::Failed { why },
        })
    }

    pub fn with_hint(mut self, hint: impl Into<Text>) -> Self {
        self.0.facts.hint = Some(hint.into());
        self
    }

    fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    fn with_role(mut self, role: Role) -> Self {
        self.0.facts.current_role = Some(role.as_str());
        self.0.facts.leader_id = Some(NO_LEADER.into());
        self
    }

    fn with_outcome(mut self, outcome: &'static str) -> Self {
        self.0.facts.outcome = Some(outcome);
        self
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds.max(1).into())
    }

    /// Sends the client to the leader when it is known and the client asked for that.
    pub fn or_redirect(mut self, asked: bool, uri: &Uri) -> Self {
        let target = self.0.facts.leader_url.as_ref().filter(|_| asked);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let location = target.and_then(|url| HeaderValue::try_from(format!("{url}{path}")).ok());
        if let Some(location) = location {
            self.0.status = StatusCode::TEMPORARY_REDIRECT;
            self.0.headers.remove(header::RETRY_AFTER);
            self.0.headers.insert(header::LOCATION, location);
        }
        self
    }

    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    #[cfg(test)]
    pub fn hint(&self) -> Option<&str> {
        self.0.facts.hint.as_deref()
    }

    /// `write`: only writes have an outcome, and unless said otherwise a refused one
    /// changed nothing. `problem`: the style of `/v1`.
    pub fn into_response(mut self, write: bool, problem: bool) -> Response<Body> {
        let facts = &mut self.0.facts;
        facts.outcome = if write { facts.outcome.or(Some(NOT_APPLIED)) } else { None };
        let mut response = if problem { self.problem() } else { reply::json(self.0.status, &self.0.facts) };
        response.headers_mut().extend(self.0.headers);
        response
    }

    fn problem(&self) -> Response<Body> {
        let Fields { status, kind, facts, .. } = &*self.0;
        let problem = Problem {
            r#type: format!("urn:bellwether:{kind}"),
            title: status.canonical_reason().unwrap_or(kind),
            status: status.as_u16(),
            detail: facts.hint.as_deref(),
            facts,
        };
        let mut response = reply::json(*status, &problem);
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// The map. Codes: 503 for "another node, or later", 429 for "slower", 504 for "it took
/// too long", 4xx for "mend the request".
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotLeader { role, leader } => {
                let mut api = unavailable("not-leader", "Not the leader").with_role(role);
                let hint = match &leader {
                    Some(_) => "ask the leader at leaderUrl, or add ?forward=true or ?redirect=true",
                    None => "no leader is known now; retry, an election takes about a second",
                };
                if let Some(leader) = leader {
                    api.0.facts.leader_id = Some(leader.name.as_str().to_owned().into());
                    api.0.facts.leader_url = Some(leader.url);
                }
                api.with_hint(hint)
            }
            Error::NoQuorum { role, why } => unavailable("no-quorum", "No quorum")
                .with_role(role)
                .with_hint(format!("{why}; local reads still work")),
            Error::NotReady { why } => unavailable("not-ready", "Not ready").with_hint(why),
            Error::StateDiffers { why } => {
                unavailable("state-differs", "State differs").with_hint(format!("ask another node: {why}"))
            }
            full @ Error::DiskFull => Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "Overloaded")
                .with_hint(full.to_string())
                .retry_after(DISK_FULL_RETRY_SECS),
            Error::Overloaded { why, retry_after } => {
                // Whole seconds, rounded up: coming back early only to be refused helps nobody.
                let seconds = retry_after.as_millis().div_ceil(1000);
                Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "Overloaded")
                    .with_hint(why)
                    .retry_after(u64::try_from(seconds).unwrap_or(RETRY_AFTER_SECS))
            }
            Error::Unknown { why } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "Outcome unknown")
                    .with_outcome(UNKNOWN)
                    .with_hint(format!("{why}; the write may still take effect: read before you repeat it"))
            }
            Error::ReadTimeout { why } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "Timed out").with_hint(why)
            }
            Error::Invalid(why) => Self::invalid(why),
            Error::Compacted { oldest, .. } => {
                let mut api = Self::new(StatusCode::GONE, "compacted", "Compacted").with_hint(text);
                api.0.facts.oldest_revision = Some(oldest);
                api
            }
            Error::FutureRevision { current, .. } => {
                let mut api = Self::new(StatusCode::BAD_REQUEST, "future-revision", "Future revision");
                api.0.facts.current_revision = Some(Some(current));
                api.with_hint(format!("{text}; to wait for it, use min_revision"))
            }
            Error::Failed { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "Node failed")
                .with_outcome(UNKNOWN)
                .with_hint(text),
        }
    }
}

fn unavailable(kind: &'static str, error: &'static str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, kind, error).retry_after(RETRY_AFTER_SECS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::http::reply::body_of;
    use crate::error::LeaderHint;
    use crate::types::MemberName;

    async fn shown(error: Error, write: bool) -> (u16, Value) {
        let response = ApiError::from(error).into_response(write, false);
        (response.status().as_u16(), body_of(response).await)
    }

    fn not_leader(known: bool) -> Error {
        let name = MemberName::parse("node-1").expect("valid name");
        let leader = known.then(|| LeaderHint { name, url: "http://node1:4000".into() });
        Error::NotLeader { role: Role::Follower, leader }
    }

    #[tokio::test]
    async fn the_chapters_refusal_of_a_follower() {
        let (status, body) = shown(not_leader(true), true).await;
        assert_eq!(status, 503);
        for (field, value) in [
            ("error", "Not the leader"),
            ("currentRole", "follower"),
            ("leaderId", "node-1"),
            ("leaderUrl", "http://node1:4000"),
            ("outcome", "not_applied"),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
        let (_, body) = shown(not_leader(false), true).await;
        assert_eq!(body["leaderId"], "Unknown");
    }

    #[tokio::test]
    async fn a_write_that_timed_out_is_unknown_never_failed() {
        let unknown = || Error::Unknown { why: "deadline".into() };
        assert_eq!(shown(unknown(), true).await.1["outcome"], "unknown");
        let failed = Error::Failed { why: "disk".into() };
        assert_eq!(shown(failed, true).await.1["outcome"], "unknown");
    }

    #[tokio::test]
    async fn only_writes_have_an_outcome() {
        let (status, body) = shown(Error::ReadTimeout { why: "slow".into() }, false).await;
        assert_eq!((status, body.get("outcome")), (504, None));
        assert_eq!(shown(Error::Invalid("bad".into()), true).await.1["outcome"], "not_applied");
    }

    #[test]
    fn refusals_that_pass_say_when() {
        let after =
            |error: Error| ApiError::from(error).into_response(true, false).headers()["retry-after"].clone();
        assert_eq!(after(not_leader(false)), "1");
        let overloaded =
            |ms| Error::Overloaded { why: String::new(), retry_after: Duration::from_millis(ms) };
        assert_eq!(after(overloaded(0)), "1");
        assert_eq!(after(overloaded(1001)), "2");
    }

    #[test]
    fn redirects_only_on_demand_and_only_to_a_known_leader() {
        let uri: Uri = "/key/a%2Fb?redirect=true".parse().expect("valid");
        let go = ApiError::from(not_leader(true)).or_redirect(true, &uri).into_response(true, false);
        assert_eq!(go.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(go.headers()[header::LOCATION], "http://node1:4000/key/a%2Fb?redirect=true");
        for (known, asked) in [(false, true), (true, false)] {
            let stay = ApiError::from(not_leader(known)).or_redirect(asked, &uri);
            assert_eq!(stay.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[tokio::test]
    async fn problems_carry_the_same_facts() {
        let error = ApiError::from(Error::Compacted { asked: 3, oldest: 9 });
        let response = error.into_response(false, true);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = body_of(response).await;
        assert_eq!(body["type"], "urn:bellwether:compacted");
        assert_eq!((&body["status"], &body["oldestRevision"]), (&json!(410), &json!(9)));
    }

    #[tokio::test]
    async fn a_failed_precondition_shows_what_is() {
        let response = ApiError::precondition_failed("a", Some(7)).into_response(true, false);
        assert_eq!(response.headers()[header::ETAG], "\"7\"");
        assert_eq!(body_of(response).await["currentRevision"], 7);
        let body = body_of(ApiError::precondition_failed("a", None).into_response(true, false)).await;
        assert_eq!(body.get("currentRevision"), Some(&Value::Null));
    }
}
