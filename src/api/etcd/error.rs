//! Errors as etcd's clients know them: they tell them apart by code and text.

use tonic::{Code, Status};

use crate::error::Error;
use crate::storage::mvcc::{ReadError, Refusal};

/// Why a call is refused. The texts are etcd's, word for word.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The text has more to say than etcd has: why, and what to do.
    #[error("{0}")]
    Other(#[from] Error),
}

impl Refused {
    fn code(&self) -> Code {
        match self {
            Refused::EmptyKey
            | Refused::KeyNotFound
            | Refused::ValueProvided
            | Refused::LeaseProvided
            | Refused::TooManyOps
            | Refused::DuplicateKey
            | Refused::RequestTooLarge => Code::InvalidArgument,
            Refused::Compacted | Refused::FutureRevision | Refused::LeaseTtlTooLarge => Code::OutOfRange,
            Refused::LeaseNotFound => Code::NotFound,
            Refused::LeaseExists => Code::FailedPrecondition,
            Refused::NoLeader => Code::Unavailable,
            Refused::Other(error) => known(error).0,
        }
    }
}

/// A node's error as etcd would tell it. Nothing was changed, except after `Unknown`.
fn known(error: &Error) -> (Code, &'static str) {
    match error {
        Error::NotLeader { .. } => (Code::Unavailable, "etcdserver: leader changed"),
        Error::NoQuorum { .. } => (Code::Unavailable, "etcdserver: no leader"),
        Error::DiskFull => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Error::Overloaded { .. } => (Code::ResourceExhausted, "etcdserver: too many requests"),
        Error::NotReady { .. } => (Code::Unavailable, "etcdserver: server stopped"),
        Error::StateDiffers { .. } => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Error::Unknown { .. } | Error::ReadTimeout { .. } => {
            (Code::Unavailable, "etcdserver: request timed out")
        }
        Error::Compacted { .. } => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        Error::FutureRevision { .. } => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        Error::Invalid(_) => (Code::InvalidArgument, ""),
        Error::Failed { .. } => (Code::Unavailable, "etcdserver: server stopped"),
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let code = refused.code();
        match &refused {
            Refused::Other(error) => match known(error).1 {
                "" => Status::new(code, error.to_string()),
                text => Status::new(code, text),
            },
            _ => Status::new(code, refused.to_string()),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Compacted { .. } => Refused::Compacted,
            Refusal::FutureRevision { .. } => Refused::FutureRevision,
            Refusal::KeyNotFound => Refused::KeyNotFound,
            Refusal::LeaseNotFound => Refused::LeaseNotFound,
            Refusal::LeaseExists => Refused::LeaseExists,
            Refusal::Senseless(why) => Refused::Other(Error::Invalid(why.into_owned())),
        }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { .. } => Refused::Compacted,
            ReadError::Future { .. } => Refused::FutureRevision,
            ReadError::Failed(why) => Refused::Other(Error::Failed { why }),
        }
    }
}

/// A reply that does not fit its command: a fault of ours.
pub fn mixed_up() -> Refused {
    Refused::Other(Error::Unknown { why: "a write was answered with another write's reply".to_owned() })
}

/// As the metrics count it, in HTTP's words.
pub fn status_class(status: &Status) -> &'static str {
    match status.code() {
        Code::Unavailable | Code::Internal | Code::DataLoss | Code::Unknown | Code::DeadlineExceeded => "5xx",
        _ => "4xx",
    }
}
