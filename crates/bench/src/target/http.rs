//! Bellwether over HTTP/1.1: one kept-alive connection a client.
//!
//! The connection is polled by the task that waits for the reply, not by one of its own:
//! a request then costs no wake-up between tasks, and the generator takes less of the cores
//! it shares with the servers.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Freshness, Route, Session, Target, node_of};

/// The nodes of one Bellwether cluster.
#[derive(Clone)]
pub struct HttpTarget {
    nodes: Rc<[Address]>,
    body: Body,
}

/// How values are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Body {
    /// As JSON, checked and echoed by the server: the everyday way
    #[default]
    Json,
    /// As application/octet-stream: neither checked nor echoed
    Bytes,
}

/// Where one node is.
#[derive(Clone)]
pub struct Address {
    /// `host:port`
    authority: String,
    header: HeaderValue,
}

impl Address {
    /// A request to this node.
    pub fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(PathAndQuery::try_from(path).context("a path")?);
        request.headers_mut().insert(HOST, self.header.clone());
        Ok(request)
    }

    pub fn parse(url: &str) -> Result<Self> {
        let uri: Uri = url.trim().parse().with_context(|| format!("{url} is not a URL"))?;
        ensure!(uri.scheme_str() == Some("http"), "{url}: only http:// is spoken here");
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?.to_string();
        ensure!(uri.port_u16().is_some(), "{url} names no port");
        let header = HeaderValue::from_str(&authority).with_context(|| format!("{url} as a header"))?;
        Ok(Self { authority, header })
    }
}

impl HttpTarget {
    /// From `http://host:port`, one a node.
    pub fn new<S: AsRef<str>>(urls: &[S], body: Body) -> Result<Self> {
        ensure!(!urls.is_empty(), "no URLs");
        let nodes = urls.iter().map(|url| Address::parse(url.as_ref())).collect::<Result<_>>()?;
        Ok(Self { nodes, body })
    }

    async fn session(&self, node: usize, follows_leader: bool) -> Result<HttpSession> {
        let address = self.nodes.get(node).context("no such node")?.clone();
        let link = Link::open(&address).await?;
        Ok(HttpSession { target: self.clone(), address, link: Some(link), follows_leader })
    }

    /// Whether this node says that it leads.
    async fn leads(&self, node: usize) -> Result<bool> {
        let mut session = self.session(node, false).await?;
        let (status, body) = session.send(Method::GET, "/status?limit=1", Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "/status said {status}");
        let status: serde_json::Value = serde_json::from_slice(&body).context("/status is not JSON")?;
        Ok(status["role"] == "leader")
    }
}

impl Target for HttpTarget {
    type Session = HttpSession;

    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    async fn leader(&self) -> Result<usize> {
        for node in 0..self.nodes.len() {
            // One that is down doesn't lead; the others tell.
            if self.leads(node).await.unwrap_or(false) {
                return Ok(node);
            }
        }
        bail!("no node says that it leads")
    }

    async fn sessions(&self, route: Route, clients: usize) -> Result<Vec<HttpSession>> {
        let follows_leader = matches!(route, Route::Leader);
        let leader = if follows_leader { self.leader().await? } else { 0 };
        let mut sessions = Vec::with_capacity(clients);
        for client in 0..clients {
            let node = node_of(route, client, self.nodes.len(), leader);
            sessions.push(self.session(node, follows_leader).await?);
        }
        Ok(sessions)
    }
}

pub struct HttpSession {
    target: HttpTarget,
    address: Address,
    /// `None` after an error: what the connection would say next belongs to nobody.
    link: Option<Link>,
    follows_leader: bool,
}

impl HttpSession {
    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.address).await?,
        };
        let request = self.request(method, path, body)?;
        let reply = link.exchange(request).await?;
        self.link = Some(link);
        Ok((reply.status(), reply.into_body()))
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let is_write = method == Method::PUT;
        let mut request = self.address.request(method, path, body)?;
        if is_write {
            let kind = match self.target.body {
                Body::Json => "application/json",
                Body::Bytes => "application/octet-stream",
            };
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Ok(request)
    }
}

impl Session for HttpSession {
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        let (status, body) = self.send(Method::PUT, &format!("/key/{key}"), value.clone()).await?;
        ensure!(status == StatusCode::OK, "PUT: {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    async fn get(&mut self, key: &str, freshness: Freshness) -> Result<bool> {
        let path = match freshness {
            Freshness::Local => format!("/key/{key}"),
            Freshness::Linearizable => format!("/key/{key}?consistency=linearizable"),
        };
        let (status, body) = self.send(Method::GET, &path, Bytes::new()).await?;
        match status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => bail!("GET: {status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    async fn recover(&mut self) {
        if !self.follows_leader {
            return;
        }
        // Without a leader the next request fails, too, and comes here again.
        if let Ok(leader) = self.target.leader().await {
            self.address = self.target.nodes[leader].clone();
            self.link = None;
        }
    }
}

/// One connection, kept for one request after the other.
pub struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
}

impl Link {
    pub async fn open(address: &Address) -> Result<Self> {
        let authority = &address.authority;
        let stream =
            TcpStream::connect(authority).await.with_context(|| format!("connecting to {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection })
    }

    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let Self { sender, connection } = self;
        let reply = async {
            sender.ready().await?;
            let reply = sender.send_request(request).await?;
            let (head, body) = reply.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_urls_with_a_port() {
        assert_eq!(Address::parse(" http://127.0.0.1:4001/").expect("fine").authority, "127.0.0.1:4001");
        for bad in ["https://a:1", "http://a", "a:1", ""] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
