//! One request over a pooled HTTP/1.1 connection, and what its failure says about
//! whether the node may have seen it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::Error;

/// How long a node may take to accept a connection. A live one does at once; a host
/// that is gone would otherwise cost the whole deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);
/// Idle connections are closed before a server would do it: a request sent into a
/// connection that is just being closed has an unknown outcome for no good reason.
const POOL_IDLE: Duration = Duration::from_secs(10);
/// The longest reply read. Values are far smaller; past this it is no Bellwether node.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing left this process: the node cannot have acted on it.
    NotSent(String),
    /// It may have arrived.
    Broken(String),
    /// It was sent, and no answer came in time.
    Late,
}

impl SendError {
    pub(crate) fn why(&self, node: &str) -> String {
        match self {
            SendError::NotSent(why) => format!("{node}: {why}"),
            SendError::Broken(why) => format!("the connection to {node} broke: {why}"),
            SendError::Late => format!("{node} did not answer in time"),
        }
    }
}

/// A request before it has an address.
pub(crate) struct Ask {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Ask {
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self { method: Method::GET, target: target.into(), headers: Vec::new(), body: Bytes::new() }
    }
}

#[derive(Clone)]
pub(crate) struct Transport {
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Transport {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // hyper repeats a request by itself only when it got it back unwritten from a
        // pooled connection that had just closed; that is as safe as a refused connect.
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { http }
    }

    /// Sends `ask` to `node` (`http://host:port`) and reads the whole reply within `limit`.
    pub(crate) async fn send(
        &self,
        node: &str,
        ask: &Ask,
        limit: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let request = build(node, ask)?;
        tokio::time::timeout(limit, self.exchange(request)).await.unwrap_or(Err(SendError::Late))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, SendError> {
        let response = self.http.request(request).await.map_err(|error| match error.is_connect() {
            true => SendError::NotSent(root_cause(&error)),
            false => SendError::Broken(root_cause(&error)),
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_REPLY_BYTES).collect().await;
        let body = body.map_err(|error| SendError::Broken(root_cause(error.as_ref())))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

fn build(node: &str, ask: &Ask) -> Result<Request<Full<Bytes>>, SendError> {
    let mut request = Request::builder().method(ask.method.clone()).uri(format!("{node}{}", ask.target));
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    request.body(Full::new(ask.body.clone())).map_err(|error| SendError::NotSent(error.to_string()))
}

/// The innermost reason: "Connection refused" says more than "client error (Connect)".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Checks an endpoint and takes its trailing slash away.
pub(crate) fn endpoint(text: &str) -> Result<String, Error> {
    let bad = |why: &str| Error::BadEndpoint { text: text.to_owned(), why: why.to_owned() };
    let url = url::Url::parse(text.trim()).map_err(|_| bad("write it as http://host:port"))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(bad("https is not supported yet; use http://")),
        _ => return Err(bad("write it as http://host:port")),
    }
    let host = url.host_str().ok_or_else(|| bad("it names no host"))?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("leave away what follows host and port"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("a user name in the URL is not supported"));
    }
    Ok(format!("http://{host}:{}", url.port_or_known_default().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_and_normalised() {
        assert_eq!(endpoint(" http://Node-1:4000/ ").expect("fine"), "http://node-1:4000");
        assert_eq!(endpoint("http://[::1]:4000").expect("fine"), "http://[::1]:4000");
        assert_eq!(endpoint("http://host").expect("fine"), "http://host:80");
        for bad in [
            "",
            "localhost:4001",
            "ftp://a:1",
            "https://a:1",
            "http://a:1/status",
            "http://u@a:1",
            "http://a:1?x",
        ] {
            assert!(matches!(endpoint(bad), Err(Error::BadEndpoint { .. })), "{bad}");
        }
    }
}
