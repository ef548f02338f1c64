//! Calls that last as long as the client wants: streams, and waits for a lock.
//!
//! They are counted apart from requests, for most of them only wait, and they would use up
//! the limit of those that work. A client that asks for a member with a leader is told when
//! this one has lost it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Answer, Api, Refused, Result, requires_leader};
use crate::error::Error;
use crate::node::Node;

/// On one member at one time; each costs some kilobytes while it waits.
const MAX_LONG_CALLS: usize = 16 * 1024;
/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A stream of replies as the generated services want it.
pub type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct LongCalls(Arc<Semaphore>);

impl Default for LongCalls {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LONG_CALLS)))
    }
}

impl LongCalls {
    fn enter(&self) -> Result<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            let why = format!("{MAX_LONG_CALLS} clients are waiting or listening");
            Refused::Other(Error::Overloaded { why, retry_after: RETRY_AFTER })
        })
    }
}

/// Whoever waits for a call's result, as the call sees it.
pub struct Caller<T>(oneshot::Sender<Result<T>>);

impl<T> Caller<T> {
    /// Returns when the caller has given up.
    pub async fn gone(&mut self) {
        self.0.closed().await;
    }

    /// False when the caller has given up and will never know.
    pub fn answer(self, result: Result<T>) -> bool {
        self.0.send(result).is_ok()
    }
}

impl Api {
    /// A call with one reply that may take as long as the client waits. `work` runs to its
    /// end even if the client goes: it may have something to tidy up.
    pub async fn waiting<Q, T: Send + 'static, F>(
        &self,
        name: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Q, Caller<T>) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let began = Instant::now();
        let answer = self.wait(request, work).await.map(Response::new).map_err(Status::from);
        self.count(name, began, &answer);
        answer
    }

    async fn wait<Q, T: Send + 'static, F>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(Q, Caller<T>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _permit = self.long_calls.enter()?;
        drop(self.enter(request.metadata().as_ref())?);
        let (sender, answer) = oneshot::channel();
        tokio::spawn(work(request.into_inner(), Caller(sender)));
        let stopping = |_| Refused::Other(Error::stopping());
        answer.await.map_err(stopping)?
    }

    /// A stream of replies; it ends when the client wants a member with a leader, and this
    /// one has lost it.
    pub fn stream<Q, T, S>(&self, request: Request<Q>, replies: impl FnOnce(Q) -> S) -> Answer<Replies<T>>
    where
        T: Send + 'static,
        S: Stream<Item = Result<T, Status>> + Send + 'static,
    {
        let permit = self.long_calls.enter().map_err(Refused::in_stream)?;
        drop(self.enter(request.metadata().as_ref()).map_err(Refused::in_stream)?);
        let (node, asked) = (self.node.clone(), requires_leader(request.metadata().as_ref()));
        let replies = replies(request.into_inner());
        Ok(Response::new(Box::pin(async_stream::stream! {
            let _permit = permit;
            let mut leaderless = std::pin::pin!(leaderless(node, asked));
            let mut replies = std::pin::pin!(replies);
            loop {
                tokio::select! { biased;
                    reply = replies.next() => match reply {
                        Some(reply) => yield reply,
                        None => return,
                    },
                    () = leaderless.as_mut() => {
                        yield Err(Refused::NoLeader.into());
                        return;
                    }
                }
            }
        })))
    }
}

/// Returns when this node has known no leader for some time; never, unless `asked`.
pub async fn leaderless(node: Node, asked: bool) {
    match asked {
        true => node.leaderless().await,
        false => std::future::pending().await,
    }
}
