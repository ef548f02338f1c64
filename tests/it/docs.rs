//! The commands in README.md and docs/, run as their reader would run them.
//!
//! A block fenced as `console` is run: each line that begins with `$ ` in a shell beside
//! a running `bellwether up`, and what it prints must match the lines that follow, where
//! `...` stands for anything. A block fenced as `sh` is only shown.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{PATIENCE, claim_port, eventually};

/// The port in the texts of the first node of `up`.
const FIRST_PORT: u16 = 4001;
const NODES: u16 = 3;
/// Leaders change when the texts kill one, not because the machine is busy.
const PATIENT_NODES: [&str; 3] = ["--", "--heartbeat-ms=100", "--election-timeout-ms=1000"];
/// Searches for three free ports in a row.
const PORT_ATTEMPTS: usize = 100;

/// One command and what it must print.
struct Step {
    /// Where it stands, for whoever has to mend it.
    place: String,
    command: String,
    expected: Vec<String>,
}

/// All steps of one page, in their order.
fn steps(page: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(path).expect("a page of the repository");
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            let place = format!("{page}:{number}");
            steps.push(Step { place, command: command.to_owned(), expected: Vec::new() });
        } else if let (true, Some(step)) = (inside, steps.last_mut()) {
            step.expected.push(line.to_owned());
        }
    }
    assert!(!steps.is_empty(), "{page} shows nothing to run");
    steps
}

/// Whether `text` is `pattern`, in which `...` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, last)) = pattern.rsplit_once("...") else { return pattern == text };
    let mut parts = before.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A `bellwether up` in a directory of its own, stopped when it is dropped.
struct Up {
    process: Child,
    first_port: u16,
    dir: TempDir,
}

impl Up {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first_port = free_ports_in_a_row();
        let log = File::create(dir.path().join("up.log")).expect("a file in the test's own directory");
        let process = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            // The texts hold under every policy; this one can be made to begin with node-1.
            .args(["up", "--election", "lowest-id", "--port", &first_port.to_string()])
            .args(PATIENT_NODES)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a second handle"))
            .stdout(log)
            .spawn()
            .expect("the binary under test starts");
        let up = Self { process, first_port, dir };
        eventually(PATIENCE, || async {
            let table = up.run("bellwether status").unwrap_or_else(|why| why);
            let ready = table.lines().filter(|line| line.ends_with(" yes")).count() == usize::from(NODES);
            if ready { Ok(()) } else { Err(format!("{table}\n{}", up.log())) }
        })
        .await;
        up.make_node_1_lead().await;
        up
    }

    /// As a new cluster does, unless the machine is so busy that another one is faster.
    async fn make_node_1_lead(&self) {
        eventually(PATIENCE, || async {
            let table = self.run("bellwether status")?;
            let leads = |line: &&str| line.split_whitespace().nth(1) == Some("leader");
            let leader = table.lines().find(leads).and_then(|line| line.split_whitespace().next());
            match leader {
                Some("node-1") => Ok(()),
                None => Err(table),
                // It hands over to the lowest name.
                Some(other) => Err(self.run(&format!("bellwether node restart {other}"))?),
            }
        })
        .await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default()
    }

    /// What a shell in this directory prints; the texts' ports are ours.
    fn run(&self, command: &str) -> Result<String, String> {
        let ports = (0..NODES).map(|i| (FIRST_PORT + i, self.first_port + i));
        let command = ports.clone().fold(command.to_owned(), |command, (theirs, ours)| {
            command.replace(&format!("localhost:{theirs}"), &format!("localhost:{ours}"))
        });
        let urls: Vec<String> = ports.map(|(_, ours)| format!("http://127.0.0.1:{ours}")).collect();
        let binaries = Path::new(env!("CARGO_BIN_EXE_bellwether")).parent().expect("a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", binaries.display()))
            .env("BELLWETHER_ENDPOINT", urls.join(","))
            .output()
            .expect("a shell starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn check(&self, step: &Step) -> Result<(), String> {
        let printed = self.run(&step.command)?;
        let lines: Vec<&str> = printed.trim_end().lines().collect();
        let alike = step.expected.len() == lines.len()
            && step.expected.iter().zip(&lines).all(|(pattern, line)| matches(pattern, line));
        if alike || step.expected.is_empty() { Ok(()) } else { Err(format!("printed {printed}")) }
    }
}

