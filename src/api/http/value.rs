//! Values: bytes in the store, JSON to those who ask for JSON.
//!
//! JSON is stored as the text that was sent, so that numbers keep their digits and
//! objects their order. Bytes written otherwise that are not JSON are shown as a string
//! that says its encoding.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::ApiError;

/// How deep JSON may nest: what most parsers, ours included, follow.
pub const MAX_JSON_DEPTH: usize = 128;

/// The one JSON value in `body`, without the white space around it; shares its memory.
pub fn parse_json(body: &Bytes) -> Result<&RawValue, ApiError> {
    let raw: &RawValue =
        serde_json::from_slice(body).map_err(|error| ApiError::invalid_json(&error, body.is_empty()))?;
    // serde_json skims a raw value without recursion, hence without a limit of its own.
    if depth(raw.get().as_bytes()) > MAX_JSON_DEPTH {
        return Err(ApiError::too_deep(MAX_JSON_DEPTH));
    }
    Ok(raw)
}

/// The deepest nesting of valid JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// A value as a JSON reply shows it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ShownValue<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Base64(String),
}

/// How to show bytes from the store, whoever wrote them, and the encoding if it is not JSON.
pub fn show(bytes: &[u8]) -> (ShownValue<'_>, Option<&'static str>) {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return (ShownValue::Json(value), None);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (ShownValue::Text(text), Some("text")),
        Err(_) => (ShownValue::Base64(STANDARD.encode(bytes)), Some("base64")),
    }
}

/// How to show a key, and its encoding if it is not text: only other protocols can write
/// keys that are not UTF-8.
pub fn show_key(bytes: &[u8]) -> (Cow<'_, str>, Option<&'static str>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), None),
        Err(_) => (Cow::Owned(STANDARD.encode(bytes)), Some("base64")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(body: &str) -> Result<String, ApiError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        parse_json(&body).map(|raw| raw.get().to_owned())
    }

    #[test]
    fn text_is_kept_as_sent() {
        for (sent, stored) in [
            (" \r\n\t\"Alice\" \n", "\"Alice\""),
            ("1.10e+400", "1.10e+400"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("{ \"b\" : 1, \"a\":[ ] }", "{ \"b\" : 1, \"a\":[ ] }"),
            ("null", "null"),
            ("false", "false"),
        ] {
            assert_eq!(text(sent).expect(sent), stored);
        }
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for bad in ["", " ", "Alice", "{", "1 2", "01", "{'a':1}", "[1,]", "\u{feff}1", "NaN", "\"a\nb\""] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
        assert!(parse_json(&Bytes::from_static(b"\"\xff\"")).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(text(&nested(MAX_JSON_DEPTH)).is_ok());
        assert!(text(&nested(MAX_JSON_DEPTH + 1)).is_err());
        assert!(text(&nested(200_000)).is_err());
        assert!(text(&format!("\"{}\\\"[\"", "[".repeat(1000))).is_ok());
    }

    #[test]
    fn bytes_that_are_not_json_say_their_encoding() {
        let shown = |bytes| serde_json::to_string(&show(bytes)).expect("serialisable");
        assert_eq!(shown(b"{\"a\": 1.0}"), r#"[{"a": 1.0},null]"#);
        assert_eq!(shown(b"plain"), r#"["plain","text"]"#);
        assert_eq!(shown(b"\xff\x00"), r#"["/wA=","base64"]"#);
        assert_eq!(shown(b""), r#"["","text"]"#);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn true_depth(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(true_depth).max().unwrap_or(0),
            serde_json::Value::Object(items) => 1 + items.values().map(true_depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn any_json_survives(value in json()) {
            let sent = serde_json::to_string_pretty(&value).expect("serialisable");
            prop_assert_eq!(&text(&sent).expect("valid"), &sent);
            prop_assert_eq!(depth(sent.as_bytes()), true_depth(&value));
        }

        #[test]
        fn any_bytes_can_be_shown(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let shown = serde_json::to_vec(&show(&bytes)).expect("serialisable");
            prop_assert!(serde_json::from_slice::<&RawValue>(&shown).is_ok());
        }
    }
}
