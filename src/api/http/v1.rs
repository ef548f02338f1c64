//! `/v1`: ranges, changes, compaction and the state hash.
//!
//! Long answers are read from the store page by page at one revision and cut at
//! [`MAX_REPLY_BYTES`], so that no request holds more than that; `more` and `next` say
//! how to go on.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;

use super::error::{ApiError, ApiResult};
use super::query::{self, Params};
use super::reply;
use super::turns::Turns;
use super::value::{self, ShownValue};
use crate::node::{Node, WriteRequest};
use crate::proto::log::{Command, Compact, command::Op};
use crate::storage::mvcc::{Change, KeyRange, KeyValue, RangeQuery, Reply, Store};
use crate::types::{Ack, Revision};

pub const KEYS_PARAMS: &[&str] = &[
    "prefix",
    "start",
    "end",
    "limit",
    "revision",
    "keys_only",
    "consistency",
    "min_revision",
    "timeout",
    "redirect",
];
pub const CHANGES_PARAMS: &[&str] = &["since", "limit", "consistency", "min_revision", "timeout", "redirect"];
pub const COMPACT_PARAMS: &[&str] = &["revision", "forward", "redirect", "timeout"];
/// Rows in one reply unless `limit` says otherwise.
const DEFAULT_ROWS: usize = 100;
/// The most rows `limit` may ask for.
pub const MAX_ROWS: usize = 10_000;
/// A reply is cut after the row that passes this many bytes of keys and values.
const MAX_REPLY_BYTES: usize = 8 << 20;
/// Rows read from the store in one go: 16 values of 1 MiB are what a page may cost.
const PAGE_ROWS: usize = 16;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<ShownValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    revision: Revision,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl<'a> Row<'a> {
    fn bare(key: &'a [u8], revision: Revision) -> Self {
        let (key, key_encoding) = value::show_key(key);
        Self {
            key,
            key_encoding,
            value: None,
            encoding: None,
            revision,
            create_revision: None,
            version: None,
        }
    }

    fn of(kv: &'a KeyValue, keys_only: bool) -> Self {
        let row = Self {
            create_revision: Some(kv.create_revision),
            version: Some(kv.version),
            ..Self::bare(&kv.key, kv.mod_revision)
        };
        if keys_only {
            return row;
        }
        let (value, encoding) = value::show(&kv.value);
        Self { value: Some(value), encoding, ..row }
    }
}

#[derive(Serialize)]
struct KeysReply<'a> {
    /// What the rows show the state of; pass it on as `revision` for the next page.
    revision: Revision,
    /// Keys in the range, shown or not.
    count: usize,
    more: bool,
    /// The next page's `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    keys: Vec<Row<'a>>,
}

pub async fn keys(node: &Node, parts: &Parts, turns: &Turns) -> ApiResult {
    let params = query::parse(parts.uri.query(), KEYS_PARAMS)?;
    let (range, limit) = (range_of(&params)?, rows(&params)?);
    reply::readable(node, &params, parts).await?;
    let turn = turns.take().await?;
    let found = read_range(node.store(), range, params.revision, limit, params.keys_only)?;
    let last = found.rows.last().filter(|_| found.more);
    let body = KeysReply {
        revision: found.revision,
        count: found.count,
        more: found.more,
        // The key just after the last one; keys of other protocols may not be text.
        next: last.and_then(|kv| std::str::from_utf8(&kv.key).ok()).map(|key| format!("{key}\0")),
        keys: found.rows.iter().map(|kv| Row::of(kv, params.keys_only)).collect(),
    };
    let response = reply::json(StatusCode::OK, &body);
    turn.end(reply::length(&response)).await;
    Ok(placed(node, response))
}

struct Found {
    rows: Vec<KeyValue>,
    revision: Revision,
    count: usize,
    more: bool,
}

fn read_range(
    store: &Store,
    range: KeyRange,
    at: Option<Revision>,
    limit: usize,
    keys_only: bool,
) -> Result<Found, ApiError> {
    let mut query = RangeQuery { range, at, limit: limit.min(PAGE_ROWS), keys_only, ..RangeQuery::default() };
    let read = |query: &RangeQuery| store.range(query).map_err(|error| ApiError::of_read(error, query.at));
    let first = read(&query)?;
    let revision = at.unwrap_or(first.revision);
    query.at = Some(revision);
    let mut found = Found { rows: first.kvs, revision, count: first.count, more: first.more };
    let mut bytes = size(&found.rows);
    while found.more && found.rows.len() < limit && bytes < MAX_REPLY_BYTES {
        query.limit = (limit - found.rows.len()).min(PAGE_ROWS);
        let Some(last) = found.rows.last() else { break };
        query.range = after(&last.key, &query.range);
        let page = read(&query)?;
        bytes += size(&page.kvs);
        found.more = page.more;
        found.rows.extend(page.kvs);
    }
    Ok(found)
}

