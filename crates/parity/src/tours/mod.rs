//! Tours with etcdctl: the same lines on both clusters, and every output compared.
//!
//! A tour is a file in `tours/` ([`script`]). Both clusters are emptied and brought to the
//! same revision before it; then an [`actor`] a side runs each line, and [`plain`] takes
//! out what no two clusters share. What is known to differ is rewritten as
//! [`crate::known`] says.

mod actor;
mod plain;
mod script;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use self::actor::Actor;
use self::script::{Step, steps};
use crate::cluster::Programs;
use crate::diff::side::Side;
use crate::known;

/// Each with its name.
const TOURS: [(&str, &str); 9] = [
    ("put, get and del", include_str!("../../tours/kv.tour")),
    ("transactions", include_str!("../../tours/txn.tour")),
    ("watches and compaction", include_str!("../../tours/watch.tour")),
    ("leases", include_str!("../../tours/lease.tour")),
    ("locks", include_str!("../../tours/lock.tour")),
    ("elections", include_str!("../../tours/elect.tour")),
    ("endpoints and members", include_str!("../../tours/endpoint.tour")),
    ("the JSON gateway", include_str!("../../tours/gateway.tour")),
    ("a check of speed", include_str!("../../tours/perf.tour")),
];
/// Takes minutes, and says little: only when asked.
const LONG: &str = "a check of speed";

#[derive(Debug, clap::Args)]
pub struct Tours {
    /// Directories that have an etcdctl, one a version
    #[arg(long, value_delimiter = ',', value_name = "DIRS", required = true)]
    etcdctl: Vec<PathBuf>,

    /// Only tours whose name has this text
    #[arg(long, default_value = "")]
    only: String,

    /// Three members of etcd beside three of etcd: there should be no difference
    #[arg(long)]
    etcd_on_both_sides: bool,

    /// Prints what etcd answers, too
    #[arg(long)]
    show: bool,

    /// The slow ones, too
    #[arg(long)]
    long: bool,
}

/// The two clusters on one of the tours.
struct Stage {
    sides: [Side; 2],
    urls: [Vec<String>; 2],
}

impl Tours {
    /// Whether all outputs were equal.
    pub async fn run(&self, programs: &Programs) -> Result<bool> {
        let reference = programs.start_etcd(3, "etcd").await?;
        let tested = match self.etcd_on_both_sides {
            true => programs.start_etcd(3, "tested-etcd").await?,
            false => programs.start_bellwether().await?,
        };
        let urls = [tested.urls(), reference.urls()];
        let sides = [Side::connect(&urls[0]).await?, Side::connect(&urls[1]).await?];
        let mut stage = Stage { sides, urls };
        let mut passed = true;
        for bin in &self.etcdctl {
            for (name, text) in TOURS.iter().filter(|(name, _)| self.wants(name)) {
                let began = Instant::now();
                let failures = stage.go(bin, text, self.show).await.with_context(|| (*name).to_owned())?;
                let result = if failures.is_empty() { "ok     " } else { "FAILED " };
                let version = bin.file_name().unwrap_or_default().display();
                println!("{result} {name}, with {version} ({:.0} s)", began.elapsed().as_secs_f64());
                failures.iter().for_each(|failure| println!("{failure}"));
                passed &= failures.is_empty();
            }
        }
        Ok(passed)
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only) && (self.long || name != LONG)
    }
}

impl Stage {
    /// The lines whose outputs differed.
    async fn go(&mut self, bin: &Path, text: &str, show: bool) -> Result<Vec<String>> {
        let base = self.level().await?;
        let bin = std::path::absolute(bin)?;
        let mut tested = Actor::new(bin.clone(), &self.urls[0], base)?;
        let mut reference = Actor::new(bin, &self.urls[1], base)?;
        let mut failures = Vec::new();
        for step in steps(text)? {
            let (left, right) = tokio::join!(tested.run(&step), reference.run(&step));
            let [left, right] = [left?, right?].map(|output| known::rewrite(&step.line, &output));
            if show {
                println!("  $ {}\n{right}", step.line);
            }
            if left != right {
                failures.push(difference(&step, &left, &right));
            }
        }
        Ok(failures)
    }

    /// Empties both, and brings them to the same revision, which it returns.
    async fn level(&mut self) -> Result<i64> {
        let [one, other] = &mut self.sides;
        one.begin().await?;
        other.begin().await?;
        let goal = one.symbols.base.max(other.symbols.base) + 2;
        for side in [one, other] {
            // Emptying it is one more.
            side.advance(goal - side.symbols.base - 1).await?;
            side.begin().await?;
            anyhow::ensure!(side.symbols.base == goal, "revision {} instead of {goal}", side.symbols.base);
        }
        Ok(goal)
    }
}

fn difference(step: &Step, tested: &str, reference: &str) -> String {
    let indented = |text: &str| text.lines().map(|line| format!("        {line}\n")).collect::<String>();
    format!("  $ {}\n    Bellwether:\n{}    etcd:\n{}", step.line, indented(tested), indented(reference))
}
