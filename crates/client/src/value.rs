//! What is stored under a key: JSON text as sent, or raw bytes.

use bytes::Bytes;

/// A value on its way in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// JSON text, byte for byte as given.
    Json(String),
    /// Bytes without a meaning to the store.
    Bytes(Bytes),
}

/// The text given as JSON is none.
#[derive(Debug, thiserror::Error)]
#[error("not valid JSON: {0}")]
pub struct InvalidJson(#[from] serde_json::Error);

impl Value {
    /// Checks that `text` is one JSON value, and keeps it as it stands.
    pub fn json(text: &str) -> Result<Self, InvalidJson> {
        // Borrowed raw text: checked without building a tree, so numbers keep their digits.
        let raw: &serde_json::value::RawValue = serde_json::from_str(text)?;
        Ok(Self::Json(raw.get().to_owned()))
    }

    /// `text` as a JSON string.
    pub fn string(text: &str) -> Self {
        Self::Json(serde_json::Value::from(text).to_string())
    }

    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(bytes.into())
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Bytes(_) => OCTETS,
        }
    }

    pub(crate) fn into_body(self) -> Bytes {
        match self {
            Self::Json(text) => text.into(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The media type of raw bytes, in and out.
pub(crate) const OCTETS: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_stands() {
        for text in ["1.00", "123456789012345678901234567890", r#"{"b":1, "a":2}"#, r#""\u0041""#] {
            assert_eq!(Value::json(text).expect(text), Value::Json(text.to_owned()));
        }
        assert!(Value::json("Alice").is_err());
        assert!(Value::json("1 2").is_err());
        assert_eq!(Value::string("a\"b"), Value::Json(r#""a\"b""#.to_owned()));
    }
}
