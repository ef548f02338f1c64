//! Raft's messages between nodes, over gRPC on the one port.
//!
//! `pool` keeps the connections, `client` is what openraft sends through (`snapshot` the one
//! long transfer, `ask` what every linearizable read asks, `loan` takes the engine's messages
//! back from a connection), `server` what it hears through, `faults` spoils both when asked to.
//! Every unary message and the first of every stream carries a header: cluster, sender,
//! addressee, and the sender's run; who receives it checks it (`node::peer_service`) before
//! anything reaches the engine.

pub mod ask;
pub mod client;
pub mod faults;
#[cfg(test)]
mod fuzz;
mod loan;
pub mod pool;
pub mod server;
mod snapshot;

use std::io;

use tonic::{Code, Status};

use self::pool::root_cause;

/// A message to a peer, or a snapshot's part, at most. Batches are cut at 1 MiB of
/// payload; one entry may carry a single value of the largest size and its overhead.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The metadata key that says why a peer refused, for programs.
const REFUSAL_KEY: &str = "bellwether-refusal";

/// Why a peer does not talk to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Another cluster, or the message was meant for a member that is no longer there.
    WrongAddress,
    /// Another run of this data directory is known: one of the two is a copy.
    CopiedDirectory,
    /// The peer has not started its part of the cluster yet, or is stopping.
    NotReady,
}

impl RefusalKind {
    fn as_str(self) -> &'static str {
        match self {
            RefusalKind::WrongAddress => "wrong-address",
            RefusalKind::CopiedDirectory => "copied-directory",
            RefusalKind::NotReady => "not-ready",
        }
    }
}

/// A refusal as a gRPC status.
pub fn refusal(kind: RefusalKind, why: impl Into<String>) -> Status {
    let mut status = Status::new(Code::FailedPrecondition, why);
    status.metadata_mut().insert(REFUSAL_KEY, tonic::metadata::MetadataValue::from_static(kind.as_str()));
    status
}

/// The refusal in a status, if it is one.
pub fn refusal_kind(status: &Status) -> Option<RefusalKind> {
    let text = status.metadata().get(REFUSAL_KEY)?.to_str().ok()?;
    let kinds = [RefusalKind::WrongAddress, RefusalKind::CopiedDirectory, RefusalKind::NotReady];
    kinds.into_iter().find(|kind| kind.as_str() == text)
}

/// The message certainly never left: there was no connection, and none could be had.
pub fn was_never_sent(status: &Status) -> bool {
    let cause = root_cause(status).downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::pool::Client;
    use super::*;
    use crate::proto::peer::ForwardRequest;

    #[tokio::test]
    async fn only_a_refused_connection_shows_that_nothing_was_sent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let endpoint = tonic::transport::Endpoint::from_shared(url).expect("a URL");
        let mut client = Client::new(endpoint.connect_lazy());
        let hang_up = async { drop(listener.accept().await.expect("a connection")) };
        let (sent, ()) = tokio::join!(client.forward(ForwardRequest::default()), hang_up);
        assert!(!was_never_sent(&sent.expect_err("no answer")));
        drop(listener);
        let refused = client.forward(ForwardRequest::default()).await.expect_err("nobody listens");
        assert!(was_never_sent(&refused), "{refused:?}");
    }
}
