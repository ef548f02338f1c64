//! `bellwether del`: removes a key; exit code 3 when there was none.

use bellwether_client::Written;

use super::endpoints::{self, Call, Endpoints, WriteArgs};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Del {
    /// The key: any text, `/` included
    key: String,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    endpoints: Endpoints,
}

impl Del {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let options = self.write.options();
        let delete = async { Ok(client.delete(&self.key, &options).await?) };
        let written = endpoints::run(Call::Write, delete)?
            .ok_or_else(|| Failure::new(Exit::NotFound, format!("no value under {:?}", self.key)))?;
        print_written(&written, &self.key, self.write.json);
        Ok(())
    }
}

/// One line on what was done: `ok revision 7`, or JSON.
pub fn print_written(written: &Written, key: &str, json: bool) {
    let line = match (json, written.revision) {
        (true, revision) => {
            serde_json::json!({ "key": key, "revision": revision, "leaderId": written.leader }).to_string()
        }
        (false, Some(revision)) => format!("ok revision {revision}"),
        (false, None) => "ok".to_owned(),
    };
    anstream::println!("{line}");
}
