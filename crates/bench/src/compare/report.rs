//! The page: both systems' medians, their ratio, and how far the targets are.

use std::fmt::Write;

use serde::Serialize;

use super::samples::{Clients, Figure, Job, Samples};
use crate::probe::machine::Machine;

/// All that the page shows.
#[derive(Debug, Serialize)]
pub struct Page {
    pub quick: bool,
    pub keys: u64,
    pub rounds: usize,
    pub window_seconds: f64,
    pub machine: Machine,
    pub disk: Samples,
    pub bellwether: Samples,
    pub etcd: Samples,
}

/// One line of the table.
struct Row {
    name: String,
    figure: Figure,
    decimals: usize,
}

fn row(name: impl Into<String>, figure: Figure, decimals: usize) -> Row {
    Row { name: name.into(), figure, decimals }
}

/// The workloads of the tables, and for how many clients each was measured.
const WORKLOADS: [(Job, &str, &[Clients]); 4] = [
    (Job::Put, "Writes", &Clients::ALL),
    (Job::LocalGet, "Local reads", &[Clients::Many]),
    (Job::Get, "Linearizable reads", &[Clients::Many]),
    (Job::Mixed, "9 linearizable reads to 1 write", &[Clients::Many]),
];

pub fn markdown(page: &Page) -> String {
    let mut text = String::new();
    let sections = [
        introduction(page),
        targets(page),
        table(page, "Throughput, operations a second", &rates()),
        table(page, "Processor seconds per 1,000 operations, summed over the three servers", &costs()),
        table(page, "Latency seen by a client, milliseconds", &latencies()),
        ways(page),
        table(page, "The rest", &rest(page)),
        method(page),
    ];
    for section in sections {
        text.push_str(&section);
    }
    text
}

fn introduction(page: &Page) -> String {
    let Machine { cores, memory_gib, kernel } = &page.machine;
    let disk = |figure| number(page.disk.median(figure), 0);
    let (one, three) = (disk(Figure::SyncsByOne), disk(Figure::SyncsByThree));
    let quick = match page.quick {
        true => "\n**A quick run: it shows that everything works, not how fast it is.**\n",
        false => "",
    };
    let command = if page.quick { "bench/compare --quick" } else { "bench/compare" };
    format!(
        "# Benchmarks\n\n\
        <!-- Written by bench/compare; don't edit. -->\n\n\
        Three nodes of Bellwether beside three of etcd 3.5.1, the client on the same machine, everything \
        synced to disk. Machines differ: what counts is the ratio, taken in one run.\n{quick}\n\
        ```console\n$ {command}\n```\n\n\
        Measured on {cores} cores, {memory_gib} GiB of memory, Linux {kernel}. The disk takes {one} \
        `fdatasync`/s from one writer and {three} from three at once.\n\n"
    )
}

fn rates() -> Vec<Row> {
    by_workload(Figure::Rate, 0)
}

fn costs() -> Vec<Row> {
    by_workload(Figure::ServerCpu, 3)
}

fn by_workload(figure: fn(Job, Clients) -> Figure, decimals: usize) -> Vec<Row> {
    let of = |(workload, name, clients): (Job, &'static str, &'static [Clients])| {
        clients.iter().map(move |clients| {
            let plural = if clients.count() == 1 { "client" } else { "clients" };
            row(format!("{name}, {} {plural}", clients.count()), figure(workload, *clients), decimals)
        })
    };
    WORKLOADS.into_iter().flat_map(of).collect()
}

/// Ours by way: one connection a client, and shared ones; etcd's the other way round.
const OURS: [usize; 2] = [0, 1];
const THEIRS: [usize; 2] = [1, 0];

/// Both ways in which the clients of writes were connected. The faster one of each system
/// is what the other tables show.
fn ways(page: &Page) -> String {
    let mut text = "## Writes by how clients are connected, operations a second\n\n\
        | | Bellwether | etcd | ratio |\n|---|---:|---:|---:|\n"
        .to_owned();
    let names =
        ["one connection a client".to_owned(), format!("{} shared connections", super::FEW_CONNECTIONS)];
    for clients in [Clients::Many, Clients::Most] {
        for (name, (ours, theirs)) in names.iter().zip(OURS.into_iter().zip(THEIRS)) {
            let ours = page.bellwether.median(Figure::PutsByWay(clients, ours));
            let theirs = page.etcd.median(Figure::PutsByWay(clients, theirs));
            let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
            let [ours, theirs] = [ours, theirs].map(|value| number(value, 0));
            let count = clients.count();
            let _ = writeln!(text, "| {count} clients, {name} | {ours} | {theirs} | {} |", number(ratio, 2));
        }
    }
    text.push('\n');
    text
}

