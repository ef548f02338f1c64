//! An outcome as a table for people, as JSON or as CSV for programs.

use anyhow::Result;

use crate::Outcome;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Table,
    /// One object
    Json,
    /// A line of names, a line of values
    Csv,
}

pub fn show(outcome: &Outcome, format: Format) -> Result<String> {
    match format {
        Format::Table => Ok(table(outcome)),
        Format::Json => Ok(serde_json::to_string(outcome)? + "\n"),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.serialize(outcome)?;
            Ok(String::from_utf8(writer.into_inner()?)?)
        }
    }
}

fn table(outcome: &Outcome) -> String {
    let lines = counts(outcome).into_iter().chain(latencies(outcome)).chain(costs(outcome));
    lines.map(|(name, value)| format!("{name:28}{value}\n")).collect()
}

type Line = (&'static str, String);

fn counts(outcome: &Outcome) -> Vec<Line> {
    let mut lines = vec![
        ("operations/s", format!("{:.0}", outcome.per_second)),
        ("operations", format!("{} in {:.2} s", outcome.operations, outcome.seconds)),
    ];
    if let Some(rate) = outcome.intended_per_second {
        // In a closed loop every client has a request under way.
        lines.push(("intended/s", rate.to_string()));
        lines.push(("unanswered at the end", outcome.unanswered.to_string()));
    }
    let rare = [
        ("errors", outcome.errors),
        ("reads that found nothing", outcome.missing),
        ("races lost", outcome.lost_races),
    ];
    // Errors are told even if there are none.
    let told = rare.into_iter().filter(|(name, count)| *count > 0 || *name == "errors");
    lines.extend(told.map(|(name, count)| (name, count.to_string())));
    lines.extend(outcome.first_error.iter().map(|error| ("first error", error.clone())));
    lines
}

fn latencies(outcome: &Outcome) -> Vec<Line> {
    let us = |value: u64| format!("{value} us");
    vec![
        ("latency p50", us(outcome.p50_us)),
        ("latency p90", us(outcome.p90_us)),
        ("latency p99", us(outcome.p99_us)),
        ("latency p99.9", us(outcome.p999_us)),
        ("latency max", us(outcome.max_us)),
        ("longest gap", us(outcome.longest_gap_us)),
    ]
}

fn costs(outcome: &Outcome) -> Vec<Line> {
    let cpu = |seconds: f64| format!("{seconds:.4} s per 1,000");
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    let mut lines = vec![("own CPU", cpu(outcome.client_cpu_per_1000))];
    lines.extend(outcome.server_cpu_per_1000.map(|spent| ("servers' CPU", cpu(spent))));
    lines.extend(outcome.server_resident_bytes.map(|bytes| ("servers' memory", mib(bytes))));
    let growth = outcome.server_growth_bytes_per_operation;
    lines.extend(growth.map(|bytes| ("servers' memory grew by", format!("{bytes:.1} B an operation"))));
    lines
}
