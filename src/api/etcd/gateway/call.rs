//! One call: gRPC frames around encoded messages, within this process.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tonic::{Code, Status};
use tower::ServiceExt;

use super::json::Method;
use super::reply;

/// Before each message: a flag (compressed or not) and the length.
const FRAME_HEADER_BYTES: usize = 5;

/// Why a call failed, as the gateway tells it.
#[derive(Debug, Serialize)]
pub struct Failure {
    error: String,
    code: i32,
    message: String,
    #[serde(skip)]
    status: StatusCode,
}

impl Failure {
    fn new(status: &Status) -> Self {
        let message = status.message().to_owned();
        let code = status.code();
        Self { error: message.clone(), code: code.into(), message, status: http_status(code) }
    }

    pub fn too_large() -> Self {
        Self::new(&Status::invalid_argument("etcdserver: request is too large"))
    }

    /// In a stream, an error is a line of its own.
    pub fn into_response(self, in_stream: bool) -> Response<Body> {
        reply(self.status, Body::from(self.to_json(in_stream)))
    }

    fn to_json(&self, in_stream: bool) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        if in_stream { format!("{{\"error\":{json}}}\n") } else { json }
    }
}

/// gRPC's codes in HTTP's words, as grpc-gateway maps them.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub async fn call(
    services: axum::Router,
    method: Arc<Method>,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    let messages = method.encode(body);
    let messages = messages.map_err(|error| Failure::new(&Status::invalid_argument(error.to_string())))?;
    let Ok(answer) = services.oneshot(grpc_request(&method, messages)).await;
    if let Some(status) = Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(Failure::new(&status));
    }
    if answer.status() != StatusCode::OK {
        return Err(Failure::new(&Status::unimplemented("this server does not serve that yet")));
    }
    let mut answers = Box::pin(messages_of(answer.into_body()));
    if method.answers_with_a_stream() {
        let lines = answers.map(move |message| {
            let line = match message.map(|message| method.decode(&message)) {
                Ok(Some(json)) => format!("{{\"result\":{json}}}\n"),
                Ok(None) => Failure::new(&Status::internal("an answer of no known shape")).to_json(true),
                Err(status) => Failure::new(&status).to_json(true),
            };
            Ok::<_, Infallible>(line)
        });
        return Ok(reply(StatusCode::OK, Body::from_stream(lines)));
    }
    let message = match answers.next().await {
        Some(message) => message.map_err(|status| Failure::new(&status))?,
        None => return Err(Failure::new(&Status::internal("an answer without a message"))),
    };
    let json = method.decode(&message).unwrap_or_default();
    Ok(reply(StatusCode::OK, Body::from(json)))
}

fn grpc_request(method: &Method, messages: Vec<Bytes>) -> Request<Body> {
    let frames =
        futures::stream::iter(messages.into_iter().map(|message| Ok::<_, Infallible>(frame(&message))));
    let body = match method.asks_for_ever() {
        true => Body::new(StreamBody::new(frames.chain(futures::stream::pending()))),
        false => Body::new(StreamBody::new(frames)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = method.path().parse().unwrap_or_default();
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

fn frame(message: &[u8]) -> Frame<Bytes> {
    let mut framed = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
    framed.put_u8(0);
    // A message is bounded by the body that it came in.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    Frame::data(framed.freeze())
}

/// The messages of an answer, then its error if it ends with one.
fn messages_of(body: Body) -> impl Stream<Item = Result<Bytes, Status>> {
    async_stream::try_stream! {
        let mut body = body;
        let mut buffer = BytesMut::new();
        while let Some(next) = body.frame().await {
            let next = next.map_err(|error| Status::unavailable(error.to_string()))?;
            if let Some(trailers) = next.trailers_ref() {
                match Status::from_header_map(trailers) {
                    Some(status) if status.code() != Code::Ok => Err(status)?,
                    _ => break,
                }
            }
            if let Ok(data) = next.into_data() {
                buffer.extend_from_slice(&data);
            }
            while let Some(message) = take_message(&mut buffer) {
                yield message;
            }
        }
    }
}

fn take_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..FRAME_HEADER_BYTES)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if buffer.len() < FRAME_HEADER_BYTES + length {
        return None;
    }
    buffer.advance(FRAME_HEADER_BYTES);
    Some(buffer.split_to(length).freeze())
}
