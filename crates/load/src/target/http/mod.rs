//! Bellwether over HTTP: one kept-alive HTTP/1.1 connection a client, or a few HTTP/2
//! connections that all clients share.

mod link;

use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::task::LocalSet;

use super::group::spread;
use super::{Address, Freshness, Group, Route, Session, Swap, Target, node_for, says_yes};
pub use link::Link;
use link::SharedLink;

/// What this protocol can't do, and the mend.
pub const NO_LEASES: &str =
    "the HTTP API has no leases; name the same nodes with --etcd, they speak etcd's protocol, too";

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
        Ok(Self { nodes: Address::parse_all(urls)?.into(), body, connections })
    }

    fn session(&self, address: Address, way: Way, follows_leader: bool) -> HttpSession {
        HttpSession { target: self.clone(), address, way: Some(way), follows_leader }
    }

    /// With a connection of its own.
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
        let reply = session.get_path("/status?limit=1").await?;
        ensure!(reply.status() == StatusCode::OK, "/status said {}", reply.status());
        let status: serde_json::Value =
            serde_json::from_slice(reply.body()).context("/status is not JSON")?;
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
            if says_yes(self.leads(node)).await {
                return Ok(node);
            }
        }
        bail!("no node says that it leads; see whether all are named and a majority runs")
    }

    async fn session(&self, route: Route) -> Result<HttpSession> {
        let node = node_for(self, route).await?;
        self.lone_session(node(0), matches!(route, Route::Leader)).await
    }

    async fn sessions(&self, route: Route, clients: usize) -> Result<Vec<Group<HttpSession>>> {
        let follows_leader = matches!(route, Route::Leader);
        let node = node_for(self, route).await?;
        let Some(connections) = self.connections else {
            let mut sessions = Vec::with_capacity(clients);
            for client in 0..clients {
                sessions.push(self.lone_session(node(client), follows_leader).await?);
            }
            // Each drives its connection by itself.
            return Ok(vec![Group { tasks: LocalSet::new(), sessions }]);
        };
        let spread = spread(clients, connections);
        let mut groups = Vec::with_capacity(spread.len());
        for (connection, clients) in spread {
            let tasks = LocalSet::new();
            let address = self.address(node(connection))?;
            let link = tasks.run_until(SharedLink::open(&address)).await?;
            let session = |_| self.session(address.clone(), Way::Shared(link.clone()), follows_leader);
            let sessions = (0..clients).map(session).collect();
            groups.push(Group { tasks, sessions });
        }
        Ok(groups)
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
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let mut way = match self.way.take() {
            Some(way) => way,
            None => Way::Own(Box::new(Link::open(&self.address).await?)),
        };
        let reply = match &mut way {
            Way::Own(link) => link.exchange(request).await?,
            Way::Shared(link) => link.exchange(&self.address, request).await?,
        };
        self.way = Some(way);
        Ok(reply)
    }

    async fn get_path(&mut self, path: &str) -> Result<Response<Bytes>> {
        self.send(self.address.request(Method::GET, path, Bytes::new())?).await
    }

    fn put_request(&self, key: &str, value: &Bytes) -> Result<Request<Full<Bytes>>> {
        let mut request = self.address.request(Method::PUT, &format!("/key/{key}"), value.clone())?;
        let kind = match self.target.body {
            Body::Json => "application/json",
            Body::Bytes => "application/octet-stream",
        };
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(request)
    }
}

impl Session for HttpSession {
    async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        let reply = self.send(self.put_request(key, value)?).await?;
        if reply.status() == StatusCode::OK { Ok(()) } else { Err(unexpected("PUT", &reply)) }
    }

    async fn get(&mut self, key: &str, freshness: Freshness) -> Result<bool> {
        let reply = self.get_path(&format!("/key/{key}?{}", consistency(freshness))).await?;
        match reply.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(unexpected("GET", &reply)),
        }
    }

    async fn swap(&mut self, key: &str, value: &Bytes, seen: u64) -> Result<Swap> {
        let mut request = self.put_request(key, value)?;
        let (name, condition) = match seen {
            0 => (IF_NONE_MATCH, HeaderValue::from_static("*")),
            revision => (IF_MATCH, HeaderValue::try_from(format!("\"{revision}\""))?),
        };
        request.headers_mut().insert(name, condition);
        let reply = self.send(request).await?;
        match reply.status() {
            StatusCode::OK => Ok(Swap::Done(revision(reply.headers())?)),
            StatusCode::PRECONDITION_FAILED => Ok(Swap::Lost(revision(reply.headers())?)),
            _ => Err(unexpected("conditional PUT", &reply)),
        }
    }

    async fn range(&mut self, start: &str, limit: u32, freshness: Freshness) -> Result<usize> {
        let path = format!("/v1/keys?start={start}&limit={limit}&{}", consistency(freshness));
        let reply = self.get_path(&path).await?;
        if reply.status() != StatusCode::OK {
            return Err(unexpected("range", &reply));
        }
        let page: Page = serde_json::from_slice(reply.body()).context("a range is not JSON")?;
        Ok(page.keys.len())
    }

    async fn keep_alive(&mut self) -> Result<()> {
        bail!(NO_LEASES)
    }

    fn give_up(&mut self) {
        // What was sent on a connection went with it.
        self.way = None;
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

/// Of a range's reply: rows are only counted.
#[derive(Deserialize)]
struct Page {
    keys: Vec<IgnoredAny>,
}

fn consistency(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Local => "consistency=local",
        Freshness::Linearizable => "consistency=linearizable",
    }
}

/// The revision at which a key was last modified, 0 without one.
fn revision(headers: &HeaderMap) -> Result<u64> {
    let Some(tag) = headers.get(ETAG) else { return Ok(0) };
    tag.to_str()?.trim_matches('"').parse().context("an ETag that is no revision")
}

fn unexpected(what: &str, reply: &Response<Bytes>) -> anyhow::Error {
    anyhow!("{what}: {}: {}", reply.status(), String::from_utf8_lossy(reply.body()))
}
