//! Says whether a recorded history of reads and writes is linearizable, key by key.
//!
//! A test gives every call to a [`Recorder`] when it begins and when it ends; the
//! recorder numbers these moments, so that "ended before that one began" is exact.
//! What comes out, a list of [`Op`]s, is judged twice, independently:
//!
//! 1. [`check_revisions`] believes the revisions the server gave and looks for
//!    contradictions among them. It needs one sort, whatever the length, and its
//!    messages name the two operations that contradict each other.
//! 2. [`check_linearizable`] searches each key's history for an order that explains
//!    every reply (Wing and Gong 1993, with Lowe's memory of configurations, 2017).
//!    Linearizability is local (Herlihy and Wing 1990, section 3.1): a history is
//!    linearizable when each key's is, so keys are searched apart.
//!
//! A write whose outcome is unknown may take effect at any time after it began, or
//! never. A search that runs out of steps is [`Verdict::Unknown`], which is no pass.
//!
//! The store is taken to be empty when the history begins, and every put should write
//! a value no other put writes: only then does a read tell which write it saw.
//!
//! Local reads promise less than this; leave them out of the history.

mod history;
mod http;
mod model;
mod report;
mod revisions;
mod search;

pub use history::{Action, Condition, Op, OpId, Outcome, Recorder, Revision, Seen, Time, ValueId};
pub use http::{Call, outcome};
pub use report::{Illegal, Verdict};
pub use revisions::check_revisions;
pub use search::{DEFAULT_STEPS, check_linearizable};

/// Both checks; the cheap one, whose messages are the better ones, first.
pub fn check(history: &[Op], steps: u64) -> Verdict {
    match check_revisions(history) {
        Verdict::Ok => check_linearizable(history, steps),
        bad => bad,
    }
}