fn size(rows: &[KeyValue]) -> usize {
    rows.iter().map(|kv| kv.key.len() + kv.value.len()).sum()
}

/// What is left of `range` after `key`.
fn after(key: &[u8], range: &KeyRange) -> KeyRange {
    let start = Bytes::from([key, b"\0"].concat());
    match range {
        KeyRange::Between(_, end) => KeyRange::Between(start, end.clone()),
        KeyRange::One(_) | KeyRange::From(_) => KeyRange::From(start),
    }
}

fn range_of(params: &Params<'_>) -> Result<KeyRange, ApiError> {
    let bytes =
        |text: &Option<Cow<'_, str>>| text.as_deref().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let (start, end) = (bytes(&params.start).unwrap_or_default(), bytes(&params.end));
    let Some(prefix) = bytes(&params.prefix) else {
        return Ok(end.map_or(KeyRange::From(start.clone()), |end| KeyRange::Between(start, end)));
    };
    if end.is_some() {
        return Err(ApiError::invalid("prefix and end exclude each other"));
    }
    // With a prefix, start is where its next page begins.
    let start = start.max(prefix.clone());
    Ok(KeyRange::end_of_prefix(&prefix)
        .map_or(KeyRange::From(start.clone()), |end| KeyRange::Between(start, end)))
}

fn rows(params: &Params<'_>) -> Result<usize, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_ROWS);
    let allowed = (1..=MAX_ROWS).contains(&limit);
    if allowed { Ok(limit) } else { Err(ApiError::invalid(format!("limit must be 1 to {MAX_ROWS}"))) }
}

#[derive(Serialize)]
struct ChangesReply<'a> {
    /// The store's revision.
    revision: Revision,
    /// The next call's `since`.
    next: Revision,
    more: bool,
    changes: Vec<ChangeRow<'a>>,
}

#[derive(Serialize)]
struct ChangeRow<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    row: Row<'a>,
}

pub async fn changes(node: &Node, parts: &Parts, turns: &Turns) -> ApiResult {
    let params = query::parse(parts.uri.query(), CHANGES_PARAMS)?;
    let (since, limit) = (params.since.unwrap_or_default(), rows(&params)?);
    reply::readable(node, &params, parts).await?;
    let turn = turns.take().await?;
    let (found, more) = read_changes(node.store(), since, limit)?;
    let body = ChangesReply {
        revision: node.store().revision(),
        next: found.last().map_or(since, revision_of),
        more,
        changes: found.iter().map(change_row).collect(),
    };
    let response = reply::json(StatusCode::OK, &body);
    turn.end(reply::length(&response)).await;
    Ok(placed(node, response))
}

fn read_changes(store: &Store, since: Revision, limit: usize) -> Result<(Vec<Change>, bool), ApiError> {
    let mut found: Vec<Change> = Vec::new();
    let (mut after, mut bytes) = (since, 0);
    while found.len() < limit && bytes < MAX_REPLY_BYTES {
        let page = store.changes_since(after, (limit - found.len()).min(PAGE_ROWS));
        let page = page.map_err(|error| ApiError::of_read(error, Some(after)))?;
        let Some(last) = page.last() else { return Ok((found, false)) };
        after = revision_of(last);
        bytes += page.iter().map(change_size).sum::<usize>();
        found.extend(page);
    }
    Ok((found, true))
}

fn revision_of(change: &Change) -> Revision {
    match change {
        Change::Put(kv) => kv.mod_revision,
        Change::Delete { revision, .. } => *revision,
    }
}

fn change_size(change: &Change) -> usize {
    match change {
        Change::Put(kv) => kv.key.len() + kv.value.len(),
        Change::Delete { key, .. } => key.len(),
    }
}

