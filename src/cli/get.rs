//! `bellwether get`: the value alone on standard output, so that it can be piped.

use std::io::Write;
use std::time::Duration;

use bellwether_client::{Entry, ReadOptions, Value};

use super::endpoints::{self, Call, Endpoints};
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Get {
    /// The key: any text, `/` included
    key: String,

    /// At least as new as every write answered before this read began
    #[arg(long)]
    linearizable: bool,

    /// Wait until the node that answers has this revision
    #[arg(long, value_name = "REVISION")]
    min_revision: Option<u64>,

    /// Print the bytes as stored, without a line end
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Print key, value and revisions as JSON
    #[arg(long)]
    json: bool,

    /// How long to wait, such as 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = endpoints::duration)]
    timeout: Duration,

    #[command(flatten)]
    endpoints: Endpoints,
}

impl Get {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let options = ReadOptions {
            linearizable: self.linearizable,
            min_revision: self.min_revision,
            raw: self.raw,
            timeout: self.timeout,
        };
        let read = async { Ok(client.get(&self.key, &options).await?) };
        let entry = endpoints::run(Call::Read, read)?
            .ok_or_else(|| Failure::new(Exit::NotFound, format!("no value under {:?}", self.key)))?;
        let line = if self.json { as_json(&self.key, &entry) } else { as_text(entry) };
        std::io::stdout()
            .write_all(&line)
            .map_err(|error| Failure::error(format!("the value could not be written out: {error}")))
    }
}

/// JSON values end with a line end, raw bytes with nothing of ours.
fn as_text(entry: Entry) -> Vec<u8> {
    match entry.value {
        Value::Json(text) => format!("{text}\n").into_bytes(),
        Value::Bytes(bytes) => bytes.to_vec(),
    }
}

fn as_json(key: &str, entry: &Entry) -> Vec<u8> {
    let key = serde_json::Value::from(key);
    let value = match &entry.value {
        Value::Json(text) => text.clone(),
        Value::Bytes(bytes) => serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string(),
    };
    let number = |n: Option<u64>| n.map_or("null".to_owned(), |n| n.to_string());
    // Put together by hand so that the value stays as it was stored, digit for digit.
    format!(
        "{{\"key\":{key},\"value\":{value},\"modRevision\":{},\"revision\":{}}}\n",
        number(entry.mod_revision),
        number(entry.revision)
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_they_were_stored() {
        let entry = Entry { value: Value::Json("1.00".to_owned()), mod_revision: Some(2), revision: None };
        let json = as_json("a\"b", &entry);
        assert_eq!(
            String::from_utf8_lossy(&json),
            "{\"key\":\"a\\\"b\",\"value\":1.00,\"modRevision\":2,\"revision\":null}\n"
        );
        assert_eq!(as_text(entry), b"1.00\n");
        let raw = Entry { value: Value::bytes(&b"\x00\xff"[..]), mod_revision: None, revision: None };
        assert_eq!(as_text(raw), b"\x00\xff");
    }
}
