//! A small HTTP/1.1 client: one connection a request, so that "the request never left"
//! and "no answer came" are told apart exactly.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Above the server's own default deadline (5 s), so that its answer is heard.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody listened: the server cannot have seen it.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent, or partly; what became of it nobody knows.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    timeout: Duration,
}

impl Request {
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: vec![], body: Bytes::new(), timeout: TIMEOUT }
    }

    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    pub fn put(target: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let request = Self { body: body.into(), ..Self::new(Method::PUT, target) };
        request.header("content-type", "application/json")
    }

    pub fn post(target: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, target).body(body)
    }

    pub fn delete(target: impl Into<String>) -> Self {
        Self::new(Method::DELETE, target)
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header, in place of one of that name.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub async fn send(self, port: u16) -> Result<Reply, Failure> {
        let timeout = self.timeout;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(Failure::NotSent(e.to_string())),
            Err(_) => return Err(Failure::NotSent("connecting took too long".into())),
        };
        match tokio::time::timeout(timeout, self.exchange(stream)).await {
            Ok(reply) => reply.map_err(|e| Failure::NoAnswer(e.to_string())),
            Err(_) => Err(Failure::NoAnswer(format!("no answer within {timeout:?}"))),
        }
    }

    async fn exchange(self, stream: TcpStream) -> Result<Reply, hyper::Error> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let reply = reply_to(sender.send_request(self.into_http())).await?;
        driver.abort();
        Ok(reply)
    }

    fn into_http(self) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::builder().method(self.method).uri(self.target);
        request = request.header("host", "127.0.0.1");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body)).expect("a test writes valid requests")
    }
}

async fn reply_to(
    sending: impl Future<Output = Result<http::Response<hyper::body::Incoming>, hyper::Error>>,
) -> Result<Reply, hyper::Error> {
    let (head, body) = sending.await?.into_parts();
    Ok(Reply { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
}

/// A connection that is kept for one request after the other.
pub struct Session {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

impl Session {
    pub async fn open(port: u16) -> Result<Self, Failure> {
        let not_sent = |error: &dyn std::fmt::Display| Failure::NotSent(error.to_string());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect(address).await.map_err(|error| not_sent(&error))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| not_sent(&error))?;
        Ok(Self { sender, driver: tokio::spawn(connection) })
    }

    /// After an error the session is of no use any more.
    pub async fn send(&mut self, request: Request) -> Result<Reply, Failure> {
        let timeout = request.timeout;
        let answering = async {
            self.sender.ready().await?;
            reply_to(self.sender.send_request(request.into_http())).await
        };
        match tokio::time::timeout(timeout, answering).await {
            Ok(reply) => reply.map_err(|error| Failure::NoAnswer(error.to_string())),
            Err(_) => Err(Failure::NoAnswer(format!("no answer within {timeout:?}"))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The modification revision that the entity tag says.
    pub fn etag(&self) -> Option<u64> {
        self.header("etag")?.trim_matches('"').parse().ok()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// Every field of `expected` is there as it says; others may be there too.
    #[track_caller]
    pub fn expect_json(self, status: u16, expected: Value) -> Self {
        let reply = self.expect(status);
        let found = reply.json();
        for (name, value) in expected.as_object().expect("fields to look for") {
            assert_eq!(&found[name], value, "field {name} of {found}");
        }
        reply
    }
}
