//! What can go wrong, named for what the caller does next.

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An endpoint is not a URL this client can use. Mend the configuration.
    #[error("{text:?} is no endpoint: {why}")]
    BadEndpoint { text: String, why: String },
    /// Mend the request: repeating it as it is gets the same answer.
    #[error("{message}")]
    Invalid { message: String, hint: Option<String> },
    /// The key changed (or exists) since it was read. Read it again, then decide.
    #[error("{message}")]
    PreconditionFailed { message: String },
    /// Who you are was not accepted, or may not do this.
    #[error("{message}")]
    Unauthenticated { message: String },
    /// No node accepts connections. Nothing was changed.
    #[error("no node can be reached: {why}")]
    Unreachable { why: String },
    /// Nodes answer, but none leads within the time allowed. Nothing was changed.
    #[error("no leader: {why}")]
    NoLeader { why: String },
    /// Every node asked was too busy or not ready within the time allowed. Nothing was
    /// changed; ask again later.
    #[error("refused: {message}")]
    Refused { message: String, hint: Option<String> },
    /// The write may or may not have taken effect. Read before you repeat it.
    #[error("outcome unknown: {why}")]
    Unknown { why: String },
    /// A read that could not be answered in time; reads change nothing.
    #[error("timed out: {why}")]
    Timeout { why: String },
    /// The node answered with something else. Nothing can be said about the outcome
    /// beyond the message.
    #[error("the node answered {status}: {message}")]
    Server { status: u16, message: String },
}

impl Error {
    /// What the server suggests, when it did.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Invalid { hint, .. } | Error::Refused { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
