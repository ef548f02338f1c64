//! `ETag`, `If-Match` and `If-None-Match`. An entity tag is the key's modification
//! revision in quotes.

use http::{HeaderMap, HeaderName, header};

use super::error::ApiError;
use crate::proto::log::{Precondition, precondition::Is};
use crate::types::Revision;

/// What a write demands of the key, if anything.
pub fn precondition(headers: &HeaderMap) -> Result<Option<Precondition>, ApiError> {
    let if_match = single(headers, header::IF_MATCH)?;
    let if_none_match = single(headers, header::IF_NONE_MATCH)?;
    let is = match (if_match, if_none_match) {
        (None, None) => return Ok(None),
        (Some("*"), None) => Is::Exists(true),
        (Some(tag), None) => Is::ModRevision(parse(tag).ok_or_else(malformed)?),
        (None, Some("*")) => Is::Exists(false),
        (None, Some(_)) => {
            return Err(ApiError::invalid("a write knows only If-None-Match: * (create, do not replace)"));
        }
        (Some(_), Some(_)) => return Err(ApiError::invalid("give If-Match or If-None-Match, not both")),
    };
    Ok(Some(Precondition { is: Some(is) }))
}

/// Whether a read may be answered with 304: one of the client's tags is the current one.
/// Weak tags compare like strong ones here (RFC 9110, section 13.1.2).
pub fn is_unmodified(headers: &HeaderMap, current: Revision) -> Result<bool, ApiError> {
    let Some(tags) = single(headers, header::IF_NONE_MATCH)? else { return Ok(false) };
    if tags == "*" {
        return Ok(true);
    }
    let mut unmodified = false;
    for tag in tags.split(',').map(str::trim) {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        unmodified |= parse(tag).ok_or_else(malformed)? == current;
    }
    Ok(unmodified)
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid(format!("{name} is given twice")));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| malformed())
}

fn parse(tag: &str) -> Option<Revision> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn malformed() -> ApiError {
    ApiError::invalid(
        "an entity tag is one revision in double quotes, such as \"7\", as the ETag header of a GET says it",
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn writes() {
        let demands = |name, value| precondition(&headers(name, value)).map(|p| p.and_then(|p| p.is));
        assert_eq!(demands(header::IF_MATCH, "\"12\"").expect("valid"), Some(Is::ModRevision(12)));
        assert_eq!(demands(header::IF_MATCH, "*").expect("valid"), Some(Is::Exists(true)));
        assert_eq!(demands(header::IF_NONE_MATCH, "*").expect("valid"), Some(Is::Exists(false)));
        assert_eq!(precondition(&HeaderMap::new()).expect("valid"), None);
        for bad in ["12", "\"x\"", "\"\"x", "\"", "W/\"12\"", "\"1\", \"2\"", "\"-1\"", ""] {
            assert!(demands(header::IF_MATCH, bad).is_err(), "{bad}");
        }
        assert!(demands(header::IF_NONE_MATCH, "\"12\"").is_err());
    }

    #[test]
    fn reads() {
        let unmodified = |value| is_unmodified(&headers(header::IF_NONE_MATCH, value), 7);
        assert!(unmodified("\"7\"").expect("valid"));
        assert!(unmodified("W/\"7\"").expect("valid"));
        assert!(unmodified("\"3\", \"7\"").expect("valid"));
        assert!(unmodified("*").expect("valid"));
        assert!(!unmodified("\"8\"").expect("valid"));
        assert!(unmodified("7").is_err());
        assert!(!is_unmodified(&HeaderMap::new(), 7).expect("valid"));
    }
}
