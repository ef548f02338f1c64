//! The simulated sides of the node's seams: network and clock over turmoil, and the time
//! that a disk takes. The disk itself is the node crate's own `FakeDisk`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bellwether::env::net::{BoxFuture, BoxStream, Listener};
use bellwether::env::random::rng;
use bellwether::env::{Clock, Net};
use rand::RngExt;

use crate::trace;

/// Wall-clock time at which every history begins, in milliseconds since the epoch.
const EPOCH_MS: i64 = 1_800_000_000_000;
/// A refused connect takes this long at most: a peer that answers at once would let a
/// redial loop run without simulated time passing.
const MAX_REFUSAL_MS: u64 = 60;
/// Most syncs are quick, ...
const USUAL_SYNC_MS: u64 = 3;
/// ... one in this many is not, ...
const SLOW_SYNC_ODDS: u64 = 100;
/// ... but stays below the election timeout, or healthy clusters would elect.
const SLOW_SYNC_MS: u64 = 80;

/// TCP through turmoil; hosts are known by name.
pub struct SimNet;

struct SimListener(turmoil::net::TcpListener);

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async {
            let (stream, addr) = self.0.accept().await?;
            Ok((Box::new(stream) as BoxStream, addr))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Net for SimNet {
    fn bind<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = turmoil::net::TcpListener::bind((host, port)).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, authority: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let connected = turmoil::net::TcpStream::connect(authority).await;
            if let Err(error) = &connected {
                let pause = rng().random_range(1..MAX_REFUSAL_MS);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                trace::event(|| format!("connect {authority}: {:?}", error.kind()));
            }
            connected.map(|stream| Box::new(stream) as BoxStream)
        })
    }
}

/// Simulated time plus what this node's clock is off by.
#[derive(Clone, Default)]
pub struct SimClock {
    skew_ms: Arc<AtomicI64>,
}

impl SimClock {
    pub fn set_skew_ms(&self, skew: i64) {
        self.skew_ms.store(skew, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as i64;
        let now = EPOCH_MS + elapsed + self.skew_ms.load(Ordering::Relaxed);
        u64::try_from(now).unwrap_or_default()
    }
}

/// How long the next batch of a disk worker takes.
pub fn sync_delay() -> Duration {
    let mut rng = rng();
    let slow = rng.random_range(0..SLOW_SYNC_ODDS) == 0;
    let most = if slow { SLOW_SYNC_MS } else { USUAL_SYNC_MS };
    Duration::from_millis(rng.random_range(0..=most))
}
