//! `sim`: runs histories, and brings a failed one back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellwether::env::planted::Bug;
use bellwether_sim::drills;
use bellwether_sim::history::{self, Report};
use bellwether_sim::plan::{self, Founding, Plan};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

/// Runs real nodes under simulated time, network and disk
#[derive(Parser)]
struct Arguments {
    /// Decides everything that happens
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Runs this many histories, with this seed and the next ones
    #[arg(long, global = true, default_value_t = 1)]
    histories: u64,
    /// Simulated seconds of a campaign's faults
    #[arg(long, global = true, default_value_t = 20)]
    seconds: u64,
    /// Writes every event of the history there (the last one's, if there are several)
    #[arg(long, global = true, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Prints only the histories that fail, and how far it has come
    #[arg(long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Clone, Subcommand)]
enum Scenario {
    /// Random faults under a random workload (the default)
    Campaign,
    /// A campaign on disks that report syncs they do not make: it should fail
    LyingDisks,
    /// A disturbed first start
    Founding {
        #[arg(long, value_enum)]
        kind: Founding,
    },
    /// A first start during which one node's power goes at an exact step of its disk
    PowerCut {
        /// 0 to 2
        #[arg(long)]
        node: usize,
        /// Calls that change the disk and still succeed
        #[arg(long)]
        after: u64,
        /// The disk is lost as well
        #[arg(long)]
        wipe: bool,
    },
    /// A bug is planted in every node, under a plan that provokes it: it should fail
    Drill {
        #[arg(value_parser = drills::find)]
        bug: Bug,
        /// The same plan without the bug
        #[arg(long)]
        sound: bool,
    },
    /// Looks for every planted bug, in as many seeds as --histories says for each
    Bugs,
}

impl Scenario {
    fn plan(&self, seed: u64, length: Duration) -> Plan {
        match *self {
            Scenario::Campaign | Scenario::Bugs => plan::campaign(seed, length),
            Scenario::LyingDisks => plan::lying_campaign(seed, length),
            Scenario::Founding { kind } => plan::founding(seed, kind),
            Scenario::PowerCut { node, after, wipe } => plan::founding_power_cut(seed, node, after, wipe),
            Scenario::Drill { bug, sound } => drills::plan(seed, bug, sound),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let passed = match &arguments.scenario {
        Some(Scenario::Bugs) => look_for_bugs(&arguments),
        scenario => run(&arguments, &scenario.clone().unwrap_or(Scenario::Campaign)),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, scenario: &Scenario) -> bool {
    let began = Instant::now();
    let bar = if arguments.quiet { progress(arguments.histories) } else { ProgressBar::hidden() };
    let mut simulated = Duration::ZERO;
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.histories) {
        let plan = scenario.plan(seed, Duration::from_secs(arguments.seconds));
        let report = history::run(plan, arguments.trace.clone());
        tell(&bar, arguments.quiet, &report);
        simulated += report.simulated;
        failed += u64::from(!report.failures.is_empty());
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!(
        "{} histories, {failed} failed; {:.0} simulated seconds in {:.1} s",
        arguments.histories,
        simulated.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    failed == 0
}

fn tell(bar: &ProgressBar, quiet: bool, report: &Report) {
    if !quiet || !report.failures.is_empty() {
        bar.suspend(|| println!("{report}"));
    }
}

fn look_for_bugs(arguments: &Arguments) -> bool {
    let last = arguments.seed.saturating_add(arguments.histories.saturating_sub(1));
    let mut missed = 0;
    for bug in Bug::ALL {
        match drills::is_noticed(bug, arguments.seed..=last) {
            Ok(report) => println!("{}: seed {}: {}", drills::name(bug), report.seed, report.failures[0]),
            Err(why) => {
                missed += 1;
                println!("{}: FAILED: {why}", drills::name(bug));
            }
        }
    }
    println!("{} bugs, {missed} missed", Bug::ALL.len());
    missed == 0
}

fn progress(histories: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} histories, {eta} left");
    ProgressBar::new(histories).with_style(style.expect("a valid template"))
}
