//! How many bytes clients may make a node hold: of bodies that are still coming, and of
//! replies that nobody reads.
//!
//! Small ones are not counted: the limits of connections and of requests at once bound
//! them, and a client that hoards must not keep the small requests of others out. What is
//! held beyond [`SMALL_BYTES`] has one budget over all connections, each byte from when it
//! arrives, or is built, until it is forgotten, or sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use super::error::ApiError;
use super::reply;
use crate::error::Error;

/// Of all bodies that are being received: 85 of the largest at once, which clients of a
/// gigabit link send in a second.
pub const MAX_BODY_BYTES_HELD: usize = 128 * 1024 * 1024;
/// Of all replies that clients have not read yet: 32 of the longest pages.
pub const MAX_REPLY_BYTES_HELD: usize = 256 * 1024 * 1024;
/// What is not larger is free: 4,096 requests at once with so much each are 64 MiB.
pub const SMALL_BYTES: usize = 16 * 1024;
/// Held bytes are sent, or their connections cut off, within seconds to two minutes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A number of bytes that may be held at once.
#[derive(Clone)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    max: usize,
}

/// Bytes of a budget, given back when dropped.
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    pub fn nothing(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Takes what it lacks to hold `bytes`, of which the first are free.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(SMALL_BYTES).saturating_sub(self.bytes);
        let held = self.take(more);
        if more == 0 || held <= self.budget.max {
            return Ok(());
        }
        let why = format!("clients already make this node hold {} bytes", self.budget.max);
        Err(ApiError::from(Error::Overloaded { why, retry_after: RETRY_AFTER }))
    }

    /// Holds `more`, allowed or not; returns what all shares hold.
    fn take(&mut self, more: usize) -> usize {
        self.bytes += more;
        self.budget.held.fetch_add(more, Ordering::Relaxed) + more
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Counts a reply until its last byte is sent. A read's is refused when it is too much; a
/// write's is not, for the write was done: the budget of bodies bounds those.
pub fn hold(budget: &Budget, response: Response<Body>, may_refuse: bool) -> Result<Response<Body>, ApiError> {
    let bytes = reply::length(&response);
    if bytes <= SMALL_BYTES {
        return Ok(response);
    }
    let mut share = budget.nothing();
    let granted = share.grow_to(bytes);
    if may_refuse {
        granted?;
    }
    let share = Arc::new(share);
    Ok(response.map(|body| Body::new(Held { body, share })))
}

/// A body whose bytes, also those that hyper or h2 has taken and not yet sent, keep the share.
struct Held {
    body: Body,
    share: Arc<Share>,
}

/// Bytes on their way out.
struct Leaving {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let share = self.share.clone();
        let held = |bytes| Bytes::from_owner(Leaving { bytes, _share: share });
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| Some(frame?.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn reply(bytes: usize) -> Response<Body> {
        Response::new(Body::from(vec![b'v'; bytes]))
    }

    #[tokio::test]
    async fn a_reply_counts_until_its_last_byte_is_gone() {
        let budget = Budget::new(100_000);
        let held = hold(&budget, reply(SMALL_BYTES + 70_000), true).expect("fits");
        assert_eq!(budget.held(), 70_000);
        assert!(hold(&budget, reply(SMALL_BYTES + 70_000), true).is_err());
        assert!(hold(&budget, reply(SMALL_BYTES), true).is_ok(), "small ones are free");
        assert_eq!(budget.held(), 70_000, "what was refused gave its bytes back");
        let sent = held.into_body().frame().await.expect("a frame").expect("read").into_data().expect("data");
        // The body is gone; its bytes are still on their way.
        assert_eq!(budget.held(), 70_000);
        drop(sent);
        assert_eq!(budget.held(), 0);
        let written = hold(&budget, reply(SMALL_BYTES + 200_000), false).expect("a write's reply passes");
        assert_eq!(budget.held(), 200_000);
        drop(written);
    }

    #[test]
    fn a_share_grows_with_what_arrives() {
        let budget = Budget::new(1000);
        let mut share = budget.nothing();
        share.grow_to(SMALL_BYTES).expect("free");
        assert_eq!(budget.held(), 0);
        share.grow_to(SMALL_BYTES + 400).expect("fits");
        share.grow_to(SMALL_BYTES + 900).expect("fits");
        assert_eq!(budget.held(), 900);
        let mut other = budget.nothing();
        assert!(other.grow_to(SMALL_BYTES + 101).is_err());
        drop((share, other));
        assert_eq!(budget.held(), 0);
    }
}
