//! Where one node is, whichever protocol it is spoken to in.

use anyhow::{Context, Result, ensure};
use http::Uri;
use http::header::HeaderValue;
use http::uri::Authority;
use tokio::net::TcpStream;

/// A node's host and port.
#[derive(Clone, Debug)]
pub struct Address {
    /// `host:port`
    pub(super) authority: Authority,
    /// The same, as HTTP/1.1 repeats it in every request.
    pub(super) header: HeaderValue,
}

impl Address {
    pub fn parse(url: &str) -> Result<Self> {
        let uri: Uri = url.trim().parse().with_context(|| {
            format!("{url:?} is not a URL; write it as http://host:port, such as http://localhost:4001")
        })?;
        ensure!(uri.scheme_str() == Some("http"), "{url}: only http:// is spoken here");
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?.clone();
        ensure!(uri.port_u16().is_some(), "{url} names no port; add one, such as {url}:4001");
        let header =
            HeaderValue::from_str(authority.as_str()).with_context(|| format!("{url} as a header"))?;
        Ok(Self { authority, header })
    }

    /// One a URL.
    pub fn parse_all<S: AsRef<str>>(urls: &[S]) -> Result<Vec<Self>> {
        ensure!(!urls.is_empty(), "no nodes are named");
        urls.iter().map(|url| Self::parse(url.as_ref())).collect()
    }

    pub(super) async fn connect(&self) -> Result<TcpStream> {
        let authority = self.authority.as_str();
        let stream =
            TcpStream::connect(authority).await.with_context(|| format!("connecting to {authority}"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
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
