//! gRPC over one HTTP/2 connection, in as few steps as it takes.
//!
//! A message is framed and handed to the connection, which one task drives for all its
//! users; the reply's bytes come back to whoever asked. There is no queue, no retry and no
//! balancing between: the generator shares its cores with the servers it measures. Through
//! tonic's channel the same requests took it 1.7 to 1.9 times the processor time (64 clients
//! on 3 connections, and on one each).

use std::future::poll_fn;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use prost::Message;

use crate::target::together::Together;
use crate::target::{Address, Driver};

/// What a connection may have under way to us: ranges of 1,000 values by many clients, so
/// that nobody waits for room.
const WINDOW_BYTES: u32 = 16 << 20;
/// A flag (compressed or not) and the length.
const HEAD_BYTES: usize = 5;

/// A part in one connection. It ends with its last user.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Bytes>,
    head: Request<()>,
    /// The method called last: most users have only one.
    path: &'static str,
}

impl Channel {
    pub async fn open(address: &Address, driver: Driver) -> Result<Self> {
        let stream = address.connect().await?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(Together(stream))
            .await
            .with_context(|| format!("speaking HTTP/2 with {}", address.authority))?;
        // An error of the connection is what its users hear, too.
        driver.drive(connection);
        Ok(Self { sender, head: head(address)?, path: "" })
    }

    /// Whether requests can still be sent.
    pub async fn lives(&mut self) -> bool {
        poll_fn(|context| self.sender.poll_ready(context)).await.is_ok()
    }

    /// One message there, one back.
    pub async fn call<Q: Message, R: Message + Default>(
        &mut self,
        path: &'static str,
        message: &Q,
    ) -> Result<R> {
        let (reply, mut body) = self.begin(path).await?;
        body.send_data(frame(message)?, true)?;
        let mut replies = Replies::new(reply.await?)?;
        let message = replies.next().await?.context("a reply without a message")?;
        // The call's outcome comes last.
        ensure!(replies.next::<R>().await?.is_none(), "two replies to one request");
        Ok(message)
    }

    /// A call with messages both ways, of which this is the first.
    pub async fn stream<Q: Message>(
        &mut self,
        path: &'static str,
        message: &Q,
    ) -> Result<(Requests, Replies)> {
        let (reply, body) = self.begin(path).await?;
        let mut requests = Requests(body);
        requests.send(message)?;
        Ok((requests, Replies::new(reply.await?)?))
    }

    async fn begin(&mut self, path: &'static str) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        if self.path != path {
            let mut parts = std::mem::take(self.head.uri_mut()).into_parts();
            parts.path_and_query = Some(PathAndQuery::from_static(path));
            *self.head.uri_mut() = Uri::from_parts(parts).context("a whole URL")?;
            self.path = path;
        }
        Ok(self.sender.send_request(self.head.clone(), false)?)
    }
}

/// Of every request to this node; the method's path comes with it.
fn head(address: &Address) -> Result<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(address.authority.clone())
        .path_and_query(PathAndQuery::from_static("/"))
        .build()
        .context("a whole URL")?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

fn frame<M: Message>(message: &M) -> Result<Bytes> {
    let bytes = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + bytes);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(bytes).context("a message of 4 GiB")?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}

/// The side of a stream that we write. The stream may end when this is dropped.
pub struct Requests(SendStream<Bytes>);

impl Requests {
    pub fn send<Q: Message>(&mut self, message: &Q) -> Result<()> {
        Ok(self.0.send_data(frame(message)?, false)?)
    }
}

/// The side that we read, one call's or a stream's.
pub struct Replies {
    body: RecvStream,
    /// What came last: most messages come at once, and are used where they lie.
    fresh: Bytes,
    /// What came before and is not a whole message yet.
    came: BytesMut,
}

impl Replies {
    fn new(reply: Response<RecvStream>) -> Result<Self> {
        let (head, body) = reply.into_parts();
        ensure!(head.status == StatusCode::OK, "HTTP status {}", head.status);
        // A call that failed at once says so in its head.
        check(&head.headers)?;
        Ok(Self { body, fresh: Bytes::new(), came: BytesMut::new() })
    }

    /// The next message; none when the call ended well.
    pub async fn next<R: Message + Default>(&mut self) -> Result<Option<R>> {
        loop {
            if self.came.is_empty()
                && let Some(message) = whole(&mut self.fresh)?
            {
                return Ok(Some(R::decode(message)?));
            }
            self.came.extend_from_slice(&std::mem::take(&mut self.fresh));
            if let Some(message) = whole(&mut self.came)? {
                return Ok(Some(R::decode(message)?));
            }
            let Some(bytes) = self.body.data().await else { break };
            self.fresh = bytes?;
            self.body.flow_control().release_capacity(self.fresh.len())?;
        }
        ensure!(self.came.is_empty(), "the reply ends inside a message");
        let trailers = self.body.trailers().await?.context("the reply ends without a status")?;
        check(&trailers)?;
        Ok(None)
    }
}

/// Takes the first message if all of it came.
fn whole(came: &mut impl Buf) -> Result<Option<Bytes>> {
    let Some(mut head) = came.chunk().get(..HEAD_BYTES) else { return Ok(None) };
    ensure!(head.get_u8() == 0, "a compressed message, which nobody asked for");
    let bytes = head.get_u32() as usize;
    if came.remaining() < HEAD_BYTES + bytes {
        return Ok(None);
    }
    came.advance(HEAD_BYTES);
    Ok(Some(came.copy_to_bytes(bytes)))
}

fn check(headers: &HeaderMap) -> Result<()> {
    if headers.get("grpc-status").is_none_or(|status| status == "0") {
        return Ok(());
    }
    match tonic::Status::from_header_map(headers) {
        Some(status) => Err(anyhow!("{:?}: {}", status.code(), status.message())),
        None => bail!("a gRPC status that can't be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::etcd::proto::{KeyValue, RangeResponse};

    #[test]
    fn messages_come_in_any_pieces() {
        let message = RangeResponse { kvs: vec![Bytes::from_static(b"row"); 3] };
        let framed = frame(&message).expect("small");
        let two = [&framed[..], &framed[..]].concat();
        let (mut came, mut found) = (BytesMut::new(), 0);
        for byte in two {
            came.put_u8(byte);
            if let Some(bytes) = whole(&mut came).expect("well framed") {
                assert_eq!(RangeResponse::decode(bytes).expect("the same"), message);
                found += 1;
            }
        }
        assert_eq!((found, came.len()), (2, 0));
    }

    #[test]
    fn an_empty_message_is_one() {
        let mut came = BytesMut::from(&frame(&KeyValue::default()).expect("small")[..]);
        assert_eq!(whole(&mut came).expect("well framed"), Some(Bytes::new()));
    }

    #[test]
    fn a_status_other_than_0_is_an_error_with_its_message() {
        let mut headers = HeaderMap::new();
        check(&headers).expect("no status is no error");
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        headers.insert("grpc-message", HeaderValue::from_static("no%20leader"));
        let error = check(&headers).expect_err("an error").to_string();
        assert_eq!(error, "Unavailable: no leader");
    }
}
