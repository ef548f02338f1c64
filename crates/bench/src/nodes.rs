//! What running nodes of Bellwether say of themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use bellwether_load::target::http::{Body, HttpTarget, Link};
use bellwether_load::target::{Address, Target};

use crate::cluster::Cluster;

/// A new cluster on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(250);

/// Waits until somebody leads and everybody is there.
pub async fn leader(cluster: &mut Cluster) -> Result<usize> {
    let target = HttpTarget::new(&cluster.urls(), Body::Json, None)?;
    let until = Instant::now() + START_TIMEOUT;
    loop {
        match target.leader().await {
            Ok(leader) => return Ok(leader),
            Err(error) if Instant::now() > until => return Err(error).context("the cluster did not start"),
            Err(_) => cluster.check()?,
        }
        sleep(POLL).await;
    }
}

pub async fn status(node: &Address) -> Result<Value> {
    let body = get(node, "/status?limit=0").await?;
    serde_json::from_slice(&body).context("/status is not JSON")
}

/// In Prometheus' text format.
pub async fn metrics(node: &Address) -> Result<String> {
    Ok(String::from_utf8(get(node, "/metrics").await?.into())?)
}

async fn get(node: &Address, path: &str) -> Result<Bytes> {
    let request = node.request(Method::GET, path, Bytes::new())?;
    let reply = Link::open(node).await?.exchange(request).await?;
    ensure!(reply.status() == StatusCode::OK, "{path} said {}", reply.status());
    Ok(reply.into_body())
}