impl Drop for Up {
    /// As Ctrl-C does: it stops its nodes before it ends.
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = kill_process(Pid::from_child(&self.process), Signal::INT);
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- bellwether up\n{}", self.log());
        }
    }
}

/// `up` numbers its ports; all are looked at, as it will look at them itself.
fn free_ports_in_a_row() -> u16 {
    let bind = |port| TcpListener::bind(("127.0.0.1", port));
    for _ in 0..PORT_ATTEMPTS {
        let listener = bind(0).expect("a free port");
        let first = listener.local_addr().expect("a bound listener has an address").port();
        let free = first < u16::MAX - NODES && (1..NODES).all(|i| bind(first + i).is_ok());
        if free && (0..NODES).all(|i| claim_port(first + i)) {
            return first;
        }
    }
    panic!("no {NODES} free ports in a row");
}

/// Reads may be early: followers apply and notice leaders a moment later. A load does no harm
/// twice, and ends with an error where a busy machine changes the leader under it.
fn may_be_repeated(command: &str) -> bool {
    let harmless = ["bellwether status", "bellwether get", "bellwether bench", "curl "];
    harmless.iter().any(|start| command.starts_with(start)) && !command.contains(" -X ")
}

/// Each page has a cluster and a load of its own: enough for two processors at a time.
static ONE_PAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn run_page(page: &str) {
    let _turn = ONE_PAGE.lock().await;
    let up = Up::start().await;
    for step in steps(page) {
        let told = |why: String| format!("{}: {}\n{why}", step.place, step.command);
        if may_be_repeated(&step.command) {
            eventually(PATIENCE, || async { up.check(&step).map_err(told) }).await;
        } else if let Err(why) = up.check(&step) {
            panic!("{}", told(why));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_s_walk() {
    run_page("README.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_s_commands() {
    run_page("docs/operations.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_s_commands() {
    run_page("docs/bench.md").await;
}

#[test]
fn patterns() {
    let alike = [("a...c", "abc"), ("a...", "abc"), ("...", ""), ("a", "a"), ("a...b...b", "acbcbab")];
    assert!(alike.iter().all(|(pattern, text)| matches(pattern, text)));
    let other = [("a", "ab"), ("a...d", "abc"), ("b...", "abc"), ("a...b...b", "ab"), ("a...a", "a")];
    assert!(!other.iter().any(|(pattern, text)| matches(pattern, text)));
}

/// Every link between pages leads to a file.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for page in pages(root) {
        let text = std::fs::read_to_string(&page).expect("a readable page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let local = !file.is_empty() && !file.contains("://");
            if local && !page.parent().expect("a directory").join(file).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// The tests that the tables of these pages name, in their second column, exist.
#[test]
fn guarantees_name_real_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests", "crates"] {
        rust_files(&root.join(dir), &mut files);
    }
    let sources: String =
        files.iter().map(|file| std::fs::read_to_string(file).expect("sources are text")).collect();
    for page in ["docs/guarantees.md", "docs/reliability.md"] {
        let text = std::fs::read_to_string(root.join(page)).expect("the page is there");
        let held_by = text.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
        // Every second piece between backticks is inside of them; only tests are named there in
        // words joined by underscores.
        let names = held_by.flat_map(|names| names.split('`').skip(1).step_by(2));
        let tests: Vec<&str> = names.filter(|name| name.contains('_') && !name.contains('/')).collect();
        assert!(tests.len() > 30, "the tables of {page} were not understood: {tests:?}");
        let missing: Vec<&&str> =
            tests.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{page} names tests that are gone: {missing:?}");
    }
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory of the repository") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for dir in [root.to_owned(), root.join("docs"), root.join("docs/adr")] {
        let entries = std::fs::read_dir(dir).expect("a directory of the repository");
        let paths = entries.map(|entry| entry.expect("a readable entry").path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    pages
}