fn latencies() -> Vec<Row> {
    let named = |rows: Vec<Row>, what: &str| {
        rows.into_iter().map(|row| Row { name: format!("{}: {what}", row.name), ..row }).collect::<Vec<_>>()
    };
    let (p50, p99) = (named(by_workload(Figure::P50, 2), "p50"), named(by_workload(Figure::P99, 2), "p99"));
    p50.into_iter().zip(p99).flat_map(|(p50, p99)| [p50, p99]).collect()
}

fn rest(page: &Page) -> Vec<Row> {
    let keys = number(Some(page.keys as f64), 0);
    vec![
        row("kill -9 of the leader to the next accepted write, s", Figure::Failover, 2),
        row("start of three servers to the first accepted write, s", Figure::StartToWrite, 2),
        row("`bellwether up` to the first accepted write, s", Figure::UpToWrite, 2),
        row("memory of one idle node (the largest), MiB", Figure::MemoryIdle, 1),
        row(format!("memory of one node with {keys} keys, MiB"), Figure::MemoryFilled, 1),
        row("processor use of three idle nodes, cores", Figure::IdleCpu, 3),
        row("the load generator's own, s per 1,000 writes, 64 clients", CLIENT_CPU, 3),
    ]
}

const CLIENT_CPU: Figure = Figure::ClientCpu(Job::Put, Clients::Many);

fn table(page: &Page, title: &str, rows: &[Row]) -> String {
    let mut text = format!("## {title}\n\n| | Bellwether | etcd | ratio |\n|---|---:|---:|---:|\n");
    for Row { name, figure, decimals } in rows {
        let (ours, theirs) = (page.bellwether.median(*figure), page.etcd.median(*figure));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        let [ours, theirs] = [ours, theirs].map(|value| number(value, *decimals));
        // Writing into a string can't fail.
        let _ = writeln!(text, "| {name} | {ours} | {theirs} | {} |", number(ratio, 2));
    }
    text.push('\n');
    text
}

/// With a comma between thousands; a dash for what was not measured.
fn number(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "–".to_owned() };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// What the project set out to reach.
struct Goal {
    what: &'static str,
    goal: String,
    reached: Option<f64>,
    decimals: usize,
    met: bool,
}

fn targets(page: &Page) -> String {
    let ratio = |figure| Some(page.bellwether.median(figure)? / page.etcd.median(figure)?);
    let own = |figure| page.bellwether.median(figure);
    let many = |figure: fn(Job, Clients) -> Figure| ratio(figure(Job::Put, Clients::Many));
    let one = ratio(Figure::Rate(Job::Put, Clients::One));
    let goals = [
        at_least("writes/s over etcd's, 64 clients", 3.5, many(Figure::Rate)),
        at_most("processor time per write over etcd's, 64 clients", 0.30, many(Figure::ServerCpu)),
        at_least("writes/s over etcd's, 1 client", 2.0, one),
        at_most("kill -9 of the leader to the next accepted write, median, s", 0.7, own(Figure::Failover)),
        at_most("memory of an idle node, MiB", 25.0, own(Figure::MemoryIdle)),
        at_most("`bellwether up` to the first accepted write, s", 2.0, own(Figure::UpToWrite)),
    ];
    let mut text = "## Goals\n\n| | goal | reached | |\n|---|---:|---:|---|\n".to_owned();
    for Goal { what, goal, reached, decimals, met } in goals {
        let verdict = if met { "met" } else { "missed" };
        let _ = writeln!(text, "| {what} | {goal} | {} | {verdict} |", number(reached, decimals));
    }
    text.push('\n');
    text
}

fn at_least(what: &'static str, goal: f64, reached: Option<f64>) -> Goal {
    Goal { what, goal: format!("≥ {goal}"), reached, decimals: 2, met: reached.is_some_and(|r| r >= goal) }
}

fn at_most(what: &'static str, goal: f64, reached: Option<f64>) -> Goal {
    Goal { what, goal: format!("≤ {goal}"), reached, decimals: 2, met: reached.is_some_and(|r| r <= goal) }
}

