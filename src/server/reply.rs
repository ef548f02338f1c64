//! A reply's body.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};

use super::activity::Guard;

/// What an application answers with.
pub enum ReplyBody {
    /// One message and the trailers behind it: a unary call's, without a place on the heap.
    Message { message: Option<Bytes>, trailers: Option<HeaderMap> },
    /// Any other.
    Body(Body),
}

impl ReplyBody {
    pub fn message(message: Bytes, trailers: HeaderMap) -> Self {
        Self::Message { message: Some(message), trailers: Some(trailers) }
    }
}

impl From<Body> for ReplyBody {
    fn from(body: Body) -> Self {
        Self::Body(body)
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Message { message, trailers } => {
                let message = message.take().map(Frame::data);
                Poll::Ready(message.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Self::Body(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message { message, trailers } => message.is_none() && trailers.is_none(),
            Self::Body(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Message { .. } => SizeHint::default(),
            Self::Body(body) => body.size_hint(),
        }
    }
}

/// A reply's body; the request counts as under way until it is dropped.
pub struct Tracked {
    body: ReplyBody,
    guard: Guard,
}

impl Tracked {
    pub fn new(body: ReplyBody, guard: Guard) -> Self {
        Self { body, guard }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Asked for only when the client has room for more.
        self.guard.asked_for_more();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = frame {
            self.guard.sent();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
