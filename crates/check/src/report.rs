//! Verdicts, and how a bad history is shown: the shortest prefix that is bad, without
//! the reads that have nothing to do with it.

use std::fmt;

use crate::history::Op;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    Ok,
    Illegal(Illegal),
    /// The search ran out of steps. Not a pass: record shorter histories per key.
    Unknown {
        key: String,
        steps: u64,
    },
}

/// Why a history cannot be, and the operations that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    pub key: String,
    pub why: String,
    /// In the order in which they began.
    pub history: Vec<Op>,
}

impl Verdict {
    pub fn is_ok(&self) -> bool {
        matches!(self, Verdict::Ok)
    }

    pub fn is_illegal(&self) -> bool {
        matches!(self, Verdict::Illegal(_))
    }

    pub(crate) fn illegal(key: &str, why: String, ops: Vec<&Op>) -> Self {
        let mut history: Vec<Op> = ops.into_iter().cloned().collect();
        history.sort_by_key(|op| op.invoked_at);
        Verdict::Illegal(Illegal { key: key.to_owned(), why, history })
    }

    /// Panics with the printed history unless the verdict is [`Verdict::Ok`].
    #[track_caller]
    pub fn expect_ok(&self) {
        assert!(self.is_ok(), "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => write!(f, "ok"),
            Verdict::Unknown { key, steps } => {
                write!(f, "unknown: no verdict on key {key:?} within {steps} steps")
            }
            Verdict::Illegal(bad) => {
                writeln!(f, "illegal: key {:?}: {}", bad.key, bad.why)?;
                writeln!(f, "[ began  ended]")?;
                bad.history.iter().try_for_each(|op| writeln!(f, "{op}"))
            }
        }
    }
}
