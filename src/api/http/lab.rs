//! `/v1/lab`: a bad network and silent damage on demand, on nodes started with `--lab`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, ApiResult};
use super::memory::Budget;
use super::{body, percent, query, reply};
use crate::node::Node;
use crate::node::faults::{Counts, Link, Rules, Way};
use crate::server::RequestBody;
use crate::types::MemberName;

/// Before the name of a node.
pub const LINK_PREFIX: &str = "/v1/lab/network/";
/// Before a key, percent-encoded.
pub const CORRUPT_PREFIX: &str = "/v1/lab/corrupt/";
/// The longest delay: longer ones only fill memory.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Rules for one direction, as people write them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct RulesText {
    delay_ms: u64,
    cut: bool,
    loss: f64,
    duplicate: f64,
    reorder: f64,
}

impl RulesText {
    fn of(rules: Rules) -> Self {
        let Rules { delay, cut, loss, duplicate, reorder } = rules;
        Self { delay_ms: delay.as_millis() as u64, cut, loss, duplicate, reorder }
    }

    fn check(self) -> Result<Rules, ApiError> {
        let Self { delay_ms, cut, loss, duplicate, reorder } = self;
        let delay = Duration::from_millis(delay_ms);
        if delay > MAX_DELAY {
            let max = MAX_DELAY.as_millis();
            return Err(ApiError::invalid(format!("delayMs must be 0 to {max}")));
        }
        for (name, chance) in [("loss", loss), ("duplicate", duplicate), ("reorder", reorder)] {
            if !(0.0..=1.0).contains(&chance) {
                return Err(ApiError::invalid(format!("{name} is a chance: 0 to 1")));
            }
        }
        Ok(Rules { delay, cut, loss, duplicate, reorder })
    }
}

/// What a request sets: a direction that it leaves out is healed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LinkRequest {
    send: RulesText,
    receive: RulesText,
    seed: Option<u64>,
}

#[derive(Serialize)]
struct WayReply {
    #[serde(flatten)]
    rules: RulesText,
    counts: CountsReply,
}

#[derive(Serialize)]
struct CountsReply {
    passed: u64,
    delayed: u64,
    cut: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
}

impl WayReply {
    fn of(way: &Way) -> Self {
        let Counts { passed, delayed, cut, lost, duplicated, reordered } = way.counts();
        let counts = CountsReply { passed, delayed, cut, lost, duplicated, reordered };
        Self { rules: RulesText::of(way.rules()), counts }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkReply {
    node_id: String,
    send: WayReply,
    receive: WayReply,
}

impl LinkReply {
    fn of(name: &MemberName, link: &Link) -> Self {
        Self {
            node_id: name.to_string(),
            send: WayReply::of(&link.send),
            receive: WayReply::of(&link.receive),
        }
    }
}

#[derive(Serialize)]
struct NetworkReply {
    links: Vec<LinkReply>,
}

/// The links of this node and what has befallen their messages.
pub fn network(node: &Node, parts: &Parts) -> ApiResult {
    query::parse(parts.uri.query(), &[])?;
    let links = links(node)?;
    let links = links.iter().map(|(name, link)| LinkReply::of(name, link)).collect();
    Ok(reply::json(StatusCode::OK, &NetworkReply { links }))
}

/// Sets both directions of one link.
pub async fn set_link(node: &Node, parts: &Parts, body: impl RequestBody, bodies: &Budget) -> ApiResult {
    query::parse(parts.uri.query(), &[])?;
    let links = links(node)?;
    let wanted = parts.uri.path().strip_prefix(LINK_PREFIX).unwrap_or_default();
    let wanted =
        percent::decode(wanted, false).map_err(|why| ApiError::invalid(format!("the node's name: {why}")))?;
    let Some((name, link)) = links.iter().find(|(name, _)| name.as_str() == wanted) else {
        let known: Vec<&str> = links.iter().map(|(name, _)| name.as_str()).collect();
        let hint = format!("the other nodes are: {}", known.join(", "));
        return Err(ApiError::invalid(format!("no link to {wanted:?}")).with_hint(hint));
    };
    let (text, _share) = body::read(&parts.headers, body, bodies).await?;
    let asked: LinkRequest = serde_json::from_slice(&text).map_err(|error| {
        ApiError::invalid(format!("not a link's rules: {error}")).with_hint(
            r#"such as {"send":{"delayMs":100},"receive":{"cut":true}}; also loss, duplicate, reorder (0 to 1), and seed"#,
        )
    })?;
    let (send, receive) = (asked.send.check()?, asked.receive.check()?);
    link.send.set(send, asked.seed);
    link.receive.set(receive, asked.seed);
    tracing::info!("Lab: the link to {name} is now send {send}, receive {receive}");
    Ok(reply::json(StatusCode::OK, &LinkReply::of(name, link)))
}

/// Heals all links; what is counted stays.
pub fn heal(node: &Node, parts: &Parts) -> ApiResult {
    query::parse(parts.uri.query(), &[])?;
    for (_, link) in links(node)? {
        link.send.set(Rules::default(), None);
        link.receive.set(Rules::default(), None);
    }
    tracing::info!("Lab: all links are healed");
    network(node, parts)
}

#[derive(Serialize)]
struct CorruptReply<'a> {
    success: bool,
    key: &'a str,
}

/// Flips a bit of the key's value in this node's table alone.
pub async fn corrupt(node: &Node, parts: &Parts) -> ApiResult {
    require_lab(node)?;
    query::parse(parts.uri.query(), &[])?;
    let key = parts.uri.path().strip_prefix(CORRUPT_PREFIX).unwrap_or_default();
    let key = percent::decode(key, false).map_err(|why| ApiError::invalid(format!("the key: {why}")))?;
    let damaged = node.store().damage(Bytes::copy_from_slice(key.as_bytes())).await;
    damaged.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ApiError::key_not_found(&key).with_hint(error.to_string()),
        _ => ApiError::invalid(format!("could not damage the table: {error}")),
    })?;
    tracing::info!("Lab: a bit of {key:?} is flipped in this node's table");
    Ok(reply::json(StatusCode::OK, &CorruptReply { success: true, key: &key }))
}

pub fn require_lab(node: &Node) -> Result<(), ApiError> {
    match node.config().lab {
        true => Ok(()),
        false => Err(ApiError::not_found().with_hint("start the node with --lab to have this")),
    }
}

/// The link to every other member.
fn links(node: &Node) -> Result<Vec<(MemberName, Arc<Link>)>, ApiError> {
    require_lab(node)?;
    let others = node.status().members.into_iter().map(|member| member.name);
    let others = others.filter(|name| *name != node.config().name);
    Ok(others.filter_map(|name| node.faults().link(&name).map(|link| (name, link))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_checked() {
        let good = RulesText { delay_ms: 100, loss: 0.5, ..RulesText::default() };
        assert_eq!(good.check().expect("good").delay, Duration::from_millis(100));
        for bad in [
            RulesText { delay_ms: 60_001, ..good },
            RulesText { loss: 1.5, ..good },
            RulesText { duplicate: -0.1, ..good },
            RulesText { reorder: f64::NAN, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<LinkRequest>(r#"{"sent":{}}"#).is_err(), "a misspelt direction");
    }
}
