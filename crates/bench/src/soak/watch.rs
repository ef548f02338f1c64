//! What is looked at while the clients write.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use bellwether_load::target::Address;

use crate::nodes;
use crate::number::count;

/// Between two looks at all nodes. An election in between is seen all the same, by its term.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A busy node may be late; its next answer tells the same.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Looks in a row that no node answered: the cluster is gone.
const MOST_SILENT_LOOKS: u32 = 10;
/// How the server calls its count of slow and fast writes to the log.
const FSYNC: &str = "bellwether_log_fsync_duration_seconds_bucket{le=\"";

/// What nodes said of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub terms: BTreeSet<u64>,
    /// Who said in which term that it leads.
    pub leaders: BTreeSet<(u64, String)>,
}

impl Seen {
    fn add(&mut self, status: &Value) -> Result<()> {
        let term = status["term"].as_u64().context("a status without a term")?;
        self.terms.insert(term);
        if status["role"] == "leader" {
            let name = status["nodeId"].as_str().context("a status without a name")?;
            self.leaders.insert((term, name.to_owned()));
        }
        Ok(())
    }
}

pub struct Watch {
    nodes: Vec<Address>,
    pub seen: Seen,
    revision: u64,
    silent_looks: u32,
    began: Instant,
    line_interval: Duration,
}

impl Watch {
    /// Looks for the first time.
    pub async fn begin(urls: &[String], line_interval: Duration) -> Result<Self> {
        let mut watch = Self {
            nodes: Address::parse_all(urls)?,
            seen: Seen::default(),
            revision: 0,
            silent_looks: 0,
            began: Instant::now(),
            line_interval,
        };
        watch.look().await?;
        Ok(watch)
    }

    /// Asks every node once; says what is new.
    pub async fn look(&mut self) -> Result<()> {
        let before = self.seen.clone();
        let mut answered = 0;
        for node in &self.nodes {
            let Ok(Ok(status)) = timeout(STATUS_TIMEOUT, nodes::status(node)).await else { continue };
            self.seen.add(&status)?;
            self.revision = self.revision.max(status["revision"].as_u64().unwrap_or(0));
            answered += 1;
        }
        self.silent_looks = if answered > 0 { 0 } else { self.silent_looks + 1 };
        ensure!(self.silent_looks < MOST_SILENT_LOOKS, "no node answers any more");
        let seconds = self.began.elapsed().as_secs();
        for term in self.seen.terms.difference(&before.terms) {
            eprintln!("at {seconds} s: term {term}");
        }
        for (term, name) in self.seen.leaders.difference(&before.leaders) {
            eprintln!("at {seconds} s: {name} leads in term {term}");
        }
        Ok(())
    }

    /// Looks again and again, and says now and then how it goes.
    pub async fn go_on(&mut self) -> Result<Infallible> {
        let (mut told_at, mut told) = (Instant::now(), self.revision);
        loop {
            sleep(LOOK_INTERVAL).await;
            self.look().await?;
            let since = told_at.elapsed();
            if since >= self.line_interval {
                let rate = (self.revision - told) as f64 / since.as_secs_f64();
                let (seconds, term) = (self.began.elapsed().as_secs(), self.seen.terms.last());
                let (writes, rate) = (count(self.revision), count(rate as u64));
                eprintln!("at {seconds} s: term {}, {writes} writes, {rate}/s now", term.unwrap_or(&0));
                (told_at, told) = (Instant::now(), self.revision);
            }
        }
    }
}

/// The slowest write to a log, of any node since its start: between these two, in
/// milliseconds. Its histogram knows no better.
pub async fn worst_fsync(urls: &[String]) -> Result<(f64, f64)> {
    let mut worst: (f64, f64) = (0.0, 0.0);
    for node in Address::parse_all(urls)? {
        let metrics = nodes::metrics(&node).await?;
        let (from, to) = slowest(&metrics).context("no count of syncs")?;
        worst = (worst.0.max(from), worst.1.max(to));
    }
    Ok((worst.0 * 1000.0, worst.1 * 1000.0))
}

/// The bucket that the slowest one is in; buckets count everything below their end, too.
fn slowest(metrics: &str) -> Option<(f64, f64)> {
    let bucket = |line: &str| {
        let (end, count) = line.strip_prefix(FSYNC)?.split_once("\"} ")?;
        let end = if end == "+Inf" { f64::INFINITY } else { end.parse().ok()? };
        Some((end, count.split_ascii_whitespace().next()?.parse::<u64>().ok()?))
    };
    let buckets: Vec<(f64, u64)> = metrics.lines().filter_map(bucket).collect();
    let all = buckets.last()?.1;
    let at = buckets.iter().position(|(_, count)| *count == all)?;
    let from = at.checked_sub(1).map_or(0.0, |before| buckets[before].0);
    Some((from, buckets[at].0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_slowest_is_in_the_first_bucket_that_holds_all() {
        let line = |end: &str, count: u64| format!("{FSYNC}{end}\"}} {count}\n");
        let metrics = [line("0.1", 5), line("0.2", 9), line("0.4", 9), line("+Inf", 9)].concat();
        assert_eq!(slowest(&metrics), Some((0.1, 0.2)));
        assert_eq!(slowest(&[line("0.1", 0), line("+Inf", 1)].concat()), Some((0.1, f64::INFINITY)));
        assert_eq!(slowest(&line("0.1", 3)), Some((0.0, 0.1)));
        assert_eq!(slowest("bellwether_other 1\n"), None);
    }

    #[test]
    fn only_leaders_are_leaders() {
        let mut seen = Seen::default();
        for (name, role, term) in [("a", "leader", 1), ("b", "follower", 1), ("b", "candidate", 2)] {
            seen.add(&json!({"nodeId": name, "role": role, "term": term})).expect("a status");
        }
        assert_eq!(seen.terms, [1, 2].into());
        assert_eq!(seen.leaders, [(1, "a".to_owned())].into());
        assert!(seen.add(&json!({})).is_err());
    }
}
