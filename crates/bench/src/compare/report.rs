//! The page: both systems' medians, their ratio, and how far the goals are.

use std::fmt::Write;

use serde::Serialize;

use super::plots::PLOTS;
use super::samples::{Clients, Figure, Job, Samples, Way};
use super::{Plan, goals};
use crate::cluster::NODES;
use crate::number::{count, number};
use crate::probe::machine::Machine;

/// All that the page shows.
#[derive(Debug, Serialize)]
pub struct Page {
    pub quick: bool,
    pub plan: Plan,
    pub machine: Machine,
    pub disk: Samples,
    /// In etcd's protocol, and what no protocol matters for.
    pub bellwether: Samples,
    pub http: Samples,
    pub etcd: Samples,
}

/// One line of a table.
struct Row {
    name: String,
    figure: Figure,
    decimals: usize,
}

fn row(name: impl Into<String>, figure: Figure, decimals: usize) -> Row {
    Row { name: name.into(), figure, decimals }
}

/// The jobs of the tables, and for how many clients each was measured.
const JOBS: [(Job, &str, &[Clients]); 6] = [
    (Job::Put, "Writes", &Clients::ALL),
    (Job::LocalGet, "Local reads", &[Clients::One, Clients::Many]),
    (Job::Get, "Linearizable reads", &[Clients::Many]),
    (Job::Mixed, "9 linearizable reads to 1 write", &[Clients::Many]),
    (Job::Swap, "Compare-and-swaps", &[Clients::Many]),
    (Job::Watch, "Events to 100 watchers of writes", &[Clients::Many]),
];

/// `stem` is what the names of the pictures begin with; none without pictures.
pub fn markdown(page: &Page, stem: Option<&str>) -> String {
    let sections = [
        introduction(page),
        goals::table(page),
        stem.map(pictures).unwrap_or_default(),
        table(page, "Throughput, operations a second", &by_job(Figure::Rate, 0)),
        ways(page),
        table(
            page,
            "Processor seconds per 1,000 operations, summed over the three servers",
            &by_job(Figure::ServerCpu, 3),
        ),
        table(page, "Latency seen by a client, milliseconds", &latencies()),
        limits(page),
        table(page, "The rest", &rest(page)),
        method(page),
    ];
    sections.concat()
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
        synced to disk. One client speaks etcd's protocol to both, and Bellwether's HTTP besides. Machines \
        differ: what counts is the ratio, taken in one run. [How to load a cluster of your own](bench.md).\n\
        {quick}\n```console\n$ {command}\n```\n\n\
        Measured on {cores} cores, {memory_gib} GiB of memory, Linux {kernel}. The disk takes {one} \
        `fdatasync`/s from one writer and {three} from three at once.\n\n"
    )
}

fn pictures(stem: &str) -> String {
    let mut text = String::new();
    for plot in &PLOTS {
        // Writing into a string can't fail.
        let _ = writeln!(text, "![{}]({stem}-{}.svg)\n", plot.title, plot.name);
    }
    text
}

fn by_job(figure: fn(Job, Clients) -> Figure, decimals: usize) -> Vec<Row> {
    let of = |(job, name, clients): (Job, &'static str, &'static [Clients])| {
        clients.iter().map(move |clients| {
            let plural = if clients.count() == 1 { "client" } else { "clients" };
            row(format!("{name}, {} {plural}", clients.count()), figure(job, *clients), decimals)
        })
    };
    JOBS.into_iter().flat_map(of).collect()
}

/// Both ways in which the clients of writes were connected. The faster one of each is what
/// the other tables show.
fn ways(page: &Page) -> String {
    let name = |clients: Clients, way| match way {
        Way::Own => format!("{} clients, one connection each", clients.count()),
        Way::Shared => format!("{} clients, {} shared connections", clients.count(), super::FEW_CONNECTIONS),
    };
    let pairs = [Clients::Many, Clients::Most].into_iter().flat_map(|c| [(c, Way::Own), (c, Way::Shared)]);
    let rows: Vec<Row> =
        pairs.map(|(clients, way)| row(name(clients, way), Figure::PutsByWay(clients, way), 0)).collect();
    table(page, "Writes by how clients are connected, operations a second", &rows)
}

