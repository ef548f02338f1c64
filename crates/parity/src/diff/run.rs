//! Starts the clusters, plays as many sequences as asked, tells what differed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_bench::cluster::Cluster;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::alter::Alteration;
use super::coverage::EXPECTED_ERRORS;
use super::generate::sequence;
use super::op::Sequence;
use super::pair::{Difference, Pair, Verdict};
use super::shrink::{shrink, shrink_within};
use super::side::Side;
use crate::cluster::Programs;

/// Tries at a sequence that elections or a busy machine came between.
const TRIES: usize = 4;
/// After this many failures the rest would say the same.
const MOST_FAILURES: u64 = 8;
/// Sequences after which every expected error must have been met.
const LONG_RUN: u64 = 1_500;
/// A fault must be noticed within so many sequences.
const ALTERED_SEQUENCES: u64 = 200;
/// Between two tries: an election takes about that long.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Diff {
    /// How many sequences, with this seed and the next ones
    #[arg(long, default_value_t = 200)]
    sequences: u64,

    /// Decides everything that is asked
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Plays only these operations of the sequence
    #[arg(long, value_delimiter = ',', value_name = "PLACES")]
    only: Vec<usize>,

    /// Leaves out requests whose kind begins so, such as `lease` or `watch`
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    without: Vec<String>,

    /// Who is compared with etcd
    #[arg(long, value_enum, default_value = "bellwether")]
    tested: Tested,

    /// Puts a fault into what the tested side answers
    #[arg(long, value_enum)]
    alter: Option<Alteration>,

    /// Goes on until this many sequences differed
    #[arg(long, default_value_t = MOST_FAILURES)]
    failures: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tested {
    Bellwether,
    /// Another etcd of one member: there should be no difference. Three would make some by
    /// themselves: when a transaction fails after a write because of a read, the member that
    /// was asked undoes the write and the others keep it (they skip reads of others).
    Etcd,
}

/// Both clusters, and the connections to them.
struct Stage {
    pair: Pair,
    tested: Tested,
    clusters: Vec<Cluster>,
}

impl Stage {
    async fn set(programs: &Programs, tested: Tested) -> Result<Self> {
        let reference = programs.start_etcd(1, "etcd").await?;
        let cluster = match tested {
            Tested::Bellwether => programs.start_bellwether().await?,
            Tested::Etcd => programs.start_etcd(1, "tested-etcd").await?,
        };
        let pair = Pair::new(Side::connect(&cluster.urls()).await?, Side::connect(&reference.urls()).await?);
        Ok(Self { pair, tested, clusters: vec![cluster, reference] })
    }

    /// Goes on with new clusters.
    async fn reset(&mut self, programs: &Programs) -> Result<()> {
        // They would take the new ones' directories with them.
        self.clusters.clear();
        let mut fresh = Self::set(programs, self.tested).await?;
        fresh.pair.alteration = self.pair.alteration;
        std::mem::swap(&mut fresh.pair.coverage, &mut self.pair.coverage);
        *self = fresh;
        Ok(())
    }

    /// Plays a sequence anew when something came between.
    async fn play(&mut self, sequence: &Sequence) -> Result<Verdict> {
        let mut verdict = self.pair.run(sequence).await?;
        for _ in 1..TRIES {
            let Verdict::Disturbed(why) = &verdict else { break };
            self.clusters.iter_mut().try_for_each(Cluster::check).with_context(|| format!("after {why}"))?;
            eprintln!("seed {} is played again: {why}", sequence.seed);
            tokio::time::sleep(PAUSE).await;
            verdict = self.pair.run(sequence).await?;
        }
        Ok(verdict)
    }
}

impl Diff {
    /// Whether no sequence differed.
    pub async fn run(&self, programs: &Programs) -> Result<bool> {
        let began = Instant::now();
        let mut stage = Stage::set(programs, self.tested).await?;
        stage.pair.alteration = self.alter;
        let bar = progress(self.sequences);
        let (mut played, mut failed) = (0, 0);
        for seed in self.seed..self.seed.saturating_add(self.sequences) {
            let sequence = self.chosen(sequence(seed));
            let verdict = stage.play(&sequence).await.with_context(|| format!("seed {seed}"))?;
            played += 1;
            bar.inc(1);
            if let Some(report) = self.report(&mut stage, programs, &sequence, verdict).await? {
                failed += 1;
                bar.suspend(|| println!("{report}\n"));
            }
            if failed >= self.failures {
                break;
            }
        }
        bar.finish_and_clear();
        print!("{}", stage.pair.coverage);
        let unmet = self.unmet(&stage.pair, played);
        println!("diff: {played} sequences, {failed} differ, in {:.0} s", began.elapsed().as_secs_f64());
        Ok(failed == 0 && unmet == 0)
    }

