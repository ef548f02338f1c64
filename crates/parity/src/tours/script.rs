//! Reads a tour: shell lines for both sides, in a file of its own.
//!
//! `$ ` begins a line that is run; a line in brackets before it says how. `#` begins a
//! comment. A line that is run sees `etcdctl`, its endpoints, the first of them as
//! `ENDPOINT`, all without a scheme as `BARE`, the revision `BASE` at which
//! the tour began, and `ID1`, `ID2`, ... for the ids printed so far (in hex).

use anyhow::{Result, bail};

/// The outputs that etcdctl knows.
const FORMATS: [&str; 4] = ["simple", "json", "fields", "table"];

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub line: String,
    /// Runs until its output has a line with this text, and is interrupted then.
    pub until: Option<String>,
    /// Whose lines come in no certain order.
    pub any_order: bool,
}

/// A tour's steps. `[formats]` makes one of each output format.
pub fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let (mut until, mut any_order, mut formats) = (None, false, false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(line) = line.strip_prefix("$ ") {
            let step = Step { line: line.to_owned(), until: until.take(), any_order };
            match std::mem::take(&mut formats) {
                true => steps.extend(FORMATS.iter().map(|format| in_format(&step, format))),
                false => steps.push(step),
            }
            any_order = false;
        } else if line == "[formats]" {
            formats = true;
        } else if line == "[any order]" {
            any_order = true;
        } else if let Some(text) = line.strip_prefix("[until ").and_then(|rest| rest.strip_suffix(']')) {
            until = Some(text.to_owned());
        } else {
            bail!("not a line of a tour: {line}");
        }
    }
    Ok(steps)
}

fn in_format(step: &Step, format: &str) -> Step {
    Step { line: step.line.replace("etcdctl ", &format!("etcdctl -w {format} ")), ..step.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_belong_to_the_next_line() {
        let steps =
            steps("# a\n[until end]\n$ etcdctl watch k\n[formats]\n$ etcdctl get k\n").expect("a tour");
        assert_eq!(steps.len(), 5);
        assert_eq!(steps[0].until.as_deref(), Some("end"));
        assert_eq!((steps[2].line.as_str(), &steps[2].until), ("etcdctl -w json get k", &None));
        assert!(super::steps("etcdctl get k").is_err());
    }
}
