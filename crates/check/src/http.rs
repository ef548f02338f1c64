//! What an action is over the HTTP API, and what a reply to it means for the history.

use http::Method;
use serde_json::Value;

use crate::{Action, Condition, Outcome, Seen};

/// A request, without where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub target: String,
    pub header: Option<(&'static str, String)>,
    pub body: String,
}

impl Call {
    /// Reads are linearizable, and whoever is asked passes a write on. `deadline` is the
    /// server's own.
    pub fn new(key: &str, action: Action, deadline: &str) -> Self {
        let write = format!("/key/{key}?forward=true&timeout={deadline}");
        let (method, target, body, when) = match action {
            Action::Get => {
                let read = format!("/key/{key}?consistency=linearizable&timeout={deadline}");
                (Method::GET, read, String::new(), None)
            }
            Action::Put { value, when } => (Method::PUT, write, value.to_string(), when),
            Action::Delete { when } => (Method::DELETE, write, String::new(), when),
        };
        let header = when.map(|when| match when {
            Condition::Revision(at) => ("if-match", format!("\"{at}\"")),
            Condition::Exists => ("if-match", "*".to_owned()),
            Condition::Absent => ("if-none-match", "*".to_owned()),
        });
        Self { method, target, header, body }
    }
}

/// What the reply says about what happened; `etag` is the revision that its entity tag
/// names. The error is an answer that a client of this API should not have to understand.
pub fn outcome(action: Action, status: u16, etag: Option<u64>, body: &Value) -> Result<Outcome, String> {
    let unexpected = |why: &str| Err(format!("{why} in the answer to {action:?}: {status} {body}"));
    Ok(match (status, action) {
        (200, Action::Get) => match body["value"].as_u64() {
            Some(value) => Outcome::Read(Some(Seen { value, revision: etag })),
            None => return unexpected("a value that nobody wrote"),
        },
        // In the body, because a delete leaves no entity whose tag could tell it.
        (200, _) => Outcome::Done { revision: body["revision"].as_u64() },
        (404, Action::Get) => Outcome::Read(None),
        (404, Action::Delete { .. }) => Outcome::NotFound,
        (412, _) => Outcome::PreconditionFailed,
        (429 | 500..=599, Action::Get) => Outcome::NotApplied,
        (429 | 500..=599, _) => match body["outcome"].as_str() {
            Some("not_applied") => Outcome::NotApplied,
            Some("unknown") => Outcome::Unknown,
            _ => return unexpected("no outcome"),
        },
        _ => return unexpected("an unexpected status"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(action: Action, status: u16, body: Value) -> Result<Outcome, String> {
        outcome(action, status, Some(7), &body)
    }

    #[test]
    fn a_refusal_of_a_write_says_whether_it_may_have_happened() {
        let put = Action::put(1);
        assert_eq!(told(put, 503, json!({"outcome": "not_applied"})), Ok(Outcome::NotApplied));
        assert_eq!(told(put, 504, json!({"outcome": "unknown"})), Ok(Outcome::Unknown));
        assert!(told(put, 503, json!({"error": "no"})).is_err());
        assert!(told(put, 302, Value::Null).is_err());
        assert_eq!(told(Action::Get, 503, Value::Null), Ok(Outcome::NotApplied));
    }

    #[test]
    fn conditions_travel_as_headers() {
        let when = |when| Call::new("a", Action::Put { value: 1, when }, "2s").header;
        assert_eq!(when(Some(Condition::Revision(5))), Some(("if-match", "\"5\"".to_owned())));
        assert_eq!(when(Some(Condition::Absent)), Some(("if-none-match", "*".to_owned())));
        assert_eq!(when(None), None);
    }
}
