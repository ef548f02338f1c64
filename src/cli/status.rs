//! `bellwether status`: a table of what each endpoint says of itself; exit code 5 when
//! none of them leads and none knows who does.

use bellwether_client::{Client, Error, NodeStatus};

use super::endpoints::{self, Call, Endpoints};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print one JSON object a node
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    endpoints: Endpoints,
}

/// One node as the table shows it.
struct Row {
    endpoint: String,
    status: NodeStatus,
    /// `Err` says why it is not ready.
    ready: Result<(), String>,
}

impl Status {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let (rows, unreachable) = endpoints::run(Call::Read, async { Ok(collect(&client).await) })?;
        if rows.is_empty() {
            let why = unreachable.into_iter().map(|(_, why)| why).collect::<Vec<_>>().join("; ");
            return Err(Error::Unreachable { why }.into());
        }
        match self.json {
            true => rows.iter().for_each(|row| anstream::println!("{}", row.json())),
            false => anstream::print!("{}", table(&rows, &unreachable)),
        }
        if rows.iter().any(|row| row.status.leads() || row.status.leader_id.is_some()) {
            return Ok(());
        }
        Err(Failure::new(Exit::NoLeader, "no node leads, and none knows who does")
            .hint("a majority of the nodes must be up and reach each other"))
    }
}

/// Everybody who answers, and why the others did not.
async fn collect(client: &Client) -> (Vec<Row>, Vec<(String, String)>) {
    let (mut rows, mut unreachable) = (Vec::new(), Vec::new());
    for (endpoint, answer) in client.status().await {
        match answer {
            Ok(status) => {
                let ready = client.readiness_of(&endpoint).await;
                let ready = ready.unwrap_or_else(|error| Err(error.to_string()));
                rows.push(Row { endpoint, status, ready });
            }
            Err(Error::Unreachable { why }) => unreachable.push((endpoint, why)),
            Err(error) => unreachable.push((endpoint, error.to_string())),
        }
    }
    (rows, unreachable)
}

impl Row {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "endpoint": self.endpoint,
            "nodeId": self.status.node_id,
            "role": self.status.role,
            "term": self.status.term,
            "leaderId": self.status.leader_id,
            "leaderUrl": self.status.leader_url,
            "revision": self.status.revision,
            "totalKeys": self.status.total_keys,
            "ready": self.ready.is_ok(),
            "notReady": self.ready.as_ref().err(),
        })
    }

    fn cells(&self) -> [String; 8] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.status.node_id.clone(),
            self.status.role.clone(),
            self.status.term.to_string(),
            or_dash(self.status.leader_id.clone()),
            or_dash(self.status.revision.map(|revision| revision.to_string())),
            self.status.total_keys.to_string(),
            self.ready.as_ref().map_or_else(|why| format!("no: {why}"), |()| "yes".to_owned()),
            self.endpoint.clone(),
        ]
    }
}

const HEAD: [&str; 8] = ["NODE", "ROLE", "TERM", "LEADER", "REVISION", "KEYS", "READY", "ENDPOINT"];

/// The rows in columns, then those that did not answer. Endpoints that refuse the
/// connection are left out: the default list names more ports than most clusters use.
fn table(rows: &[Row], unreachable: &[(String, String)]) -> String {
    let lines: Vec<[String; 8]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for (_, why) in unreachable.iter().filter(|(_, why)| !why.contains("refused")) {
        text.push_str(&format!("{why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_names_the_silent() {
        let status = NodeStatus {
            node_id: "node-1".into(),
            role: "leader".into(),
            term: 12,
            leader_id: Some("node-1".into()),
            leader_url: None,
            total_keys: 3,
            revision: Some(9),
        };
        let row = Row { endpoint: "http://a:1".into(), status, ready: Ok(()) };
        let silent = [("http://b:1".to_owned(), "timed out: http://b:1".to_owned())];
        assert_eq!(
            table(&[row], &silent),
            "NODE    ROLE    TERM  LEADER  REVISION  KEYS  READY  ENDPOINT\n\
             node-1  leader  12    node-1  9         3     yes    http://a:1\n\
             timed out: http://b:1\n"
        );
    }
}
