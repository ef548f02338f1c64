//! What a run has met: a comparison says little about replies that never came.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::op::{Action, Outcome};

/// Replies by kind of request and by error, as the reference gave them.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<(&'static str, String), u64>);

/// Errors that a long run must have met.
pub const EXPECTED_ERRORS: [&str; 12] = [
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: request is too large",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
];

impl Coverage {
    pub fn add(&mut self, action: &Action, outcome: &Outcome) {
        let result = match outcome {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => refusal.message.clone(),
        };
        *self.0.entry((action.kind(), result)).or_default() += 1;
    }

    pub fn has_error(&self, text: &str) -> bool {
        self.0.keys().any(|(_, result)| result == text)
    }
}

impl Display for Coverage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for ((kind, result), count) in &self.0 {
            writeln!(f, "{count:>8}  {kind}: {result}")?;
        }
        Ok(())
    }
}
