//! Bellwether over HTTP: one kept-alive HTTP/1.1 connection a client, or a few HTTP/2
//! connections that all clients share.

mod link;

use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use super::{Freshness, Route, Session, Target, node_of};
use link::SharedLink;
pub use link::{Address, Link};

/// The nodes of one Bellwether cluster.
#[derive(Clone)]
pub struct HttpTarget {
    nodes: Rc<[Address]>,
    body: Body,
    /// Connections that all clients share; one each when `None`.
    connections: Option<usize>,
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

impl HttpTarget {
    /// From `http://host:port`, one a node.
    pub fn new<S: AsRef<str>>(urls: &[S], body: Body, connections: Option<usize>) -> Result<Self> {
        ensure!(!urls.is_empty(), "no URLs");
        let nodes = urls.iter().map(|url| Address::parse(url.as_ref())).collect::<Result<_>>()?;
        Ok(Self { nodes, body, connections })
    }

    fn session(&self, address: Address, way: Way, follows_leader: bool) -> HttpSession {
        HttpSession { target: self.clone(), address, way: Some(way), follows_leader }
    }

    /// A session with a connection of its own.
    async fn lone_session(&self, node: usize, follows_leader: bool) -> Result<HttpSession> {
        let address = self.address(node)?;
        let link = Link::open(&address).await?;
        Ok(self.session(address, Way::Own(Box::new(link)), follows_leader))
    }

    fn address(&self, node: usize) -> Result<Address> {
        self.nodes.get(node).context("no such node").cloned()
    }

    /// Whether this node says that it leads.
    async fn leads(&self, node: usize) -> Result<bool> {
        let mut session = self.lone_session(node, false).await?;
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
        let node = |number| node_of(route, number, self.nodes.len(), leader);
        let mut sessions = Vec::with_capacity(clients);
        let Some(connections) = self.connections else {
            for client in 0..clients {
                sessions.push(self.lone_session(node(client), follows_leader).await?);
            }
            return Ok(sessions);
        };
        let mut links = Vec::new();
        for connection in 0..connections.clamp(1, clients.max(1)) {
            let address = self.address(node(connection))?;
            links.push((SharedLink::open(&address).await?, address));
        }
        for client in 0..clients {
            let (link, address) = links[client % links.len()].clone();
            sessions.push(self.session(address, Way::Shared(link), follows_leader));
        }
        Ok(sessions)
    }
}

/// How a client reaches its node.
enum Way {
    Own(Box<Link>),
    Shared(SharedLink),
}

pub struct HttpSession {
    target: HttpTarget,
    address: Address,
    /// `None` after an error: what the connection would say next belongs to nobody.
    way: Option<Way>,
    follows_leader: bool,
}

impl HttpSession {
    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let mut way = match self.way.take() {
            Some(way) => way,
            None => Way::Own(Box::new(Link::open(&self.address).await?)),
        };
        let request = self.request(method, path, body)?;
        let reply = match &mut way {
            Way::Own(link) => link.exchange(request).await?,
            Way::Shared(link) => link.exchange(&self.address, request).await?,
        };
        self.way = Some(way);
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
            self.way = None;
        }
    }
}
