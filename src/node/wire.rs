//! Replies of the store as one node passes them on to another.

use crate::proto::peer::refusal::Why;
use crate::proto::peer::reply::Result as Kind;
use crate::proto::peer::{self as pb, Done};
use crate::storage::mvcc::{KeyValue, RangeResult, Refusal, Reply};
use crate::types::Revision;

impl From<Reply> for pb::Reply {
    fn from(reply: Reply) -> Self {
        let (revision, result) = match reply {
            Reply::Put { revision, create_revision, version, previous } => {
                let previous = previous.map(pb::KeyValue::from);
                (revision, Kind::Put(pb::PutDone { create_revision, version, previous }))
            }
            Reply::Deleted { revision, deleted, previous } => {
                let previous = previous.into_iter().map(pb::KeyValue::from).collect();
                (revision, Kind::Delete(pb::DeleteDone { deleted, previous }))
            }
            Reply::Txn { revision, succeeded, replies } => {
                let replies = replies.into_iter().map(Self::from).collect();
                (revision, Kind::Txn(pb::TxnDone { succeeded, replies }))
            }
            Reply::Range(RangeResult { kvs, count, more, revision }) => {
                let kvs = kvs.into_iter().map(pb::KeyValue::from).collect();
                (revision, Kind::Range(pb::RangeDone { kvs, count: count as u64, more }))
            }
            Reply::Compacted { revision } => (revision, Kind::Compacted(Done {})),
            Reply::Lease { revision, ttl_s } => (revision, Kind::LeaseTtlS(ttl_s)),
            Reply::LeasesEnded { revision } => (revision, Kind::LeasesEnded(Done {})),
            Reply::Ticked { revision } => (revision, Kind::Ticked(Done {})),
            Reply::Marked { revision } => (revision, Kind::Marked(Done {})),
            Reply::PreconditionFailed { current, revision } => {
                (revision, Kind::PreconditionFailed(current.unwrap_or(0)))
            }
            Reply::Refused { why } => (0, Kind::Refused(why.into())),
        };
        Self { revision, result: Some(result) }
    }
}

/// `None` when it is of a kind that this version does not know.
pub fn decode_reply(message: pb::Reply) -> Option<Reply> {
    let revision = message.revision;
    Some(match message.result? {
        Kind::Put(pb::PutDone { create_revision, version, previous }) => {
            Reply::Put { revision, create_revision, version, previous: previous.map(KeyValue::from) }
        }
        Kind::Delete(pb::DeleteDone { deleted, previous }) => {
            Reply::Deleted { revision, deleted, previous: previous.into_iter().map(KeyValue::from).collect() }
        }
        Kind::Txn(pb::TxnDone { succeeded, replies }) => {
            let replies = replies.into_iter().map(decode_reply).collect::<Option<_>>()?;
            Reply::Txn { revision, succeeded, replies }
        }
        Kind::Range(range) => Reply::Range(decode_range(range, revision)),
        Kind::Compacted(Done {}) => Reply::Compacted { revision },
        Kind::Marked(Done {}) => Reply::Marked { revision },
        Kind::LeaseTtlS(ttl_s) => Reply::Lease { revision, ttl_s },
        Kind::LeasesEnded(Done {}) => Reply::LeasesEnded { revision },
        Kind::Ticked(Done {}) => Reply::Ticked { revision },
        Kind::PreconditionFailed(current) => {
            Reply::PreconditionFailed { current: (current != 0).then_some(current), revision }
        }
        Kind::Refused(refusal) => Reply::Refused { why: decode_refusal(refusal)? },
    })
}

fn decode_range(range: pb::RangeDone, revision: Revision) -> RangeResult {
    let pb::RangeDone { kvs, count, more } = range;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    RangeResult { kvs: kvs.into_iter().map(KeyValue::from).collect(), count, more, revision }
}

impl From<Refusal> for pb::Refusal {
    fn from(refusal: Refusal) -> Self {
        let (asked, why) = match refusal {
            Refusal::Compacted { asked, oldest } => (asked, Why::Compacted(oldest)),
            Refusal::FutureRevision { asked, current } => (asked, Why::FutureRevision(current)),
            Refusal::KeyNotFound => (0, Why::KeyNotFound(Done {})),
            Refusal::LeaseNotFound => (0, Why::LeaseNotFound(Done {})),
            Refusal::LeaseExists => (0, Why::LeaseExists(Done {})),
            Refusal::Senseless(why) => (0, Why::Senseless(why.into_owned())),
        };
        Self { asked, why: Some(why) }
    }
}

fn decode_refusal(refusal: pb::Refusal) -> Option<Refusal> {
    let asked = refusal.asked;
    Some(match refusal.why? {
        Why::Compacted(oldest) => Refusal::Compacted { asked, oldest },
        Why::FutureRevision(current) => Refusal::FutureRevision { asked, current },
        Why::KeyNotFound(Done {}) => Refusal::KeyNotFound,
        Why::LeaseNotFound(Done {}) => Refusal::LeaseNotFound,
        Why::LeaseExists(Done {}) => Refusal::LeaseExists,
        Why::Senseless(why) => Refusal::Senseless(why.into()),
    })
}

impl From<KeyValue> for pb::KeyValue {
    fn from(kv: KeyValue) -> Self {
        let KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
        Self { key, value, create_revision, mod_revision, version, lease }
    }
}

impl From<pb::KeyValue> for KeyValue {
    fn from(kv: pb::KeyValue) -> Self {
        let pb::KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
        Self { key, value, create_revision, mod_revision, version, lease }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies() -> Vec<Reply> {
        let kv = KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: -4,
        };
        let range = RangeResult { kvs: vec![kv.clone()], count: 7, more: true, revision: 9 };
        let refused = |why| Reply::Refused { why };
        vec![
            Reply::Put { revision: 4, create_revision: 2, version: 3, previous: Some(kv.clone()) },
            Reply::Deleted { revision: 4, deleted: 1, previous: vec![kv] },
            Reply::Range(range),
            Reply::Compacted { revision: 5 },
            Reply::Lease { revision: 5, ttl_s: 60 },
            Reply::LeasesEnded { revision: 6 },
            Reply::Ticked { revision: 6 },
            Reply::Marked { revision: 6 },
            Reply::PreconditionFailed { current: None, revision: 6 },
            Reply::PreconditionFailed { current: Some(5), revision: 6 },
            refused(Refusal::Compacted { asked: 1, oldest: 2 }),
            refused(Refusal::FutureRevision { asked: 9, current: 2 }),
            refused(Refusal::KeyNotFound),
            refused(Refusal::LeaseNotFound),
            refused(Refusal::LeaseExists),
            refused(Refusal::Senseless("why".into())),
        ]
    }

    #[test]
    fn every_reply_survives_the_way() {
        let all = Reply::Txn { revision: 7, succeeded: true, replies: replies() };
        for reply in replies().into_iter().chain([all]) {
            assert_eq!(decode_reply(pb::Reply::from(reply.clone())), Some(reply));
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(decode_reply(pb::Reply::default()), None);
        let refused = pb::Reply { revision: 0, result: Some(Kind::Refused(pb::Refusal::default())) };
        assert_eq!(decode_reply(refused), None);
    }
}