fn latencies() -> Vec<Row> {
    let named = |rows: Vec<Row>, what: &str| {
        rows.into_iter().map(|row| Row { name: format!("{}: {what}", row.name), ..row }).collect::<Vec<_>>()
    };
    let (p50, p99) = (named(by_job(Figure::P50, 2), "p50"), named(by_job(Figure::P99, 2), "p99"));
    p50.into_iter().zip(p99).flat_map(|(p50, p99)| [p50, p99]).collect()
}

/// What the hardware allows, and how much of it is used.
fn limits(page: &Page) -> String {
    let floor = |samples: &Samples| {
        let trip = samples.median(Figure::P50(Job::LocalGet, Clients::One))?;
        let floor = page.disk.median(Figure::SyncTime)? + trip;
        Some(samples.median(Figure::P50(Job::Put, Clients::One))? / floor)
    };
    let [ours, http, theirs] = [&page.bellwether, &page.http, &page.etcd].map(|s| number(floor(s), 2));
    let mut rows = Vec::new();
    for clients in Clients::ALL {
        let name = |what| format!("{what}, clients: {}", clients.count());
        rows.push(row(name("log syncs per write"), Figure::SyncsPerWrite(clients), 3));
        let bytes = name("bytes to disk per byte of key and value");
        rows.push(row(bytes, Figure::DiskBytesPerByte(clients), 2));
    }
    format!(
        "{}At one client a write can't be faster than one `fdatasync` of the disk and one round trip of a \
        local read. Its median takes {ours} times that in etcd's protocol, {http} times over HTTP, and \
        {theirs} times with etcd.\n\n",
        table(page, "Towards the limit, an average node", &rows)
    )
}

fn rest(page: &Page) -> Vec<Row> {
    let Plan { keys, missed, most_keys, .. } = page.plan;
    let (keys, missed, most) = (count(keys), count(missed), count(most_keys));
    vec![
        row("kill -9 of the leader: longest time without an accepted write, s", Figure::KilledGap, 3),
        row("SIGTERM of the leader: the same, s", Figure::TerminatedGap, 3),
        row("SIGSTOP of the leader: the same, s", Figure::PausedGap, 3),
        row(
            format!("a node with {keys} keys that missed {missed} writes has them after, s"),
            Figure::CatchUp,
            2,
        ),
        row(format!("a node with {most} keys starts in, s"), Figure::StartFull, 2),
        row("start of three servers to the first accepted write, s", Figure::StartToWrite, 2),
        row("`bellwether up` to the first accepted write, s", Figure::UpToWrite, 2),
        row("memory of one idle node (the largest), MiB", Figure::MemoryIdle, 1),
        row(format!("memory of one node with {keys} keys, MiB"), Figure::MemoryFilled, 1),
        row("the same after all of these reads, writes and watches, MiB", Figure::MemoryLoaded, 1),
        row("processor use of three idle nodes, cores", Figure::IdleCpu, 3),
        row("the load generator's own, s per 1,000 writes, 64 clients", CLIENT_CPU, 3),
    ]
}

const CLIENT_CPU: Figure = Figure::ClientCpu(Job::Put, Clients::Many);

fn table(page: &Page, title: &str, rows: &[Row]) -> String {
    let mut text =
        format!("## {title}\n\n| | Bellwether | etcd | ratio | over HTTP |\n|---|---:|---:|---:|---:|\n");
    for Row { name, figure, decimals } in rows {
        let (ours, theirs) = (page.bellwether.median(*figure), page.etcd.median(*figure));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        let [ours, theirs, http] =
            [ours, theirs, page.http.median(*figure)].map(|value| number(value, *decimals));
        // Writing into a string can't fail.
        let _ = writeln!(text, "| {name} | {ours} | {theirs} | {} | {http} |", number(ratio, 2));
    }
    text.push('\n');
    text
}

