//! Connections to one node: of one client's own (HTTP/1.1), or shared by many (HTTP/2).
//!
//! A client's own connection is polled by the task that waits for the reply, not by one of
//! its own: a request then costs no wake-up between tasks, and the generator takes less of
//! the cores it shares with the servers. A shared one needs a task that serves all.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::target::together::Together;
use crate::target::{Address, Driver};

/// What a shared connection may have under way in either direction: enough for 256 clients
/// with small values, so that nobody waits for room.
const WINDOW_BYTES: u32 = 4 << 20;

impl Address {
    /// A request to this node, as HTTP/1.1 writes it.
    pub fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(PathAndQuery::try_from(path).context("a path")?);
        request.headers_mut().insert(HOST, self.header.clone());
        Ok(request)
    }
}

/// One client's connection, kept for one request after the other.
pub struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
}

impl Link {
    pub async fn open(address: &Address) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(address.connect().await?)).await?;
        Ok(Self { sender, connection })
    }

    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let Self { sender, connection } = self;
        let reply = async {
            sender.ready().await?;
            whole(sender.send_request(request).await?).await
        };
        let mut reply = pin!(reply);
        let mut connection = pin!(connection);
        poll_fn(|context| {
            // The reply's side hands the request over, the connection moves bytes, and the
            // reply's side takes what came: all in one wake-up.
            if let Poll::Ready(reply) = reply.as_mut().poll(context) {
                return Poll::Ready(reply);
            }
            if let Poll::Ready(Err(error)) = connection.as_mut().poll(context) {
                return Poll::Ready(Err(error));
            }
            reply.as_mut().poll(context)
        })
        .await
        .map_err(|error: hyper::Error| error.into())
    }
}

/// A client's part in a connection of many.
#[derive(Clone)]
pub struct SharedLink(http2::SendRequest<Full<Bytes>>);

impl SharedLink {
    /// Within the tasks of the clients that will share it.
    pub async fn open(address: &Address) -> Result<Self> {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(Together(address.connect().await?)));
        let (sender, connection) = handshake.await?;
        // It ends with the last client; an error is what the clients hear, too.
        Driver::Group.drive(connection);
        Ok(Self(sender))
    }

    /// `request` as [`Address::request`] makes it for `address`.
    pub async fn exchange(
        &mut self,
        address: &Address,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>> {
        request.headers_mut().remove(HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(address.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).context("a whole URL")?;
        self.0.ready().await?;
        Ok(whole(self.0.send_request(request).await?).await?)
    }
}

async fn whole(reply: Response<Incoming>) -> hyper::Result<Response<Bytes>> {
    let (head, body) = reply.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}
