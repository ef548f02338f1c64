//! A small HTTP/1.1 client over the simulated network: one connection a request, so that
//! "the request never left" and "no answer came" are told apart exactly.

use std::time::Duration;

use bellwether::env::Net;
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::world::SimNet;

/// Longer than any round trip of the simulated network.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// Why there is no reply.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nobody listened: the node cannot have seen it.
    NotSent(String),
    /// It was sent, or partly; what became of it nobody knows.
    NoAnswer(String),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub target: String,
    pub header: Option<(&'static str, String)>,
    pub body: String,
}

impl Request {
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), header: None, body: String::new() }
    }

    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// Sends it to `authority` and waits at most `timeout` for the whole answer.
    pub async fn send(self, authority: &str, timeout: Duration) -> Result<Reply, Failure> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, SimNet.connect(authority)).await;
        let stream = match connecting {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::NotSent(error.kind().to_string())),
            Err(_) => return Err(Failure::NotSent("connecting took too long".to_owned())),
        };
        match tokio::time::timeout(timeout, self.exchange(stream)).await {
            Ok(reply) => reply.map_err(|error| Failure::NoAnswer(error.to_string())),
            Err(_) => Err(Failure::NoAnswer("no answer in time".to_owned())),
        }
    }

    async fn exchange(self, stream: bellwether::env::net::BoxStream) -> Result<Reply, hyper::Error> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = http::Request::builder().method(self.method).uri(self.target).header("host", "sim");
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body))).expect("valid by construction");
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `Null` when the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Where the store of the node that answered was by then.
    pub fn store_revision(&self) -> Option<u64> {
        self.headers.get("x-bellwether-revision")?.to_str().ok()?.parse().ok()
    }

    /// The modification revision that the entity tag says.
    pub fn etag(&self) -> Option<u64> {
        self.headers.get("etag")?.to_str().ok()?.trim_matches('"').parse().ok()
    }
}
