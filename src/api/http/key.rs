//! `GET`, `PUT` and `DELETE` of `/key/{key}`.
//!
//! The first and the last step of a PUT's life: here it is parsed, here its reply is
//! built. JSON is never taken apart; the value's text goes from the request's buffer to
//! the node and into the reply.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::{ApiError, ApiResult};
use super::query::{self, Params};
use super::reply::{self, OCTETS, Place};
use super::route::KEY_PREFIX;
use super::turns::Turns;
use super::value::{self, ShownValue};
use super::{App, MAX_KEY_BYTES, MAX_VALUE_BYTES, body, conditions, percent};
use crate::node::{Node, WriteRequest, Written};
use crate::proto::log::{Command, Delete, Put, command::Op};
use crate::server::RequestBody;
use crate::storage::mvcc::{KeyValue, Reply};
use crate::types::{Ack, MemberName, Revision};

pub const READ_PARAMS: &[&str] =
    &["consistency", "min_revision", "revision", "timeout", "forward", "redirect"];
pub const WRITE_PARAMS: &[&str] = &["ack", "forward", "redirect", "timeout"];
/// What surrounds key and value in a reply.
const REPLY_OVERHEAD_BYTES: usize = 256;

pub async fn get(node: &Node, parts: &mut Parts, turns: &Turns) -> ApiResult {
    let key = key_in(parts.uri.path())?;
    let params = query::parse(parts.uri.query(), READ_PARAMS)?;
    reply::readable(node, &params, parts).await?;
    let found = node.store().get(key.as_bytes(), params.revision);
    let found = found.map_err(|error| ApiError::of_read(error, params.revision))?;
    let Some(found) = found else { return Err(ApiError::key_not_found(&key)) };
    let turn = turns.take_for(found.value.len()).await?;
    let place = Place::of(node);
    let headers = std::mem::take(&mut parts.headers);
    let mut response = get_reply(headers, &key, &found, &place)?;
    if let Some(turn) = turn {
        turn.end(found.value.len()).await;
    }
    place.mark(response.headers_mut(), node.store().revision());
    Ok(response)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GetReply<'a> {
    key: &'a str,
    value: ShownValue<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    node_role: &'static str,
    revision: Revision,
    create_revision: Revision,
    version: u64,
}

