//! `bellwether status`: a table of what each endpoint says of itself; exit code 5 when
//! none of them leads and none knows who does.

use bellwether_client::{Client, Error, MemberStatus, NodeStatus};

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
        let silent = silent(&rows);
        match self.json {
            true => {
                rows.iter().for_each(|row| anstream::println!("{}", row.json()));
                silent.iter().for_each(|member| anstream::println!("{}", silent_json(member)));
            }
            false => anstream::print!("{}", table(&rows, &silent, &unreachable)),
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

/// Members that others know and that did not answer.
fn silent(rows: &[Row]) -> Vec<MemberStatus> {
    let mut silent: Vec<MemberStatus> = Vec::new();
    for member in rows.iter().flat_map(|row| &row.status.members) {
        let heard = rows.iter().any(|row| row.status.node_id == member.node_id);
        if !heard && silent.iter().all(|known| known.node_id != member.node_id) {
            silent.push(member.clone());
        }
    }
    silent
}

fn silent_json(member: &MemberStatus) -> serde_json::Value {
    serde_json::json!({"endpoint": member.url, "nodeId": member.node_id, "role": "silent", "ready": false})
}

fn silent_cells(member: &MemberStatus) -> [String; 8] {
    let ready = "no: it did not answer";
    [member.node_id.as_str(), "silent", "-", "-", "-", "-", member.url.as_str(), ready].map(str::to_owned)
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
            self.endpoint.clone(),
            self.ready.as_ref().map_or_else(
                |why| format!("no: {}", why.trim().trim_start_matches("not ready: ")),
                |()| "yes".to_owned(),
            ),
        ]
    }
}

const HEAD: [&str; 8] = ["NODE", "ROLE", "TERM", "LEADER", "REVISION", "KEYS", "ENDPOINT", "READY"];

/// The rows in columns, then why endpoints did not answer. Those that refuse the connection
/// are left out: the default list names more ports than most clusters use.
fn table(rows: &[Row], silent: &[MemberStatus], unreachable: &[(String, String)]) -> String {
    let head = std::iter::once(HEAD.map(str::to_owned));
    let lines: Vec<[String; 8]> =
        head.chain(rows.iter().map(Row::cells)).chain(silent.iter().map(silent_cells)).collect();
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
        let member = |name: &str| MemberStatus { node_id: name.into(), url: "http://c:1".into() };
        let status = NodeStatus {
            node_id: "node-1".into(),
            role: "leader".into(),
            term: 12,
            leader_id: Some("node-1".into()),
            leader_url: None,
            total_keys: 3,
            revision: Some(9),
            members: vec![member("node-1"), member("node-2")],
        };
        let rows = [Row { endpoint: "http://a:1".into(), status, ready: Ok(()) }];
        let unreachable = [("http://b:1".to_owned(), "timed out: http://b:1".to_owned())];
        assert_eq!(
            table(&rows, &silent(&rows), &unreachable),
            "NODE    ROLE    TERM  LEADER  REVISION  KEYS  ENDPOINT    READY\n\
             node-1  leader  12    node-1  9         3     http://a:1  yes\n\
             node-2  silent  -     -       -         -     http://c:1  no: it did not answer\n\
             timed out: http://b:1\n"
        );
    }
}
