//! What the project set out to reach, and whether it did.

use std::fmt::Write;

use super::report::Page;
use super::samples::{Clients, Figure, Job};
use crate::number::number;

/// How a figure is judged.
#[derive(Clone, Copy)]
enum Aim {
    /// Ours, as a multiple of etcd's.
    AtLeast(f64),
    /// Ours, as a part of etcd's.
    AtMost(f64),
    /// Ours, whatever etcd's is.
    Under(f64),
}

struct Goal {
    what: &'static str,
    figure: Figure,
    decimals: usize,
    aim: Aim,
}

const fn goal(what: &'static str, figure: Figure, decimals: usize, aim: Aim) -> Goal {
    Goal { what, figure, decimals, aim }
}

const GOALS: [Goal; 14] = [
    goal("writes/s, 1 client", Figure::Rate(Job::Put, Clients::One), 0, Aim::AtLeast(2.0)),
    goal("writes/s, 64 clients", Figure::Rate(Job::Put, Clients::Many), 0, Aim::AtLeast(4.0)),
    goal("writes/s, 256 clients", Figure::Rate(Job::Put, Clients::Most), 0, Aim::AtLeast(4.0)),
    goal("p99 of writes, 64 clients, ms", Figure::P99(Job::Put, Clients::Many), 2, Aim::AtMost(0.5)),
    goal(
        "servers' processor time per 1,000 writes, 64 clients, s",
        Figure::ServerCpu(Job::Put, Clients::Many),
        3,
        Aim::AtMost(0.25),
    ),
    goal("linearizable reads/s, 64 clients", Figure::Rate(Job::Get, Clients::Many), 0, Aim::AtLeast(4.0)),
    goal("local reads/s, 64 clients", Figure::Rate(Job::LocalGet, Clients::Many), 0, Aim::AtLeast(4.0)),
    goal("compare-and-swaps/s, 64 clients", Figure::Rate(Job::Swap, Clients::Many), 0, Aim::AtLeast(5.0)),
    goal("events/s to 100 watchers", Figure::Rate(Job::Watch, Clients::Many), 0, Aim::AtLeast(3.0)),
    goal("memory of a filled node, MiB", Figure::MemoryFilled, 1, Aim::AtMost(1.0 / 3.0)),
    goal("kill -9 of the leader: no write accepted for, s", Figure::KilledGap, 2, Aim::AtMost(0.5)),
    goal("SIGTERM of the leader: no write accepted for, s", Figure::TerminatedGap, 3, Aim::Under(0.05)),
    goal("a node catches up with the writes it missed, s", Figure::CatchUp, 2, Aim::AtMost(0.5)),
    goal("start of a node with the most keys, s", Figure::StartFull, 2, Aim::AtMost(0.5)),
];

pub fn table(page: &Page) -> String {
    let mut text = "## Goals\n\nIn etcd's protocol, by the same client.\n\n\
        | | Bellwether | etcd | ratio | goal | |\n|---|---:|---:|---:|---:|---|\n"
        .to_owned();
    for Goal { what, figure, decimals, aim } in &GOALS {
        let (ours, theirs) = (page.bellwether.median(*figure), page.etcd.median(*figure));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        let verdict = if aim.is_met(ours, ratio) { "met" } else { "missed" };
        let [ours, theirs] = [ours, theirs].map(|value| number(value, *decimals));
        // Writing into a string can't fail.
        let _ = writeln!(
            text,
            "| {what} | {ours} | {theirs} | {} | {} | {verdict} |",
            number(ratio, 2),
            aim.told()
        );
    }
    text.push('\n');
    text
}

impl Aim {
    /// What was not measured is not met.
    fn is_met(self, ours: Option<f64>, ratio: Option<f64>) -> bool {
        match self {
            Self::AtLeast(goal) => ratio.is_some_and(|ratio| ratio >= goal),
            Self::AtMost(goal) => ratio.is_some_and(|ratio| ratio <= goal),
            Self::Under(goal) => ours.is_some_and(|ours| ours < goal),
        }
    }

    fn told(self) -> String {
        match self {
            Self::AtLeast(goal) => format!("ratio ≥ {goal}"),
            Self::AtMost(goal) => format!("ratio ≤ {}", number(Some(goal), 2)),
            Self::Under(goal) => format!("< {goal} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::tests::page;

    #[test]
    fn goals_are_met_or_missed_and_what_was_not_measured_is_missed() {
        let mut page = page();
        page.bellwether.add(Figure::TerminatedGap, 0.02);
        page.bellwether.add(Figure::MemoryFilled, 20.0);
        page.etcd.add(Figure::MemoryFilled, 50.0);
        let text = table(&page);
        for line in [
            "| writes/s, 64 clients | 21,000 | 5,000 | 4.20 | ratio ≥ 4 | met |",
            "| writes/s, 1 client | – | – | – | ratio ≥ 2 | missed |",
            "no write accepted for, s | 0.020 | – | – | < 0.05 s | met |",
            "| memory of a filled node, MiB | 20.0 | 50.0 | 0.40 | ratio ≤ 0.33 | missed |",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
