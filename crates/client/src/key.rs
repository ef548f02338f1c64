//! How a key is written into a path.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters is encoded; `/` stays, because keys
/// are read by people in URLs and the server takes the whole rest of the path as key.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A key that no URL can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key must not be empty")]
pub struct InvalidKey;

/// The key as it stands behind `/key/`.
///
/// A segment that is `.` or `..` has its dots encoded: URL parsers and proxies would
/// resolve it, and the request would be about another key.
pub fn encode_key(key: &str) -> Result<String, InvalidKey> {
    if key.is_empty() {
        return Err(InvalidKey);
    }
    let segments = key.split('/').map(|segment| match segment {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        other => utf8_percent_encode(other, KEY).to_string(),
    });
    Ok(segments.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_but_for_unreserved_characters_and_slashes() {
        for (key, path) in [
            ("name", "name"),
            ("users/7/name", "users/7/name"),
            ("a b", "a%20b"),
            ("q?x=1&y#z", "q%3Fx%3D1%26y%23z"),
            ("100%", "100%25"),
            ("a+b", "a%2Bb"),
            ("-._~", "-._~"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            ("a//b", "a//b"),
            ("a/../b/.", "a/%2E%2E/b/%2E"),
            ("line\nbreak", "line%0Abreak"),
        ] {
            assert_eq!(encode_key(key).expect(key), path);
        }
        assert_eq!(encode_key(""), Err(InvalidKey));
    }

    #[test]
    fn decoding_gives_the_key_back() {
        for key in ["a/../b", "%41", "\u{0}\u{7f}é€😀", "..", "/", " "] {
            let path = encode_key(key).expect("not empty");
            assert!(path.is_ascii());
            assert_eq!(percent_encoding::percent_decode_str(&path).decode_utf8_lossy(), key);
        }
    }
}
