//! Query parameters, parsed and checked once; a handler says which it knows.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use super::error::ApiError;
use super::percent;
use crate::types::{Ack, Consistency, Revision};

/// The longest wait a client may ask for: it holds memory and a place in line.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Every parameter of every route; absent ones are `None` or false.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    pub ack: Option<Ack>,
    pub consistency: Consistency,
    pub min_revision: Option<Revision>,
    pub revision: Option<Revision>,
    pub forward: bool,
    pub redirect: bool,
    pub timeout: Option<Duration>,
    pub limit: Option<usize>,
    pub since: Option<Revision>,
    pub keys_only: bool,
    pub prefix: Option<Cow<'a, str>>,
    pub start: Option<Cow<'a, str>>,
    pub end: Option<Cow<'a, str>>,
}

/// Parses `query`, which may hold each of `known` once and nothing else.
pub fn parse<'a>(query: Option<&'a str>, known: &[&str]) -> Result<Params<'a>, ApiError> {
    let mut params = Params::default();
    let mut seen: Vec<&str> = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.contains(&name) {
            return Err(unknown(name, known));
        }
        if seen.contains(&name) {
            return Err(ApiError::invalid(format!("the parameter {name} is given twice")));
        }
        seen.push(name);
        let value = percent::decode(value, true)
            .map_err(|why| ApiError::invalid(format!("the parameter {name}: {why}")))?;
        params.set(name, value)?;
    }
    Ok(params)
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let hint = match known {
        [] => "this route has no parameters".to_owned(),
        known => format!("this route knows: {}", known.join(", ")),
    };
    // Percent-encoding stays: the name is only echoed.
    ApiError::invalid(format!("unknown parameter {name:?}")).with_hint(hint)
}

impl<'a> Params<'a> {
    fn set(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), ApiError> {
        match name {
            "ack" => self.ack = Some(ack(&value)?),
            "consistency" => self.consistency = consistency(&value)?,
            "min_revision" => self.min_revision = Some(number(name, &value)?),
            "revision" => self.revision = Some(positive(name, &value)?),
            "since" => self.since = Some(number(name, &value)?),
            "limit" => self.limit = Some(number(name, &value)?),
            "forward" => self.forward = boolean(name, &value)?,
            "redirect" => self.redirect = boolean(name, &value)?,
            "keys_only" => self.keys_only = boolean(name, &value)?,
            "timeout" => self.timeout = Some(timeout(&value)?),
            "prefix" => self.prefix = Some(value),
            "start" => self.start = Some(value),
            "end" => self.end = Some(value),
            _ => return Err(unknown(name, &[])),
        }
        Ok(())
    }
}

fn ack(value: &str) -> Result<Ack, ApiError> {
    let all = [Ack::Leader, Ack::Quorum, Ack::All];
    let found = all.into_iter().find(|ack| ack.as_str() == value);
    found.ok_or_else(|| ApiError::invalid("ack must be leader, quorum or all"))
}

fn consistency(value: &str) -> Result<Consistency, ApiError> {
    match value {
        "local" => Ok(Consistency::Local),
        "linearizable" => Ok(Consistency::Linearizable),
        "stale" => Ok(Consistency::Stale),
        _ => Err(ApiError::invalid("consistency must be local, linearizable or stale")),
    }
}

/// Digits only: no sign, no space.
fn number<T: FromStr>(name: &str, value: &str) -> Result<T, ApiError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if digits { value.parse().ok() } else { None };
    parsed.ok_or_else(|| ApiError::invalid(format!("{name} must be a number from 0 to 18446744073709551615")))
}

fn positive(name: &str, value: &str) -> Result<u64, ApiError> {
    match number(name, value)? {
        0 => Err(ApiError::invalid(format!("{name} must be at least 1; leave it out for the newest"))),
        revision => Ok(revision),
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::invalid(format!("{name} must be true or false"))),
    }
}

/// `500ms`, `2s`, or milliseconds as a plain number.
fn timeout(value: &str) -> Result<Duration, ApiError> {
    let (digits, unit_ms) = match value.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => value.strip_suffix('s').map_or((value, 1), |digits| (digits, 1000)),
    };
    let millis = number::<u64>("timeout", digits).ok().and_then(|count| count.checked_mul(unit_ms));
    let allowed = Duration::from_millis(1)..=MAX_TIMEOUT;
    let asked = millis.map(Duration::from_millis).filter(|asked| allowed.contains(asked));
    asked.ok_or_else(|| {
        let max = MAX_TIMEOUT.as_secs();
        ApiError::invalid(format!("timeout must be 1ms to {max}s, such as 500ms, 2s or 500 (milliseconds)"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: &[&str] =
        &["ack", "forward", "timeout", "min_revision", "revision", "consistency", "prefix", "limit"];

    fn ok(query: &str) -> Params<'_> {
        parse(Some(query), ALL).expect(query)
    }

    #[test]
    fn values_are_typed() {
        let params = ok("ack=all&forward&timeout=2s&min_revision=7&consistency=linearizable&prefix=a%2Fb+c");
        assert_eq!(params.ack, Some(Ack::All));
        assert!(params.forward);
        assert_eq!(params.timeout, Some(Duration::from_secs(2)));
        assert_eq!(params.min_revision, Some(7));
        assert_eq!(params.consistency, Consistency::Linearizable);
        assert_eq!(params.prefix.as_deref(), Some("a/b c"));
        assert_eq!(ok("timeout=500").timeout, ok("timeout=500ms").timeout);
        assert_eq!(parse(None, &[]).expect("empty"), Params::default());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "ack=most",
            "ack",
            "timeout=0",
            "timeout=-1",
            "timeout=61s",
            "timeout=s",
            "timeout=99999999999999999999s",
            "min_revision=+1",
            "min_revision=1.5",
            "revision=0",
            "limit=18446744073709551616",
            "forward=maybe",
            "ack=all&ack=all",
            "since=1",
            "prefix=%zz",
        ] {
            assert!(parse(Some(bad), ALL).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_parameter_names_the_known_ones() {
        let error = parse(Some("forwrd=true"), &["forward", "ack"]).expect_err("misspelt");
        assert!(error.hint().is_some_and(|hint| hint.contains("forward, ack")));
    }

    proptest! {
        #[test]
        fn never_panics(query in ".{0,60}") {
            let _ = parse(Some(&query), ALL);
        }

        #[test]
        fn numbers_survive(n in any::<u64>()) {
            let query = format!("min_revision={n}");
            prop_assert_eq!(ok(&query).min_revision, Some(n));
        }
    }
}
