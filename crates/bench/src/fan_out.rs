//! How many events a second reach the watchers of a prefix while clients write below it.
//!
//! Speaks etcd's protocol to either system. Watchers and writers ask the same node, so what
//! is measured is what one node hands out. At the end every watcher must have been told
//! every write.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tonic::transport::{Channel, Endpoint};

use crate::target::etcd::proto::kv_client::KvClient;
use crate::target::etcd::proto::watch_client::WatchClient;
use crate::target::etcd::proto::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};

/// For the last events, after the last write.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const PREFIX: &str = "fan-out/";
/// The first key after all with the prefix.
const PREFIX_END: &str = "fan-out0";

#[derive(Debug, clap::Args)]
pub struct FanOut {
    /// The node, such as http://localhost:4001
    #[arg(long)]
    endpoint: String,

    /// Watchers, each with a stream of its own
    #[arg(long, default_value_t = 100)]
    watchers: usize,

    /// Connections that the watchers share
    #[arg(long, default_value_t = 10)]
    connections: usize,

    /// Writers, each with one request under way, on one connection
    #[arg(long, default_value_t = 64)]
    writers: usize,

    #[arg(long, default_value_t = 8.0)]
    seconds: f64,

    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

#[derive(Default)]
struct Counts {
    puts: Cell<u64>,
    events: Cell<u64>,
    responses: Cell<u64>,
}

impl FanOut {
    pub async fn run(self) -> Result<()> {
        ensure!(self.watchers > 0 && self.connections > 0, "nobody watches");
        LocalSet::new().run_until(self.measure()).await
    }

    async fn measure(self) -> Result<()> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).context("not a URL")?;
        let counts = Rc::new(Counts::default());
        let mut channels = Vec::new();
        for _ in 0..self.connections {
            channels.push(endpoint.connect().await?);
        }
        // Held to the end: a stream whose requests end may end, too.
        let mut requests = Vec::new();
        for watcher in 0..self.watchers {
            let (sender, mut stream) = watch(&channels[watcher % channels.len()]).await?;
            requests.push(sender);
            let counts = counts.clone();
            tokio::task::spawn_local(async move {
                while let Ok(Some(response)) = stream.message().await {
                    counts.events.set(counts.events.get() + response.events.len() as u64);
                    counts.responses.set(counts.responses.get() + 1);
                }
            });
        }
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(self.seconds);
        let writer_channel = endpoint.connect().await?;
        let writers: Vec<_> = (0..self.writers)
            .map(|writer| {
                let kv = KvClient::new(writer_channel.clone());
                tokio::task::spawn_local(write(kv, writer, self.value_bytes, until, counts.clone()))
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        let expected = counts.puts.get() * self.watchers as u64;
        let deadline = Instant::now() + PATIENCE;
        while counts.events.get() < expected && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        let (puts, events) = (counts.puts.get(), counts.events.get());
        println!(
            "{} watchers: {:.0} events/s, {:.0} puts/s, {:.1} events a response",
            self.watchers,
            events as f64 / seconds,
            puts as f64 / seconds,
            events as f64 / counts.responses.get().max(1) as f64
        );
        ensure!(events == expected, "{events} events came of {expected}");
        Ok(())
    }
}

async fn watch(channel: &Channel) -> Result<(mpsc::Sender<WatchRequest>, tonic::Streaming<WatchResponse>)> {
    let (sender, mut queue) = mpsc::channel(1);
    let (key, range_end) = (PREFIX.into(), PREFIX_END.into());
    sender.send(WatchRequest { create_request: Some(WatchCreateRequest { key, range_end }) }).await?;
    let requests = futures::stream::poll_fn(move |cx| queue.poll_recv(cx));
    let mut stream = WatchClient::new(channel.clone()).watch(requests).await?.into_inner();
    let created = stream.message().await?.context("the stream ended")?;
    ensure!(created.created && !created.canceled, "the watch was refused");
    Ok((sender, stream))
}

async fn write(
    mut kv: KvClient<Channel>,
    writer: usize,
    value_bytes: usize,
    until: Instant,
    counts: Rc<Counts>,
) -> Result<()> {
    let value = Bytes::from(vec![b'x'; value_bytes]);
    let key = Bytes::from(format!("{PREFIX}{writer}"));
    while Instant::now() < until {
        kv.put(PutRequest { key: key.clone(), value: value.clone() }).await?;
        counts.puts.set(counts.puts.get() + 1);
    }
    Ok(())
}
