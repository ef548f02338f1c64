//! A node for tests of what clients speak.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::config::Settings;
use crate::env::fake_disk::FakeDisk;
use crate::env::{Workers, World, clock::SystemClock, net::RealNet};
use crate::node::Node;
use crate::types::Role;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// A cluster of one that leads; everything runs in the caller's runtime.
pub async fn leading_node() -> Node {
    let settings = Cli::parse_from(["x", "--listen", "127.0.0.1", "--port", "1", "--lab"]).settings;
    let world = World {
        net: Arc::new(RealNet),
        disk: Arc::new(FakeDisk::new()),
        clock: Arc::new(SystemClock),
        workers: Workers::Tasks { delay: || Duration::ZERO },
    };
    let node = Node::open(settings.validate().expect("valid"), world).expect("opens");
    let running = node.clone();
    tokio::spawn(async move { running.run().await });
    while node.standing().role != Role::Leader {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node
}
