//! `bellwether put`: stores JSON as given; text and bytes when asked to.

use std::io::Read;

use bellwether_client::{Condition, Value};

use super::Failure;
use super::endpoints::{self, Call, Endpoints, WriteArgs};

/// The most read from standard input: far above what a server takes, so that its answer,
/// with its real limit, is what people see.
const MAX_STDIN_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub struct Put {
    /// The key: any text, `/` included
    key: String,

    /// A JSON value; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    value: String,

    /// Store VALUE as a JSON string
    #[arg(long, short = 's', conflicts_with = "raw")]
    string: bool,

    /// Store VALUE as bytes, not as JSON
    #[arg(long)]
    raw: bool,

    /// Only if the key does not exist
    #[arg(long, conflicts_with = "if_match")]
    if_absent: bool,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    endpoints: Endpoints,
}

impl Put {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.endpoints.client()?;
        let value = self.value()?;
        let mut options = self.write.options();
        if self.if_absent {
            options.condition = Condition::IfAbsent;
        }
        let put = async { Ok(client.put(&self.key, value, &options).await?) };
        let written = endpoints::run(Call::Write, put)?;
        super::del::print_written(&written, &self.key, self.write.json);
        Ok(())
    }

    fn value(&self) -> Result<Value, Failure> {
        let bytes = match self.value.as_str() {
            "-" => read_stdin()?,
            text => text.as_bytes().to_vec(),
        };
        if self.raw {
            return Ok(Value::bytes(bytes));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::usage("the value is not UTF-8").hint("--raw stores bytes as they are"))?;
        match self.string {
            true => Ok(Value::string(&text)),
            false => Value::json(&text).map_err(|error| not_json(&text, &error)),
        }
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::error(format!("standard input can't be read: {error}")))?;
    Ok(bytes)
}

/// The usual slip is a bare word: shells eat the quotes that JSON needs.
fn not_json(text: &str, error: &dyn std::fmt::Display) -> Failure {
    /// Longer values are not repeated in a hint.
    const SHOWN_BYTES: usize = 40;
    let failure = Failure::usage(format!("the value is {error}"));
    if text.len() > SHOWN_BYTES || text.contains(['\'', '\n']) {
        return failure.hint("--string stores text as a JSON string");
    }
    let quoted = serde_json::Value::from(text);
    failure.hint(format!("for a JSON string write '{quoted}', or add --string"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        put: Put,
    }

    fn put(args: &[&str]) -> Put {
        Line::try_parse_from(std::iter::once("put").chain(args.iter().copied())).expect("parses").put
    }

    #[test]
    fn values_are_json_unless_said_otherwise() {
        let json = |text: &str| Value::Json(text.to_owned());
        assert_eq!(put(&["k", "-5"]).value().expect("a number"), json("-5"));
        assert_eq!(put(&["k", r#"{"a": 1}"#]).value().expect("json"), json(r#"{"a": 1}"#));
        assert_eq!(put(&["-s", "k", "Alice"]).value().expect("string"), json("\"Alice\""));
        assert_eq!(put(&["--raw", "k", "Alice"]).value().expect("raw"), Value::bytes(&b"Alice"[..]));
    }

    #[test]
    fn a_bare_word_is_refused_with_both_mends() {
        let failure = format!("{:?}", put(&["name", "Alice"]).value().expect_err("no JSON"));
        assert!(failure.contains("--string") && failure.contains(r#"'\"Alice\"'"#), "{failure}");
        assert!(failure.contains("Usage"));
    }
}
