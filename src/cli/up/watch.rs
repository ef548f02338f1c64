//! Asks the nodes who leads, and tells the supervisor when the answer changes.

use std::time::Duration;

use bellwether_client::{Client, NodeStatus};
use tokio::sync::mpsc;

/// Until there is a leader people are waiting for this answer.
const SOON: Duration = Duration::from_millis(50);
/// Afterwards it only feeds one line at each change.
const CALMLY: Duration = Duration::from_millis(500);

/// A node that says it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leads {
    pub name: String,
    pub term: u64,
}

/// Runs until the supervisor is gone.
pub async fn run(client: Client, news: mpsc::UnboundedSender<Leads>) {
    let mut known: Option<Leads> = None;
    while !news.is_closed() {
        let now = leader(client.status().await.into_iter().filter_map(|(_, answer)| answer.ok()));
        let pause = if now.is_some() { CALMLY } else { SOON };
        if let Some(now) = now.filter(|now| known.as_ref() != Some(now)) {
            known = Some(now.clone());
            let _ = news.send(now);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Of several that claim it, the newest term is right.
fn leader(statuses: impl Iterator<Item = NodeStatus>) -> Option<Leads> {
    let leads = statuses.filter(NodeStatus::leads).max_by_key(|status| status.term)?;
    Some(Leads { name: leads.node_id, term: leads.term })
}
