//! `GET /status`: the chapter's fields first, then ours.

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::error::{ApiError, ApiResult};
use super::{query, reply, value};
use crate::node::{MemberStatus, Node, Status};
use crate::storage::mvcc::{RangeQuery, StoreStats};
use crate::types::{LogIndex, Revision};

/// Keys shown unless `limit` says otherwise: what a terminal shows at a glance.
const DEFAULT_KEYS: usize = 100;
/// The most keys `limit` may ask for.
pub const MAX_KEYS: usize = 1000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusReply<'a> {
    node_id: &'a str,
    role: &'static str,
    term: u64,
    leader_id: Option<&'a str>,
    total_keys: u64,
    keys: Vec<String>,
    /// True when `keys` does not hold them all.
    keys_truncated: bool,
    leader_url: Option<&'a str>,
    cluster_id: Option<String>,
    member_id: Option<String>,
    ready: bool,
    not_ready: Option<&'a str>,
    draining: bool,
    revision: Revision,
    compacted_revision: Revision,
    last_log_index: Option<LogIndex>,
    commit_index: Option<LogIndex>,
    applied_index: Option<LogIndex>,
    members: Vec<MemberReply<'a>>,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberReply<'a> {
    node_id: &'a str,
    member_id: String,
    url: &'a str,
    voter: bool,
    /// On the leader: the last entry known to be on that member's disk.
    match_index: Option<LogIndex>,
}

pub fn get(node: &Node, parts: &Parts) -> ApiResult {
    let params = query::parse(parts.uri.query(), &["limit"])?;
    let limit = params.limit.unwrap_or(DEFAULT_KEYS);
    if limit > MAX_KEYS {
        return Err(ApiError::invalid(format!(
            "limit may be {MAX_KEYS} at most; /v1/keys lists keys page by page"
        )));
    }
    let keys = first_keys(node, limit)?;
    Ok(reply::json(StatusCode::OK, &status_reply(&node.status(), &node.store().stats(), keys)))
}

fn first_keys(node: &Node, limit: usize) -> Result<Vec<String>, ApiError> {
    // To the store, 0 means all. In alarm what is there may not even be readable.
    if limit == 0 || node.alarm().is_some() {
        return Ok(Vec::new());
    }
    let all = RangeQuery { limit, keys_only: true, ..RangeQuery::default() };
    let found = node.store().range(&all).map_err(|error| ApiError::of_read(error, None))?;
    Ok(found.kvs.iter().map(|kv| value::show_key(&kv.key).0.into_owned()).collect())
}

fn status_reply<'a>(status: &'a Status, stats: &StoreStats, keys: Vec<String>) -> StatusReply<'a> {
    StatusReply {
        node_id: status.name.as_str(),
        role: status.role.as_str(),
        term: status.term,
        leader_id: status.leader.as_ref().map(|name| name.as_str()),
        total_keys: stats.keys,
        keys_truncated: (keys.len() as u64) < stats.keys,
        keys,
        leader_url: status.leader_url.as_deref(),
        cluster_id: status.cluster.map(|id| id.to_string()),
        member_id: status.member.map(|id| id.to_string()),
        ready: status.not_ready.is_none(),
        not_ready: status.not_ready.as_deref(),
        draining: status.draining,
        revision: status.revision,
        compacted_revision: stats.compacted,
        last_log_index: status.last_log,
        commit_index: status.committed,
        applied_index: status.applied,
        members: status.members.iter().map(member_reply).collect(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

fn member_reply(member: &MemberStatus) -> MemberReply<'_> {
    MemberReply {
        node_id: member.name.as_str(),
        member_id: member.id.to_string(),
        url: &member.url,
        voter: member.voter,
        match_index: member.matched,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::types::{MemberId, MemberName, Role};

    /// A leader with one follower that lags by three entries.
    pub fn example() -> Status {
        let name = |text| MemberName::parse(text).expect("valid name");
        let member = |text, id, matched| MemberStatus {
            name: name(text),
            id: MemberId(id),
            url: format!("http://{text}:4000"),
            voter: true,
            matched: Some(matched),
        };
        Status {
            name: name("node-1"),
            role: Role::Leader,
            term: 3,
            leader: Some(name("node-1")),
            leader_url: None,
            cluster: None,
            member: Some(MemberId(1)),
            members: vec![member("node-1", 1, 20), member("node-2", 2, 17)],
            last_log: Some(20),
            committed: Some(20),
            applied: Some(19),
            revision: 12,
            not_ready: None,
            draining: false,
            in_alarm: false,
        }
    }

    #[test]
    fn the_chapters_fields_come_first_and_by_their_names() {
        let stats = StoreStats { keys: 2, ..StoreStats::default() };
        let text =
            |keys| serde_json::to_string(&status_reply(&example(), &stats, keys)).expect("serialisable");
        let capped = text(vec!["a".into()]);
        let chapter = r#"{"nodeId":"node-1","role":"leader","term":3,"leaderId":"node-1","totalKeys":2,"keys":["a"],"keysTruncated":true,"#;
        assert!(capped.starts_with(chapter), "{capped}");
        assert!(text(vec!["a".into(), "b".into()]).contains(r#""keysTruncated":false"#));
    }
}
