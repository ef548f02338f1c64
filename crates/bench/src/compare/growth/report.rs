//! The page of growth, and its pictures.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::{BLUE, RED, SeriesLabelPosition};

use super::{CLIENTS, ETCD_QUOTA, Page, Stage, Step};
use crate::chart::{Chart, Line};
use crate::compare::FEW_CONNECTIONS;
use crate::number::{count, number};
use crate::probe::machine::Machine;

/// One figure of the page: the end of its picture's name, and what it is.
struct Figure {
    name: &'static str,
    title: &'static str,
    decimals: usize,
    of: fn(&Stage) -> f64,
}

const FIGURES: [Figure; 5] = [
    Figure { name: "writes", title: "Writes a second", decimals: 0, of: |stage| stage.writes_per_second },
    Figure {
        name: "reads",
        title: "Local reads a second",
        decimals: 0,
        of: |stage| stage.local_reads_per_second,
    },
    Figure { name: "memory", title: "Memory of a node, MiB", decimals: 0, of: |stage| stage.memory_mib },
    Figure { name: "disk", title: "Disk of a node, MiB", decimals: 0, of: |stage| stage.disk_mib },
    Figure { name: "start", title: "Start of a node, seconds", decimals: 2, of: |stage| stage.start_seconds },
];

/// The page, and the pictures that it shows.
pub fn write(page: &Page, out: &Path) -> Result<()> {
    let stem = out.file_stem().and_then(|stem| stem.to_str()).context("--out names no file")?;
    for figure in &FIGURES {
        let picture = out.with_file_name(format!("{stem}-{}.svg", figure.name));
        std::fs::write(&picture, figure.draw(page)?)
            .with_context(|| format!("writing {}", picture.display()))?;
    }
    std::fs::write(out, markdown(page, stem)).with_context(|| format!("writing {}", out.display()))
}

impl Figure {
    fn draw(&self, page: &Page) -> Result<String> {
        let line = |name, color, stages: &[Stage]| {
            let points = page.plan.steps.iter().zip(stages);
            let point = |(step, stage): (&Step, &Stage)| (step.revisions as f64, (self.of)(stage));
            Line { name, color, points: points.map(point).collect() }
        };
        let lines = [line("Bellwether", BLUE, &page.bellwether), line("etcd", RED, &page.etcd)];
        let end = |step: Option<&Step>| step.map_or(1.0, |step| step.revisions as f64);
        let (first, last) = (end(page.plan.steps.first()), end(page.plan.steps.last()));
        // One size alone makes no axis.
        let range = first..last.max(first * 2.0);
        let legend = SeriesLabelPosition::MiddleLeft;
        Chart { title: self.title, along: "revisions", range, legend }.draw(&lines)
    }

    fn table(&self, page: &Page, stem: &str) -> String {
        let mut text = format!(
            "## {title}\n\n![{title}, by revisions]({stem}-{}.svg)\n\n\
            | keys | revisions | Bellwether | etcd | ratio |\n|---:|---:|---:|---:|---:|\n",
            self.name,
            title = self.title,
        );
        for (at, step) in page.plan.steps.iter().enumerate() {
            let [ours, theirs] = [&page.bellwether, &page.etcd].map(|stages| stages.get(at).map(self.of));
            let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
            let [ours, theirs] = [ours, theirs].map(|value| number(value, self.decimals));
            let (keys, revisions, ratio) = (count(step.keys), count(step.revisions), number(ratio, 2));
            // Writing into a string can't fail.
            let _ = writeln!(text, "| {keys} | {revisions} | {ours} | {theirs} | {ratio} |");
        }
        text.push('\n');
        text
    }
}

fn markdown(page: &Page, stem: &str) -> String {
    let tables: String = FIGURES.iter().map(|figure| figure.table(page, stem)).collect();
    introduction(page) + &tables + &method(page)
}

fn introduction(page: &Page) -> String {
    let Machine { cores, memory_gib, kernel } = &page.machine;
    let (command, quick) = match page.plan.quick {
        true => (
            "bench/compare --growth --quick",
            "**A quick run: it shows that everything works, not what it costs.**\n\n",
        ),
        false => ("bench/compare --growth", ""),
    };
    format!(
        "# As the data grows\n\n\
        <!-- Written by bench/compare --growth; don't edit. -->\n\n\
        Three nodes of Bellwether beside three of etcd 3.5.1, filled step by step. What counts is the ratio, \
        and how a figure changes from one size to the next. [The other figures](benchmarks.md).\n\n\
        {quick}```console\n$ {command}\n```\n\n\
        Measured on {cores} cores, {memory_gib} GiB of memory, Linux {kernel}.\n\n"
    )
}

fn method(page: &Page) -> String {
    format!(
        "## How it is measured\n\n\
        - One cluster of each, one after the other, both in etcd's protocol, {CLIENTS} closed-loop clients on \
        {FEW_CONNECTIONS} connections, values of {value} bytes. Each size is taken once; rates are over \
        {window} s.\n\
        - Keys are written in turn. Above the largest number of keys, more revisions are more versions of the \
        same keys. A size is what a store has at least: the writes measured at the size before are in it, too.\n\
        - Both keep all history. etcd refuses writes above its quota, 2 GiB by default, so it runs with \
        `{ETCD_QUOTA}`. Bellwether has no quota, but compacts: it runs with `HISTORY_REVISIONS=0` and \
        `HISTORY_AGE_MS=0` instead of the last 5,000,000 revisions for an hour. All else is default.\n\
        - Memory is `VmRSS` and disk what the files of the data directory take, made ahead or not, of the node \
        that takes most, some seconds after the last write of the size.\n\
        - A follower is stopped in peace and started again. It has started when a local read there shows a \
        write that it missed.\n",
        value = page.plan.value_bytes,
        window = page.plan.window.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::*;

    fn stage(rate: f64) -> Stage {
        Stage {
            revisions: 1,
            writes_per_second: rate,
            local_reads_per_second: 2.0 * rate,
            memory_mib: 30.0,
            disk_mib: 64.0,
            start_seconds: 0.25,
        }
    }

    fn page() -> Page {
        Page {
            plan: Plan::new(false, &[10_000, 10_000_000]),
            machine: Machine { cores: 2, memory_gib: 4, kernel: "6.1.0".into() },
            bellwether: vec![stage(20_000.0), stage(18_000.0)],
            etcd: vec![stage(5_000.0)],
        }
    }

    #[test]
    fn each_size_has_a_line_and_what_is_missing_a_dash() {
        let text = markdown(&page(), "page");
        for line in [
            "| 10,000 | 10,000 | 20,000 | 5,000 | 4.00 |",
            "| 1,000,000 | 10,000,000 | 18,000 | – | – |",
            "| 10,000 | 10,000 | 0.25 | 0.25 | 1.00 |",
            "](page-start.svg)",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn one_size_can_be_drawn_too() {
        let one = Page { plan: Plan::new(true, &[1_000]), ..page() };
        for (page, label) in [(page(), "10,000,000"), (one, "1,000")] {
            for figure in &FIGURES {
                let svg = figure.draw(&page).expect("draws");
                assert!(svg.contains("Bellwether") && svg.contains(label), "{}: {svg}", figure.name);
            }
        }
    }
}
