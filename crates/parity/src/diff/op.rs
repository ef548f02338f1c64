//! What a sequence is made of: requests, in symbols, and what comes back.

use std::fmt::{self, Display, Formatter};

use regex::Regex;

use super::proto::*;
use super::watches::Watched;

/// A value longer than this is printed as its length.
const SHOWN_BYTES: usize = 64;

/// One step of a sequence, for either side.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    KeepAlive(LeaseKeepAliveRequest),
    Leases,
    /// On the one stream of the sequence.
    Watch(WatchRequest),
    /// Waits until every watch has told all that happened, and compares what they told.
    /// Not drawn: played before what would race with events on their way.
    Settle,
    /// Reads everything from every node: the end of each sequence.
    Agree,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Which node is asked, modulo the nodes that a side has.
    pub node: usize,
    pub action: Action,
}

/// Drawn from a seed, perhaps with some of its operations left out.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub seed: u64,
    /// With the place that each had when it was drawn.
    pub ops: Vec<(usize, Op)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    KeepAlive(Option<LeaseKeepAliveResponse>),
    Leases(LeaseLeasesResponse),
    /// What a request on the watch stream was answered with at once; the fence is last.
    Control(Vec<WatchResponse>),
    Settled(Vec<Watched>),
    /// What the nodes hold; one, when they agree.
    Held(Vec<RangeResponse>),
}

/// An error as a gRPC client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: tonic::Code,
    pub message: String,
}

pub type Outcome = Result<Reply, Refusal>;

impl Action {
    /// For tables: what kind of request it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Range(_) => "range",
            Action::Put(_) => "put",
            Action::DeleteRange(_) => "delete",
            Action::Txn(_) => "txn",
            Action::Compact(_) => "compact",
            Action::Grant(_) => "lease grant",
            Action::Revoke(_) => "lease revoke",
            Action::TimeToLive(_) => "lease time to live",
            Action::KeepAlive(_) => "lease keep alive",
            Action::Leases => "leases",
            Action::Watch(_) => "watch",
            Action::Settle => "watched events",
            Action::Agree => "all keys of all nodes",
        }
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

impl Refusal {
    /// Elections, a busy machine: says nothing about how the two compare.
    pub fn is_passing(&self) -> bool {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable};
        matches!(self.code, Unavailable | DeadlineExceeded | Cancelled)
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}", self.node + 1, without_defaults(&shorten(&format!("{:?}", self.action))))
    }
}

/// A request's debug output, without the fields that say nothing.
fn without_defaults(text: &str) -> String {
    match Regex::new(r#"\b\w+: (?:0|false|b""|None|\[\]|Key)(?:, )?"#) {
        Ok(defaults) => defaults.replace_all(text, "").replace(",  }", " }"),
        Err(_) => text.to_owned(),
    }
}

/// Long values are zeros, whose debug output is four characters a byte.
pub fn shorten(text: &str) -> String {
    let zeros = "\\0".repeat(SHOWN_BYTES);
    let Some(at) = text.find(&zeros) else { return text.to_owned() };
    let rest = text[at..].trim_start_matches("\\0");
    let length = (text.len() - at - rest.len()) / 2;
    format!("{}<{length} zeros>{}", &text[..at], shorten(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_left_out() {
        let request = PutRequest { key: "k".into(), prev_kv: true, ..PutRequest::default() };
        let op = Op { node: 1, action: Action::Put(request) };
        assert_eq!(op.to_string(), r#"node 2: Put(PutRequest { key: b"k", prev_kv: true })"#);
    }

    #[test]
    fn a_long_value_is_shown_by_its_length() {
        let long = format!("{:?}", bytes::Bytes::from(vec![0; 1_000]));
        assert_eq!(shorten(&long), "b\"<1000 zeros>\"");
        assert_eq!(shorten("b\"a\\0\""), "b\"a\\0\"");
    }
}
