//! The ratios that must hold between what callgrind counted, on any machine and with any
//! compiler. Written by `bench/instructions`, which runs the benches of that name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::number::{count, number};

/// What the runner calls the file for each bench.
const SUMMARY: &str = "summary.json";

/// Checks the counts of a run
#[derive(Debug, clap::Args)]
pub struct Instructions {
    /// Where the runner left its summaries
    summaries: PathBuf,
}

/// How many instructions a bench may take, by another one's.
struct Bound {
    why: &'static str,
    bench: &'static str,
    /// So many of the other one do the same.
    times: u64,
    other: &'static str,
    most: f64,
}

const fn bound(
    why: &'static str,
    bench: &'static str,
    (times, other): (u64, &'static str),
    most: f64,
) -> Bound {
    Bound { why, bench, times, other, most }
}

/// Each with room for compilers to differ, and none for the work to be done another time.
const BOUNDS: [Bound; 8] = [
    bound("one write serves all who wait", "append_together/of_64", (1, "append_one_by_one/of_64"), 0.5),
    bound("a batch is cheaper than its commands", "apply/one_of_64", (1, "apply/of_one_64_times"), 0.9),
    bound(
        "a read hardly sees how many keys there are",
        "get/of_100_thousand",
        (1, "get/of_10_thousand"),
        2.0,
    ),
    bound("a range costs what its keys do", "range/of_100", (100, "get/of_10_thousand"), 1.5),
    bound("changes are read and encoded once", "hand_out/to_100", (1, "hand_out/to_1"), 50.0),
    bound("a batch is encoded in one go", "encode_batch/of_64", (64, "encode_batch/of_1"), 1.0),
    bound("and decoded", "decode_batch/of_64", (64, "decode_batch/of_1"), 1.0),
    bound("a reply is encoded in one go", "encode_etcd_range/of_100", (100, "encode_etcd_range/of_1"), 1.0),
];

impl Instructions {
    pub fn run(self) -> Result<()> {
        let mut counts = BTreeMap::new();
        collect(&self.summaries, &mut counts)?;
        for (bench, instructions) in &counts {
            println!("{bench:28}{:>14}", count(*instructions));
        }
        println!();
        let mut broken = Vec::new();
        for bound in &BOUNDS {
            let ratio = bound.ratio(&counts)?;
            println!("{}", bound.line(ratio));
            if ratio > bound.most {
                broken.push(bound.why);
            }
        }
        ensure!(broken.is_empty(), "no longer so: {}", broken.join("; "));
        Ok(())
    }
}

impl Bound {
    fn ratio(&self, counts: &BTreeMap<String, u64>) -> Result<f64> {
        let find = |name: &str| counts.get(name).copied().with_context(|| format!("{name} was not counted"));
        Ok(find(self.bench)? as f64 / (self.times * find(self.other)?) as f64)
    }

    fn line(&self, ratio: f64) -> String {
        let Self { why, bench, times, other, most } = self;
        let times = if *times == 1 { String::new() } else { format!("{times} x ") };
        let ratio = number(Some(ratio), 3);
        format!("{ratio:>8} (at most {most}): {bench} to {times}{other}: {why}")
    }
}

/// Adds what the summaries below this directory say.
fn collect(dir: &Path, to: &mut BTreeMap<String, u64>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, to)?;
        } else if path.file_name().is_some_and(|name| name == SUMMARY) {
            let text = std::fs::read_to_string(&path)?;
            let (name, instructions) = counted(&text).with_context(|| path.display().to_string())?;
            to.insert(name, instructions);
        }
    }
    Ok(())
}

/// A bench's name and its instructions.
fn counted(summary: &str) -> Result<(String, u64)> {
    let summary: Value = serde_json::from_str(summary)?;
    let part = |name| summary[name].as_str().context("a summary of another form");
    let name = format!("{}/{}", part("function_name")?, part("id")?);
    let counts = &summary["profiles"][0]["data"]["total"]["metrics"];
    let instructions = counts["Ir"]["values"]["new"].as_u64().context("no count of instructions")?;
    Ok((name, instructions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_a_summary() {
        let summary = r#"{"function_name":"get","id":"of_1","profiles":[{"data":{"total":{"metrics":
            {"Ir":{"values":{"new":42}}}}}}]}"#;
        assert_eq!(counted(summary).expect("whole"), ("get/of_1".to_owned(), 42));
        assert!(counted(r#"{"function_name":"get","id":"of_1","profiles":[]}"#).is_err());
        assert!(counted("{}").is_err());
    }

    #[test]
    fn a_ratio_is_to_as_many_as_do_the_same() {
        let counts = |large| BTreeMap::from([("small".to_owned(), 10), ("large".to_owned(), large)]);
        let bound = bound("so", "large", (64, "small"), 1.0);
        assert!(bound.ratio(&counts(640)).expect("counted") <= bound.most);
        assert!(bound.ratio(&counts(641)).expect("counted") > bound.most);
        assert!(bound.ratio(&BTreeMap::new()).is_err());
        assert_eq!(bound.line(0.5), "   0.500 (at most 1): large to 64 x small: so");
    }
}
