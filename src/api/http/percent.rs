//! Percent-decoding, exactly once and strictly: what is malformed is refused, never
//! guessed, because two spellings guessed to be the same would be two keys to others.

use std::borrow::Cow;

/// Decodes `%XX`; with `plus_is_space` also `+`, as HTML forms write it in queries.
pub fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, &'static str> {
    let special = |byte: &u8| *byte == b'%' || (plus_is_space && *byte == b'+');
    if !text.as_bytes().iter().any(special) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = rest.next().and_then(hex).zip(rest.next().and_then(hex));
                let (high, low) =
                    digits.ok_or("a % must be followed by two hexadecimal digits (a literal % is %25)")?;
                high << 4 | low
            }
            b'+' if plus_is_space => b' ',
            other => *other,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| "the decoded bytes are not valid UTF-8")
}

fn hex(digit: &u8) -> Option<u8> {
    (*digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_survives_encoding(text in any::<String>()) {
            let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(decode(&encoded, false).expect("well-formed").into_owned(), text.clone());
            prop_assert_eq!(decode(&encoded, true).expect("well-formed").into_owned(), text.clone());
        }

        #[test]
        fn never_panics_and_changes_nothing_without_escapes(text in "[^%+]*") {
            prop_assert_eq!(decode(&text, true).expect("nothing to decode").into_owned(), text.clone());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(text in "[%0-9a-gA-G+/.é]{0,40}") {
            let _ = decode(&text, true);
        }
    }

    #[test]
    fn decodes_once_and_strictly() {
        assert_eq!(decode("a%2Fb%2fc", false).expect("valid"), "a/b/c");
        assert_eq!(decode("%2541", false).expect("valid"), "%41");
        assert_eq!(decode("a+b", false).expect("valid"), "a+b");
        for bad in ["%", "%4", "%zz", "a%+1", "%ff", "%c3%28"] {
            assert!(decode(bad, false).is_err(), "{bad}");
        }
    }
}
