//! The calls that are made all the time, by the shortest way: no router, no streams, and
//! none of the buffers that tonic keeps for calls of any length.
//!
//! A unary call is one message each way, behind a flag and a length of together five bytes
//! (gRPC over HTTP/2, "Length-Prefixed-Message"). Whatever does not look like that, compressed,
//! too large or broken, goes the long way through tonic's service, which knows all of gRPC
//! and refuses what it must.

use axum::BoxError;
use axum::body::{Body, Bytes};
use bytes::{BufMut, BytesMut};
use futures::{StreamExt, stream};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;
use prost::Message;
use tonic::Status;
use tower::ServiceExt;

use super::{Api, MAX_MESSAGE_BYTES, Result};
use crate::server::{ReplyBody, RequestBody};

/// Of a message's flag and length.
const PREFIX_BYTES: usize = 5;
/// A message up to here is copied: a part of what the connection read would keep all of it
/// from being used for the next read.
const COPIED_BYTES: usize = 4096;
/// The only flag that is read here.
const NOT_COMPRESSED: u8 = 0;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

#[derive(Clone, Copy)]
enum Call {
    Range,
    Put,
    DeleteRange,
    Txn,
}

impl Call {
    fn find(path: &str) -> Option<Self> {
        match path.strip_prefix("/etcdserverpb.KV/")? {
            "Range" => Some(Self::Range),
            "Put" => Some(Self::Put),
            "DeleteRange" => Some(Self::DeleteRange),
            "Txn" => Some(Self::Txn),
            _ => None,
        }
    }
}

/// The door to KV that leads past the router.
#[derive(Clone)]
pub struct Direct {
    api: Api,
    /// The services of tonic's.
    long_way: axum::Router,
}

impl Direct {
    pub(super) fn new(api: Api, long_way: axum::Router) -> Self {
        Self { api, long_way }
    }

    /// Whether [`Direct::dispatch`] should get it.
    pub fn takes<B>(request: &Request<B>) -> bool {
        Call::find(request.uri().path()).is_some()
    }

    pub async fn dispatch<B: RequestBody>(self, request: Request<B>) -> Response<ReplyBody> {
        let (parts, mut body) = request.into_parts();
        let Ok(read) = read(&mut body).await else {
            return refused(Status::cancelled("the message broke off"));
        };
        let (Some(call), Some(message)) = (Call::find(parts.uri.path()), plain_message(&read)) else {
            return self.long_way(parts, read, body).await;
        };
        let (api, headers) = (&self.api, parts.headers);
        match call {
            Call::Range => unary(api, "KV/Range", headers, message, |it| api.range(it)).await,
            Call::Put => unary(api, "KV/Put", headers, message, |it| api.put(it)).await,
            Call::DeleteRange => {
                unary(api, "KV/DeleteRange", headers, message, |it| api.delete_range(it)).await
            }
            Call::Txn => unary(api, "KV/Txn", headers, message, |it| api.txn(it)).await,
        }
    }

    /// As the router would have had it: what was read, and the rest behind it.
    async fn long_way<B: RequestBody>(self, parts: Parts, read: Bytes, rest: B) -> Response<ReplyBody> {
        let read = stream::once(std::future::ready(Ok(Frame::data(read))));
        let rest = BodyStream::new(rest).map(|frame| frame.map_err(Into::<BoxError>::into));
        let body = Body::new(StreamBody::new(read.chain(rest)));
        let Ok(response) = self.long_way.oneshot(Request::from_parts(parts, body)).await;
        response.map(ReplyBody::from)
    }
}

/// The body to its end, or a little more than may be read of it.
async fn read<B: RequestBody>(body: &mut B) -> Result<Bytes, B::Error> {
    let (mut whole, mut parts) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.is_empty() && parts.is_empty() {
            // Most messages arrive at once.
            whole = if data.len() <= COPIED_BYTES { Bytes::copy_from_slice(&data) } else { data };
            continue;
        }
        parts.extend_from_slice(&std::mem::take(&mut whole));
        parts.extend_from_slice(&data);
        if parts.len() > MAX_MESSAGE_BYTES {
            break;
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}

/// The message, when the body is one and can be read as it is.
fn plain_message(body: &Bytes) -> Option<Bytes> {
    let (prefix, message) = body.split_first_chunk::<PREFIX_BYTES>()?;
    let [NOT_COMPRESSED, length @ ..] = *prefix else { return None };
    let whole = u32::from_be_bytes(length) as usize == message.len();
    (whole && message.len() <= MAX_MESSAGE_BYTES).then(|| body.slice(PREFIX_BYTES..))
}

/// From the message to the reply; `headers` are the request's.
async fn unary<Q: Message + Default, T: Message, F: Future<Output = Result<T>>>(
    api: &Api,
    name: &'static str,
    headers: HeaderMap,
    message: Bytes,
    work: impl FnOnce(Q) -> F,
) -> Response<ReplyBody> {
    let answer = match Q::decode(message) {
        Ok(message) => api.answer(name, &headers, message, work).await,
        Err(error) => Err(Status::internal(error.to_string())),
    };
    let reply = answer.and_then(|reply| framed(&reply));
    reply.map_or_else(refused, |reply| succeeded(headers, reply))
}

fn framed(reply: &impl Message) -> Result<Bytes, Status> {
    let length = reply.encoded_len();
    let Ok(prefix) = u32::try_from(length) else {
        return Err(Status::resource_exhausted("the reply is larger than gRPC's four gigabytes"));
    };
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(NOT_COMPRESSED);
    frame.put_u32(prefix);
    reply.encode(&mut frame).map_err(|error| Status::internal(error.to_string()))?;
    Ok(frame.freeze())
}

fn refused(status: Status) -> Response<ReplyBody> {
    status.into_http::<Body>().map(ReplyBody::from)
}

/// `used`: a map that is not needed any more; its memory serves the reply's head.
fn succeeded(used: HeaderMap, reply: Bytes) -> Response<ReplyBody> {
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, OK)]);
    let mut response = Response::new(ReplyBody::message(reply, trailers));
    let mut head = used;
    head.clear();
    head.insert(header::CONTENT_TYPE, GRPC);
    *response.headers_mut() = head;
    response
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
