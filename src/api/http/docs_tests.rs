//! `docs/http-api.md` names every route, parameter and limit that the code has.

use super::{
    MAX_BODY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, body, key, memory, query, status, turns, v1, value,
};
use crate::server::Limits;

const PAGE: &str = include_str!("../../../docs/http-api.md");

/// Some line says all of these.
fn says(words: &[&str]) {
    assert!(PAGE.lines().any(|line| words.iter().all(|word| line.contains(word))), "no line says {words:?}");
}

/// As the page writes numbers: 1,048,576.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn every_route_and_parameter() {
    for route in ["/status", "/key/{key}", "/v1/keys", "/v1/changes", "/v1/compact", "/v1/state-hash"] {
        says(&[&format!("{route}` |")]);
    }
    let all = [key::READ_PARAMS, key::WRITE_PARAMS, v1::KEYS_PARAMS, v1::CHANGES_PARAMS, v1::COMPACT_PARAMS];
    for name in all.concat() {
        assert!(
            PAGE.contains(&format!("`{name}=")) || PAGE.contains(&format!("`{name}`")),
            "{name} is not on the page"
        );
    }
}

#[test]
fn every_limit() {
    let limits = Limits::default();
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    says(&["bytes of UTF-8", &MAX_KEY_BYTES.to_string()]);
    says(&["request body", &grouped(MAX_VALUE_BYTES), &grouped(MAX_BODY_BYTES)]);
    says(&["levels deep", &value::MAX_JSON_DEPTH.to_string()]);
    says(&["keysTruncated", &status::MAX_KEYS.to_string()]);
    says(&["`limit` (1 to", &v1::MAX_ROWS.to_string()]);
    says(&["`timeout=`", &seconds(query::MAX_TIMEOUT)]);
    says(&["A body must arrive", &seconds(body::BODY_TIMEOUT)]);
    says(&["| first byte", &seconds(limits.first_byte_timeout)]);
    says(&["| request head, from", &seconds(limits.header_read_timeout)]);
    says(&["| request body", &seconds(body::BODY_TIMEOUT)]);
    says(&["| whole request", &seconds(limits.request_life)]);
    says(&["| connection without", &seconds(limits.idle_timeout)]);
    says(&["| stopping", &seconds(limits.drain_timeout)]);
    says(&["strike up to", &seconds(limits.check_interval())]);
    says(&[
        "| request head |",
        &format!("{} KiB", limits.max_header_bytes / 1024),
        &limits.max_headers.to_string(),
    ]);
    says(&["| connection without", &seconds(limits.crowded_idle_timeout)]);
    let mebibytes = |bytes: usize| format!("{} MiB", bytes / (1024 * 1024));
    let free = format!("{} KiB", memory::SMALL_BYTES / 1024);
    says(&["| bytes of all bodies", &mebibytes(memory::MAX_BODY_BYTES_HELD), &free]);
    says(&["| bytes of all replies", &mebibytes(memory::MAX_REPLY_BYTES_HELD), &free]);
    let long = format!("{} KiB", turns::LONG_BYTES / 1024);
    says(&["| long requests that wait", &turns::MAX_WAITING.to_string(), &long]);
    says(&["`MAX_CONNECTIONS`", &limits.reserved_connections.to_string()]);
}