    fn chosen(&self, mut sequence: Sequence) -> Sequence {
        sequence.ops.retain(|(place, op)| {
            let left_out = self.without.iter().any(|kind| op.action.kind().starts_with(kind.as_str()));
            !left_out && (self.only.is_empty() || self.only.contains(place))
        });
        sequence
    }

    /// What is to be told of a sequence, if anything.
    async fn report(
        &self,
        stage: &mut Stage,
        programs: &Programs,
        sequence: &Sequence,
        verdict: Verdict,
    ) -> Result<Option<String>> {
        let first = match verdict {
            Verdict::Same => return Ok(None),
            Verdict::Disturbed(why) => {
                return Ok(Some(format!("seed {}: never came to its end: {why}", sequence.seed)));
            }
            Verdict::Differs(first) => first,
        };
        if !stage.pair.tested.agrees().await? {
            // Whatever is played to them now differs.
            stage.reset(programs).await?;
            let differs = describe(sequence, &first);
            let command = reproduce(sequence);
            return Ok(Some(format!("ITS NODES HOLD DIFFERENT STATES NOW\n{differs}{command}")));
        }
        Ok(Some(match shrink(&mut stage.pair, sequence).await? {
            Some((small, difference)) => {
                let command = reproduce(&small);
                let (smaller, difference) = shrink_within(&mut stage.pair, small, difference).await?;
                format!("{}{command}", describe(&smaller, &difference))
            }
            None => {
                let command = reproduce(sequence);
                format!("not again when it was repeated:\n{}{command}", describe(sequence, &first))
            }
        }))
    }

    /// Errors that a long run should have met, and did not.
    fn unmet(&self, pair: &Pair, played: u64) -> usize {
        if played < LONG_RUN {
            return 0;
        }
        let unmet: Vec<_> = EXPECTED_ERRORS.iter().filter(|text| !pair.coverage.has_error(text)).collect();
        for text in &unmet {
            println!("this run never met: {text}");
        }
        unmet.len()
    }
}

fn describe(sequence: &Sequence, difference: &Difference) -> String {
    let ops: String = sequence.ops.iter().map(|(place, op)| format!("  {place:>3} {op}\n")).collect();
    format!("seed {}, in short:\n{ops}{difference}\n", sequence.seed)
}

/// The command that brings this sequence back.
fn reproduce(Sequence { seed, ops }: &Sequence) -> String {
    let places: Vec<String> = ops.iter().map(|(place, _)| place.to_string()).collect();
    let places = places.join(",");
    format!("reproduce: target/debug/bellwether-parity diff --seed {seed} --sequences 1 --only {places}")
}

fn progress(sequences: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{pos}/{len} sequences, {per_sec}, {eta} to go");
    ProgressBar::new(sequences).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// etcd beside etcd shows nothing; with any fault in one of them it shows that.
pub async fn self_test(programs: &Programs, sequences: u64) -> Result<bool> {
    let mut stage = Stage::set(programs, Tested::Etcd).await?;
    let mut passed = true;
    for seed in 1..=sequences {
        let verdict = stage.play(&sequence(seed)).await?;
        if !matches!(verdict, Verdict::Same) {
            println!("FAILED  etcd beside etcd, seed {seed}: {verdict:?}");
            passed = false;
        }
    }
    println!("etcd beside etcd: {sequences} sequences");
    for alteration in Alteration::value_variants() {
        stage.pair.alteration = Some(*alteration);
        let noticed = notice(&mut stage).await?;
        passed &= noticed.is_some();
        match noticed {
            Some(seed) => println!("ok      {alteration:?} is noticed, with seed {seed}"),
            None => println!("FAILED  {alteration:?} is not noticed"),
        }
    }
    Ok(passed)
}

/// The seed of the first sequence that differs.
async fn notice(stage: &mut Stage) -> Result<Option<u64>> {
    for seed in 1..=ALTERED_SEQUENCES {
        if let Verdict::Differs(_) = stage.play(&sequence(seed)).await? {
            return Ok(Some(seed));
        }
    }
    Ok(None)
}