fn method(page: &Page) -> String {
    let spread = |samples: &Samples| {
        let rates = by_workload(Figure::Rate, 0).into_iter().filter_map(|row| samples.spread(row.figure));
        number(rates.max_by(f64::total_cmp).map(|spread| spread * 100.0), 0)
    };
    let worst = |samples: &Samples| number(samples.max(Figure::Failover), 2);
    let per_sync = page
        .bellwether
        .median(Figure::Rate(Job::Put, Clients::One))
        .zip(page.disk.median(Figure::SyncsByOne));
    let per_sync = number(per_sync.map(|(writes, syncs)| writes / syncs), 2);
    format!(
        "## How it is measured\n\n\
        - {rounds} rounds of each system by turns, each on an empty cluster with default settings; windows of \
        {window} s after a warm-up; medians over the rounds. Between its lowest and highest round a throughput \
        differed by up to {ours_spread}% (Bellwether) and {theirs_spread}% (etcd).\n\
        - One closed-loop generator for both: a client sends, waits for the answer, sends again. Values of 256 \
        bytes, keys drawn evenly from {keys}. It shares the cores with the servers.\n\
        - Bellwether over HTTP with JSON values, one HTTP/1.1 connection a client; etcd over gRPC, \
        {few} connections for all clients. Writes by many clients in both ways for both systems (Bellwether's \
        shared connections speak HTTP/2), and the faster one of each counts.\n\
        - Writes and the mix go to the leader, reads to all nodes. A write is acknowledged when a majority \
        has it on disk (both systems' default).\n\
        - Processor time is user and system time from `/proc/<pid>/stat`, memory `VmRSS`.\n\
        - After a kill all survivors are asked for a write, again 5 ms after each refusal. {kills} kills of \
        each; the worst took {ours_worst} s (Bellwether) and {theirs_worst} s (etcd).\n\
        - The disk's `fdatasync`/s are of 512 bytes each into a file made before. One Bellwether client \
        gets {per_sync} writes for each of one writer's syncs.\n",
        rounds = page.rounds,
        window = page.window_seconds,
        keys = number(Some(page.keys as f64), 0),
        few = super::FEW_CONNECTIONS,
        ours_spread = spread(&page.bellwether),
        theirs_spread = spread(&page.etcd),
        kills = page.bellwether.of(Figure::Failover).len(),
        ours_worst = worst(&page.bellwether),
        theirs_worst = worst(&page.etcd),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_compared_with_the_same_way() {
        let mut page = page();
        for (samples, own, shared) in [(&mut page.bellwether, 0, 1), (&mut page.etcd, 1, 0)] {
            samples.add(Figure::PutsByWay(Clients::Many, own), 2_000.0);
            samples.add(Figure::PutsByWay(Clients::Many, shared), 3_000.0);
        }
        let text = markdown(&page);
        assert!(text.contains("| 64 clients, one connection a client | 2,000 | 2,000 | 1.00 |"), "{text}");
        assert!(text.contains("| 64 clients, 3 shared connections | 3,000 | 3,000 | 1.00 |"), "{text}");
    }

    fn page() -> Page {
        let mut page = Page {
            quick: false,
            keys: 100_000,
            rounds: 1,
            window_seconds: 8.0,
            machine: Machine { cores: 2, memory_gib: 4, kernel: "6.1.0".into() },
            disk: Samples::default(),
            bellwether: Samples::default(),
            etcd: Samples::default(),
        };
        let rate = Figure::Rate(Job::Put, Clients::Many);
        page.bellwether.add(rate, 21_000.0);
        page.etcd.add(rate, 5_000.0);
        page.bellwether.add(Figure::Failover, 0.9);
        page
    }

    #[test]
    fn rows_have_medians_and_ratios() {
        let text = markdown(&page());
        assert!(text.contains("| Writes, 64 clients | 21,000 | 5,000 | 4.20 |"), "{text}");
        assert!(text.contains("| Writes, 1 client | – | – | – |"), "{text}");
    }

    #[test]
    fn goals_are_met_or_missed_and_what_was_not_measured_is_missed() {
        let text = markdown(&page());
        assert!(text.contains("64 clients | ≥ 3.5 | 4.20 | met |"), "{text}");
        assert!(text.contains("median, s | ≤ 0.7 | 0.90 | missed |"), "{text}");
        assert!(text.contains("1 client | ≥ 2 | – | missed |"), "{text}");
    }

    #[test]
    fn thousands_are_grouped() {
        let cases = [(0.0, 0, "0"), (999.0, 0, "999"), (1000.0, 0, "1,000"), (1234567.25, 2, "1,234,567.25")];
        for (value, decimals, expected) in cases {
            assert_eq!(number(Some(value), decimals), expected);
        }
    }
}