fn change_row(change: &Change) -> ChangeRow<'_> {
    match change {
        Change::Put(kv) => ChangeRow { r#type: "put", row: Row::of(kv, false) },
        Change::Delete { key, revision } => ChangeRow { r#type: "delete", row: Row::bare(key, *revision) },
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompactReply {
    success: bool,
    compacted_revision: Revision,
}

pub async fn compact(node: &Node, parts: &Parts) -> ApiResult {
    let params = query::parse(parts.uri.query(), COMPACT_PARAMS)?;
    let Some(revision) = params.revision else {
        return Err(ApiError::invalid("say up to which revision: ?revision=N"));
    };
    let command = Command { op: Some(Op::Compact(Compact { revision })), precondition: None };
    let timeout = reply::timeout(node, &params);
    let request = WriteRequest { command, ack: Ack::Quorum, timeout, forward: params.forward };
    let written = node.write(request).await;
    let written = written.map_err(|error| ApiError::from(error).or_redirect(params.redirect, &parts.uri))?;
    compact_reply(written.reply, revision).map(|response| placed(node, response))
}

fn compact_reply(reply: Option<Reply>, compacted_revision: Revision) -> ApiResult {
    match reply {
        Some(Reply::Compacted { .. }) => {
            Ok(reply::json(StatusCode::OK, &CompactReply { success: true, compacted_revision }))
        }
        Some(Reply::Refused { why }) => Err(ApiError::invalid(why.to_string())),
        _ => Err(ApiError::unexpected("a compaction was answered with another write's reply")),
    }
}

#[derive(Serialize)]
struct HashReply {
    /// `term.index` of the last applied entry: hashes compare only at the same one.
    applied: Option<String>,
    hash: String,
}

pub async fn state_hash(node: &Node, hashes: &Turns) -> ApiResult {
    let _turn = hashes.take().await?;
    let (applied, hash) = node.state_hash().await?;
    let hash = blake3::Hash::from(hash).to_hex().to_string();
    let body = HashReply { applied: applied.map(|at| at.to_string()), hash };
    Ok(placed(node, reply::json(StatusCode::OK, &body)))
}

fn placed(node: &Node, mut response: Response<Body>) -> Response<Body> {
    reply::placed(node, &mut response);
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::mvcc::Refusal;

    fn range(query: &str) -> Result<KeyRange, ApiError> {
        range_of(&query::parse(Some(query), KEYS_PARAMS)?)
    }

    proptest! {
        #[test]
        fn a_prefix_range_holds_exactly_its_keys(
            prefix in proptest::collection::vec(prop_oneof![Just(255_u8), any::<u8>()], 0..4),
            key in proptest::collection::vec(prop_oneof![Just(255_u8), any::<u8>()], 0..6),
        ) {
            let start = Bytes::from(prefix.clone());
            let range = KeyRange::end_of_prefix(&prefix)
                .map_or(KeyRange::From(start.clone()), |end| KeyRange::Between(start, end));
            prop_assert_eq!(range.contains(&key), key.starts_with(&prefix));
        }

        #[test]
        fn the_next_page_begins_right_after(key in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
            prop_assert_eq!(after(&key, &KeyRange::default()).contains(&other), other > key);
        }
    }

    #[test]
    fn ranges() {
        let between = |a: &'static str, b: &'static str| KeyRange::Between(Bytes::from(a), Bytes::from(b));
        assert_eq!(range("").expect("all"), KeyRange::From(Bytes::new()));
        assert_eq!(range("start=b").expect("from"), KeyRange::From(Bytes::from("b")));
        assert_eq!(range("start=b&end=d").expect("between"), between("b", "d"));
        assert_eq!(range("prefix=a%2F").expect("prefix"), between("a/", "a0"));
        assert_eq!(range("prefix=a&start=a5").expect("page"), between("a5", "b"));
        assert!(range("prefix=a&end=b").is_err());
    }

    #[test]
    fn rows_are_bounded() {
        let rows = |query| rows(&query::parse(Some(query), KEYS_PARAMS).expect("valid"));
        assert_eq!(rows("").expect("default"), DEFAULT_ROWS);
        assert!(rows("limit=0").is_err());
        assert!(rows("limit=10001").is_err());
    }

    #[test]
    fn rows_say_what_they_are() {
        let key = Bytes::from_static(b"a");
        let kv = KeyValue {
            key: key.clone(),
            value: "1.0".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: 0,
        };
        let text = |change: Change| serde_json::to_string(&change_row(&change)).expect("serialisable");
        assert_eq!(
            text(Change::Put(kv)),
            r#"{"type":"put","key":"a","value":1.0,"revision":3,"createRevision":2,"version":2}"#
        );
        assert_eq!(text(Change::Delete { key, revision: 4 }), r#"{"type":"delete","key":"a","revision":4}"#);
    }

    #[test]
    fn a_refused_compaction_is_the_callers_to_mend() {
        let refused =
            compact_reply(Some(Reply::Refused { why: Refusal::FutureRevision { asked: 9, current: 4 } }), 9);
        assert_eq!(refused.expect_err("refused").status(), StatusCode::BAD_REQUEST);
        assert!(compact_reply(Some(Reply::Compacted { revision: 9 }), 4).is_ok());
    }
}
