//! (being built)
//! One server process: the node and its listener, from start to drained stop.

use crate::config::Config;

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