/// `headers`: the request's. Their memory becomes that of the reply's.
fn get_reply(headers: HeaderMap, key: &str, found: &KeyValue, place: &Place) -> ApiResult {
    let mut response = if conditions::is_unmodified(&headers, found.mod_revision)? {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if reply::accepts(&headers, OCTETS) {
        reply::bytes_in(headers, StatusCode::OK, HeaderValue::from_static(OCTETS), found.value.clone())
    } else {
        let (value, encoding) = value::show(&found.value);
        let body = GetReply {
            key,
            value,
            encoding,
            node_role: place.role.as_str(),
            revision: found.mod_revision,
            create_revision: found.create_revision,
            version: found.version,
        };
        let size = key.len() + found.value.len() + REPLY_OVERHEAD_BYTES;
        reply::json_in(headers, StatusCode::OK, &body, size)
    };
    response.headers_mut().insert(header::ETAG, reply::etag(found.mod_revision));
    Ok(response)
}

pub async fn put(app: &App, parts: &mut Parts, body: impl RequestBody) -> ApiResult {
    let node = &app.node;
    let key = key_in(parts.uri.path())?;
    let params = query::parse(parts.uri.query(), WRITE_PARAMS)?;
    let precondition = conditions::precondition(&parts.headers)?;
    let (body, _share) = body::read(&parts.headers, body, &app.bodies).await?;
    let turn = app.turns.take_for(body.len()).await?;
    let sent = Sent::parse(reply::has_type(&parts.headers, OCTETS), &body)?;
    if let Some(turn) = turn {
        turn.end(body.len()).await;
    }
    let key_bytes = Bytes::copy_from_slice(key.as_bytes());
    let put = Put { key: key_bytes, value: sent.bytes(&body), ..Default::default() };
    let ack = effective_ack(params.ack.unwrap_or(node.config().ack), precondition.is_some());
    let command = Command { op: Some(Op::Put(put)), precondition };
    let written = write(node, parts, &params, command, ack).await?;
    let headers = std::mem::take(&mut parts.headers);
    let mut response = put_reply(headers, &key, &sent, &written, ack)?;
    place_write(&mut response, node, &written);
    Ok(response)
}

pub async fn delete(node: &Node, parts: &Parts) -> ApiResult {
    let key = key_in(parts.uri.path())?;
    let params = query::parse(parts.uri.query(), WRITE_PARAMS)?;
    let precondition = conditions::precondition(&parts.headers)?;
    let delete = Delete { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
    // Whether there was something to delete is only known once it is applied.
    let ack = effective_ack(params.ack.unwrap_or(node.config().ack), true);
    let command = Command { op: Some(Op::Delete(delete)), precondition };
    let written = write(node, parts, &params, command, ack).await?;
    let mut response = delete_reply(&key, &written, ack)?;
    place_write(&mut response, node, &written);
    Ok(response)
}

async fn write(
    node: &Node,
    parts: &Parts,
    params: &Params<'_>,
    command: Command,
    ack: Ack,
) -> Result<Written, ApiError> {
    let request =
        WriteRequest { command, ack, timeout: reply::timeout(node, params), forward: params.forward };
    node.write(request).await.map_err(|error| ApiError::from(error).or_redirect(params.redirect, &parts.uri))
}

/// A reply that tells what was found must wait until the write is applied.
fn effective_ack(asked: Ack, must_be_applied: bool) -> Ack {
    if asked == Ack::Leader && must_be_applied { Ack::Quorum } else { asked }
}

fn place_write(response: &mut Response<Body>, node: &Node, written: &Written) {
    // A forwarded write may be applied here a little later than it is answered.
    let seen = match written.reply {
        Some(Reply::Put { revision, .. } | Reply::Deleted { revision, .. }) => revision,
        _ => 0,
    };
    let revision = node.store().revision().max(seen);
    reply::place(response.headers_mut(), revision, written.at.term, Some(&written.leader));
}

/// A value as a PUT brought it; borrows the request's body.
enum Sent<'a> {
    Json(&'a RawValue),
    Raw { bytes: usize },
}

impl<'a> Sent<'a> {
    fn parse(raw: bool, body: &'a Bytes) -> Result<Self, ApiError> {
        let sent = if raw { Self::Raw { bytes: body.len() } } else { Self::Json(value::parse_json(body)?) };
        if sent.len() > MAX_VALUE_BYTES { Err(ApiError::too_large()) } else { Ok(sent) }
    }

    fn len(&self) -> usize {
        match self {
            Self::Json(value) => value.get().len(),
            Self::Raw { bytes } => *bytes,
        }
    }

    /// What is stored; shares the body's memory.
    fn bytes(&self, body: &Bytes) -> Bytes {
        match self {
            Self::Json(value) => body.slice_ref(value.get().as_bytes()),
            Self::Raw { .. } => body.clone(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WriteReply<'a> {
    success: bool,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    /// Raw values are not echoed; this is their length.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    leader_id: &'a str,
    ack: &'static str,
    acked: &'a [MemberName],
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl<'a> WriteReply<'a> {
    fn new(key: &'a str, written: &'a Written, ack: Ack) -> Self {
        Self {
            success: true,
            key,
            value: None,
            bytes: None,
            leader_id: written.leader.as_str(),
            ack: ack.as_str(),
            acked: &written.acked,
            revision: None,
            create_revision: None,
            version: None,
        }
    }
}

fn put_reply(headers: HeaderMap, key: &str, sent: &Sent<'_>, written: &Written, ack: Ack) -> ApiResult {
    let mut body = WriteReply::new(key, written, ack);
    match sent {
        Sent::Json(value) => body.value = Some(value),
        Sent::Raw { bytes } => body.bytes = Some(*bytes),
    }
    match &written.reply {
        // At `ack=leader` nothing is applied yet, so there is no revision to tell.
        None => {}
        Some(Reply::Put { revision, create_revision, version, .. }) => {
            body.revision = Some(*revision);
            body.create_revision = Some(*create_revision);
            body.version = Some(*version);
        }
        Some(other) => return Err(refusal(key, other)),
    }
    let size = key.len() + sent.len() + REPLY_OVERHEAD_BYTES;
    let mut response = reply::json_in(headers, StatusCode::OK, &body, size);
    if let Some(revision) = body.revision {
        response.headers_mut().insert(header::ETAG, reply::etag(revision));
    }
    Ok(response)
}

fn delete_reply(key: &str, written: &Written, ack: Ack) -> ApiResult {
    match &written.reply {
        Some(Reply::Deleted { deleted: 0, .. }) => Err(ApiError::key_not_found(key)),
        Some(Reply::Deleted { revision, .. }) => {
            let body = WriteReply { revision: Some(*revision), ..WriteReply::new(key, written, ack) };
            Ok(reply::json(StatusCode::OK, &body))
        }
        Some(other) => Err(refusal(key, other)),
        None => Err(ApiError::unexpected("a deletion was answered before it was applied")),
    }
}

fn refusal(key: &str, reply: &Reply) -> ApiError {
    match reply {
        Reply::PreconditionFailed { current, .. } => ApiError::precondition_failed(key, *current),
        Reply::Refused { why } => ApiError::invalid(why.to_string()),
        _ => ApiError::unexpected("a write was answered with another write's reply"),
    }
}

/// The key in a path that starts with [`KEY_PREFIX`]: all the rest, decoded once.
fn key_in(path: &str) -> Result<Cow<'_, str>, ApiError> {
    let raw = path.strip_prefix(KEY_PREFIX).unwrap_or_default();
    let key = percent::decode(raw, false).map_err(|why| ApiError::invalid(format!("the key: {why}")))?;
    match key.len() {
        0 => Err(ApiError::invalid("the key is empty")),
        1..=MAX_KEY_BYTES => Ok(key),
        _ => Err(ApiError::key_too_long()),
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