fn method(page: &Page) -> String {
    let spread = |samples: &Samples| {
        let rates = by_job(Figure::Rate, 0).into_iter().filter_map(|row| samples.spread(row.figure));
        number(rates.max_by(f64::total_cmp).map(|spread| spread * 100.0), 0)
    };
    let worst = |samples: &Samples| number(samples.max(Figure::KilledGap), 2);
    format!(
        "## How it is measured\n\n\
        - Rounds: {rounds}, each on empty clusters with default settings. Both systems' run at the same time, and \
        one idles while the other is loaded, for windows of {window} s by turns after a warm-up; medians over \
        the rounds. Between its lowest and highest round a throughput \
        differed by up to {ours_spread}% (Bellwether) and {theirs_spread}% (etcd).\n\
        - One closed-loop generator for all: a client sends, waits for the answer, sends again. Values of \
        {value} bytes, keys drawn evenly from {keys}. It shares the cores with the servers.\n\
        - In etcd's protocol {few} connections for all clients, over HTTP one HTTP/1.1 connection a client \
        with JSON values. Writes by many clients in both ways (shared connections speak HTTP/2), and the \
        faster one of each counts.\n\
        - Writes, swaps and the mix go to the leader, reads and watches to all nodes. A write is acknowledged \
        when a majority has it on disk (both systems' default). Lost swaps are not counted.\n\
        - Processor time is user and system time from `/proc/<pid>/stat`, memory `VmRSS`, bytes to disk \
        `write_bytes` of `/proc/<pid>/io`; syncs of the log are what `/metrics` of each system counts (its \
        syncs of tables are not among them).\n\
        - Around the end of a leader the other nodes are sent a write every 5 ms; the figure is the longest time \
        between two accepted ones. Leaders killed of each: {outages}; the worst took {ours_worst} s \
        (Bellwether) and {theirs_worst} s (etcd).\n\
        - A node has caught up, or started, when a local read there shows the last write before its start: in \
        other clusters, which have no more behind them than the keys they were filled with and the writes that \
        were missed. The start with the most keys is measured once.\n\
        - The disk's `fdatasync`/s are of 512 bytes each into a file made before; {nodes} nodes share it.\n",
        rounds = page.plan.rounds,
        window = page.plan.window.as_secs_f64(),
        value = page.plan.value_bytes,
        keys = count(page.plan.keys),
        few = super::FEW_CONNECTIONS,
        ours_spread = spread(&page.bellwether),
        theirs_spread = spread(&page.etcd),
        outages = page.bellwether.of(Figure::KilledGap).len(),
        ours_worst = worst(&page.bellwether),
        theirs_worst = worst(&page.etcd),
        nodes = NODES,
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of a run that measured next to nothing.
    pub fn page() -> Page {
        let mut page = Page {
            quick: false,
            plan: Plan::full(),
            machine: Machine { cores: 2, memory_gib: 4, kernel: "6.1.0".into() },
            disk: Samples::default(),
            bellwether: Samples::default(),
            http: Samples::default(),
            etcd: Samples::default(),
        };
        let rate = Figure::Rate(Job::Put, Clients::Many);
        page.bellwether.add(rate, 21_000.0);
        page.http.add(rate, 25_000.0);
        page.etcd.add(rate, 5_000.0);
        page
    }

    #[test]
    fn each_way_is_compared_with_the_same_way() {
        let mut page = page();
        for (samples, factor) in [(&mut page.bellwether, 2.0), (&mut page.etcd, 1.0)] {
            samples.add(Figure::PutsByWay(Clients::Many, Way::Own), 2_000.0 * factor);
            samples.add(Figure::PutsByWay(Clients::Many, Way::Shared), 3_000.0 * factor);
        }
        let text = markdown(&page, None);
        assert!(text.contains("| 64 clients, one connection each | 4,000 | 2,000 | 2.00 | – |"), "{text}");
        assert!(text.contains("| 64 clients, 3 shared connections | 6,000 | 3,000 | 2.00 | – |"), "{text}");
    }

    #[test]
    fn rows_have_medians_and_ratios() {
        let text = markdown(&page(), Some("page"));
        assert!(text.contains("| Writes, 64 clients | 21,000 | 5,000 | 4.20 | 25,000 |"), "{text}");
        assert!(text.contains("| Writes, 1 client | – | – | – | – |"), "{text}");
        assert!(text.contains("](page-writes.svg)"), "{text}");
    }

    #[test]
    fn the_floor_of_a_write_is_a_sync_and_a_round_trip() {
        let mut page = page();
        page.disk.add(Figure::SyncTime, 0.1);
        page.etcd.add(Figure::P50(Job::LocalGet, Clients::One), 0.3);
        page.etcd.add(Figure::P50(Job::Put, Clients::One), 1.0);
        let text = markdown(&page, None);
        assert!(text.contains("2.50 times with etcd"), "{text}");
    }
}
