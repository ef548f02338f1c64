//! What a reply means: done, refused without effect, or unknown.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::value::OCTETS;
use crate::{Error, Value};

/// A key's value as a node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: Value,
    /// When the key was last changed (`ETag`): what [`crate::Condition::IfMatch`] takes.
    pub mod_revision: Option<u64>,
    /// How far the node that answered had applied (`X-Bellwether-Revision`).
    pub revision: Option<u64>,
}

/// A write that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The store's revision with this write. Absent when it was acknowledged before it
    /// was applied (`ack=leader`).
    pub revision: Option<u64>,
    /// The leader that took it.
    pub leader: Option<String>,
}

/// What a node says of itself at `/status`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub node_id: String,
    /// `leader`, `follower` or `candidate`.
    pub role: String,
    pub term: u64,
    pub leader_id: Option<String>,
    pub leader_url: Option<String>,
    #[serde(default)]
    pub total_keys: u64,
    pub revision: Option<u64>,
    /// The cluster's members, as this node knows them.
    #[serde(default)]
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    pub node_id: String,
    pub url: String,
}

impl NodeStatus {
    pub fn leads(&self) -> bool {
        self.role == "leader"
    }
}

/// A refusal that changed nothing: another attempt is safe.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub leader_url: Option<String>,
    pub retry_after: Option<Duration>,
    pub error: Error,
}

/// What became of a request that was answered.
#[derive(Debug)]
pub(crate) enum Meaning {
    Done,
    NotFound,
    /// Nothing was changed; try again, perhaps elsewhere.
    Again(Refusal),
    Final(Error),
}

/// The body of an error reply. Every field is optional: a proxy may have answered.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ErrorBody {
    error: Option<String>,
    outcome: Option<String>,
    hint: Option<String>,
    leader_id: Option<String>,
    leader_url: Option<String>,
    current_role: Option<String>,
}

impl ErrorBody {
    fn read(response: &Response<Bytes>) -> Self {
        serde_json::from_slice(response.body()).unwrap_or_default()
    }

    /// The server's word on it; hints say more than the chapter's fixed error texts.
    fn message(&self, status: StatusCode) -> String {
        match (&self.error, &self.hint) {
            (Some(error), Some(hint)) => format!("{error} ({hint})"),
            (Some(error), None) => error.clone(),
            (None, _) => status.to_string(),
        }
    }

    fn knows_leader(&self) -> bool {
        self.leader_url.is_some() || self.leader_id.as_deref().is_some_and(|id| id != "Unknown")
    }
}

/// Reads a reply. `write` decides what silence about the outcome means: for a read it
/// is harmless, for a write it is *unknown*.
pub(crate) fn meaning(response: &Response<Bytes>, write: bool) -> Meaning {
    let status = response.status();
    if status.is_success() {
        return Meaning::Done;
    }
    let body = ErrorBody::read(response);
    let message = body.message(status);
    let plain = body.error.clone().unwrap_or_else(|| status.to_string());
    match status {
        StatusCode::NOT_FOUND if plain == "Key not found" => Meaning::NotFound,
        StatusCode::PRECONDITION_FAILED => Meaning::Final(Error::PreconditionFailed { message }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Meaning::Final(Error::Unauthenticated { message })
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => refusal(response, body, write),
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT if !write => {
            Meaning::Final(Error::Timeout { why: message })
        }
        _ if status.is_client_error()
            && status != StatusCode::REQUEST_TIMEOUT
            && body.outcome.as_deref() != Some("unknown") =>
        {
            Meaning::Final(Error::Invalid { message: plain, hint: body.hint })
        }
        _ if write && body.outcome.as_deref() != Some("not_applied") => {
            Meaning::Final(Error::Unknown { why: message })
        }
        _ => Meaning::Final(Error::Server { status: status.as_u16(), message }),
    }
}

/// 503 and 429: only the word `not_applied` makes a write safe to repeat. A reply
/// without it may come from a proxy that lost the connection behind it.
fn refusal(response: &Response<Bytes>, body: ErrorBody, write: bool) -> Meaning {
    let message = body.message(response.status());
    if write && body.outcome.as_deref() != Some("not_applied") {
        return Meaning::Final(Error::Unknown { why: message });
    }
    let overloaded = response.status() == StatusCode::TOO_MANY_REQUESTS;
    let leaderless = !overloaded && body.current_role.is_some() && !body.knows_leader();
    let error = if leaderless || body.error.as_deref().is_some_and(says_no_leader) {
        Error::NoLeader { why: message }
    } else {
        let plain = body.error.clone().unwrap_or_else(|| response.status().to_string());
        Error::Refused { message: plain, hint: body.hint.clone() }
    };
    Meaning::Again(Refusal {
        leader_url: body.leader_url,
        retry_after: retry_after(response.headers()),
        error,
    })
}

/// A node that leads without a majority, or follows nobody, says so in its error text.
fn says_no_leader(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["no leader", "no quorum", "not the leader"].iter().any(|words| error.starts_with(words))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get("retry-after")?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[derive(Deserialize)]
struct EntryBody<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The reply to a successful GET of a key.
pub(crate) fn entry(response: &Response<Bytes>) -> Result<Entry, Error> {
    let headers = response.headers();
    let raw = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(OCTETS.as_bytes()));
    let value = if raw {
        Value::Bytes(response.body().clone())
    } else {
        let body: EntryBody = parse(response)?;
        Value::Json(body.value.get().to_owned())
    };
    Ok(Entry {
        value,
        mod_revision: header_number(headers, "etag"),
        revision: header_number(headers, "x-bellwether-revision"),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenBody {
    leader_id: Option<String>,
    revision: Option<u64>,
}

/// The reply to a successful PUT or DELETE.
pub(crate) fn written(response: &Response<Bytes>) -> Result<Written, Error> {
    let body: WrittenBody = parse(response)?;
    Ok(Written { revision: body.revision, leader: body.leader_id })
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(response: &'a Response<Bytes>) -> Result<T, Error> {
    serde_json::from_slice(response.body()).map_err(|error| Error::Server {
        status: response.status().as_u16(),
        message: format!("its reply is not what a Bellwether node sends: {error}"),
    })
}

/// A number that may stand in quotes, as entity tags do.
fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim_start_matches("W/").trim_matches('"').parse().ok()
}
