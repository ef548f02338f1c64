//! `sim`: runs histories, and brings a failed one back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellwether_sim::history::{self, Report};
use bellwether_sim::plan::{self, Founding, Plan};
use clap::{Parser, Subcommand};

/// Runs three real nodes under simulated time, network and disk
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
}

impl Scenario {
    fn plan(&self, seed: u64, length: Duration) -> Plan {
        match *self {
            Scenario::Campaign => plan::campaign(seed, length),
            Scenario::LyingDisks => plan::lying_campaign(seed, length),
            Scenario::Founding { kind } => plan::founding(seed, kind),
            Scenario::PowerCut { node, after, wipe } => plan::founding_power_cut(seed, node, after, wipe),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenario = arguments.scenario.clone().unwrap_or(Scenario::Campaign);
    let began = Instant::now();
    let mut reports: Vec<Report> = Vec::new();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.histories) {
        let plan = scenario.plan(seed, Duration::from_secs(arguments.seconds));
        let report = history::run(plan, arguments.trace.clone());
        println!("{report}");
        reports.push(report);
    }
    let failed = reports.iter().filter(|report| !report.failures.is_empty()).count();
    let simulated: Duration = reports.iter().map(|report| report.simulated).sum();
    println!(
        "{} histories, {failed} failed; {:.0} simulated seconds in {:.1} s",
        reports.len(),
        simulated.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
