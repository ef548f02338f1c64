//! A cluster of real processes on this machine, gone when it is dropped.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Failure, Reply, Request};
use super::process::{Process, tail};
use super::{PATIENCE, eventually};

/// Starts of one node whose port somebody took between our look and its bind.
const PORT_ATTEMPTS: usize = 5;

struct Node {
    name: String,
    port: u16,
    process: Mutex<Option<Process>>,
}

/// Nodes are numbered from 0; `node-1` is number 0.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Settings all nodes share, beside those that name them.
    env: Vec<(String, String)>,
    /// How many files each process may open, if the test says.
    max_files: Option<u64>,
    dir: TempDir,
}

impl Cluster {
    /// Directories and ports, nothing started yet.
    pub fn new(size: usize, env: &[(&str, &str)]) -> Self {
        let nodes = free_ports(size).into_iter().enumerate();
        let nodes = nodes
            .map(|(i, port)| Node { name: format!("node-{}", i + 1), port, process: Mutex::new(None) })
            .collect();
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { nodes, env, max_files: None, dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Its processes may open so many files only.
    pub fn with_max_files(mut self, files: u64) -> Self {
        self.max_files = Some(files);
        self
    }

    /// A started cluster with a leader everybody knows.
    pub async fn started(size: usize, env: &[(&str, &str)]) -> Self {
        let cluster = Self::new(size, env);
        cluster.start_all().await;
        cluster.wait_leader().await;
        cluster
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn name(&self, i: usize) -> &str {
        &self.nodes[i].name
    }

    pub fn port(&self, i: usize) -> u16 {
        self.nodes[i].port
    }

    /// The process id of a node that runs.
    pub fn pid(&self, i: usize) -> u32 {
        self.process(i).as_ref().expect("a started node").id()
    }

    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    pub fn url(&self, i: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(i))
    }

    pub fn data_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(&self.nodes[i].name)
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// Whether the node has said this.
    pub fn told(&self, i: usize, what: &str) -> bool {
        let log = std::fs::read_to_string(self.log_path(self.name(i)));
        log.expect("a started node has a log").contains(what)
    }

    /// The chapter's environment of one node; the test may change it before it starts one.
    pub fn env_of(&self, i: usize) -> Vec<(String, String)> {
        let peers: Vec<_> = (0..self.len()).filter(|j| *j != i).map(|j| self.url(j)).collect();
        let own = [
            ("NODE_ID", self.name(i).to_owned()),
            ("PORT", self.port(i).to_string()),
            ("PEERS", peers.join(",")),
            ("DATA_DIR", self.data_dir(i).display().to_string()),
            ("LISTEN", "127.0.0.1".to_owned()),
            // Other tests, and a compiler, may share the machine: a stall must not look like
            // a lost leader. Tests of failover time nothing.
            ("ELECTION_TIMEOUT_MS", "1000".to_owned()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(self.env.iter().cloned()).collect()
    }

    pub async fn start_all(&self) {
        for i in 0..self.len() {
            self.start(i).await;
        }
    }

    /// Starts a node and waits until it answers at all.
    pub async fn start(&self, i: usize) {
        self.start_with(i, &self.env_of(i)).await;
    }

    /// Starts a node that may not answer this test for a while.
    pub fn spawn(&self, i: usize) {
        *self.process(i) = Some(Process::start(&self.env_of(i), &self.log_path(self.name(i))));
    }

    pub async fn start_with(&self, i: usize, env: &[(String, String)]) {
        for _ in 0..PORT_ATTEMPTS {
            let log = self.log_path(self.name(i));
            *self.process(i) = Some(match self.max_files {
                None => Process::start(env, &log),
                Some(files) => Process::start_with_few_files(files, env, &log),
            });
            if eventually(PATIENCE, || self.answers_or_lost_its_port(i)).await {
                return;
            }
        }
        panic!("{}'s port stays taken: {}", self.name(i), tail(&self.log_path(self.name(i))));
    }

    /// True when the node answers, false when it ended because its port was taken.
    async fn answers_or_lost_its_port(&self, i: usize) -> Result<bool, String> {
        let ended = self.process(i).as_mut().and_then(|p| p.exited().map(|status| (status, p.tail())));
        if let Some((status, tail)) = ended {
            let last = tail.lines().last().unwrap_or_default().to_lowercase();
            assert!(
                last.contains("port") && last.contains("use"),
                "{} ended with {status}:\n{tail}",
                self.name(i)
            );
            return Ok(false);
        }
        match self.send(i, Request::get("/livez")).await {
            Ok(_) => Ok(true),
            Err(e) => Err(format!("{} does not answer: {e}", self.name(i))),
        }
    }

    /// Starts a node that may refuse to: says whether it answers, or with which code it ended.
    pub async fn try_start(&self, i: usize) -> Result<(), Option<i32>> {
        let process = Process::start(&self.env_of(i), &self.log_path(self.name(i)));
        *self.process(i) = Some(process);
        eventually(PATIENCE, || async {
            if let Some(status) = self.process(i).as_mut().and_then(Process::exited) {
                return Ok(Err(status.code()));
            }
            self.send(i, Request::get("/livez")).await.map(|_| Ok(())).map_err(|error| error.to_string())
        })
        .await
    }

    pub fn kill9(&self, i: usize) {
        if let Some(mut process) = self.process(i).take() {
            process.kill9();
        }
    }

    /// Asks the node to stop; [`Cluster::wait_exit`] waits for it.
    pub fn term(&self, i: usize) {
        self.signal(i, Signal::TERM);
    }

    pub fn pause(&self, i: usize) {
        self.signal(i, Signal::STOP);
    }

    pub fn resume(&self, i: usize) {
        self.signal(i, Signal::CONT);
    }

    /// Waits for a node to end by itself, and returns its exit code.
    pub async fn wait_exit(&self, i: usize) -> Option<i32> {
        let process = self.process(i).take();
        process.expect("a started node").wait(PATIENCE).await.code()
    }

    /// Empties the directory of a node that does not run.
    pub fn wipe(&self, i: usize) {
        assert!(!self.runs(i), "{} must be stopped first", self.name(i));
        std::fs::remove_dir_all(self.data_dir(i)).expect("a node's directory can be removed");
    }

    pub fn runs(&self, i: usize) -> bool {
        self.process(i).as_mut().is_some_and(|p| !p.paused && p.exited().is_none())
    }

    pub async fn send(&self, i: usize, request: Request) -> Result<Reply, Failure> {
        request.send(self.port(i)).await
    }

    /// A request that must be answered, whatever the status.
    pub async fn ask(&self, i: usize, request: Request) -> Reply {
        let told = format!("{request:?}");
        let reply = self.send(i, request).await;
        reply.unwrap_or_else(|e| panic!("{} did not answer {told}: {e}", self.name(i)))
    }

    pub async fn get(&self, i: usize, target: &str) -> Reply {
        self.ask(i, Request::get(target)).await
    }

    pub async fn put(&self, i: usize, target: &str, body: &str) -> Reply {
        self.ask(i, Request::put(target, body.to_owned())).await
    }

    pub async fn delete(&self, i: usize, target: &str) -> Reply {
        self.ask(i, Request::delete(target)).await
    }

    pub async fn status(&self, i: usize) -> Result<Value, String> {
        let request = Request::get("/status").timeout(Duration::from_secs(2));
        let reply = self.send(i, request).await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&reply.body).map_err(|e| format!("{e}: {}", reply.text()))
    }

    /// The one leader that all running nodes agree on while all of them are ready.
    pub async fn wait_leader(&self) -> usize {
        eventually(PATIENCE, || self.agreed_leader()).await
    }

    /// Waits until the running nodes agree on a leader other than `old`.
    pub async fn wait_leader_other_than(&self, old: usize) -> usize {
        eventually(PATIENCE, || async {
            let leader = self.agreed_leader().await?;
            if leader == old { Err(format!("{} still leads", self.name(old))) } else { Ok(leader) }
        })
        .await
    }

    /// The leader that these nodes agree on, whatever the others say.
    pub async fn wait_leader_among(&self, nodes: &[usize]) -> usize {
        eventually(PATIENCE, || self.leader_among(nodes)).await
    }

    async fn agreed_leader(&self) -> Result<usize, String> {
        let running: Vec<usize> = (0..self.len()).filter(|i| self.runs(*i)).collect();
        self.leader_among(&running).await
    }

    async fn leader_among(&self, nodes: &[usize]) -> Result<usize, String> {
        let mut statuses = Vec::new();
        for i in nodes.iter().copied() {
            statuses.push((i, self.status(i).await, self.send(i, Request::get("/readyz")).await));
        }
        let leads = |(i, status, _): &(usize, Result<Value, String>, _)| {
            status.as_ref().is_ok_and(|s| s["role"] == "leader").then_some(*i)
        };
        let leaders: Vec<usize> = statuses.iter().filter_map(leads).collect();
        let agree = |leader: usize| {
            statuses.iter().all(|(_, status, ready)| {
                status.as_ref().is_ok_and(|s| s["leaderId"] == self.name(leader))
                    && ready.as_ref().is_ok_and(|r| r.status == 200)
            })
        };
        match leaders[..] {
            [leader] if agree(leader) => Ok(leader),
            _ => Err(format!("no leader all agree on: {statuses:#?}")),
        }
    }

    /// Waits until all running nodes have applied the same and hold the same.
    pub async fn wait_equal_hashes(&self) -> Value {
        eventually(PATIENCE, || async {
            let mut hashes = Vec::new();
            for i in (0..self.len()).filter(|i| self.runs(*i)) {
                let reply = self.send(i, Request::get("/v1/state-hash")).await;
                let reply = reply.map_err(|e| e.to_string())?;
                if reply.status != 200 {
                    return Err(format!("{}: {}", self.name(i), reply.text()));
                }
                hashes.push(reply.json());
            }
            let first = hashes.first().cloned().ok_or("no node runs")?;
            let equal = hashes.iter().all(|h| h["applied"] == first["applied"]);
            if !equal {
                return Err(format!("not applied alike: {hashes:?}"));
            }
            assert!(hashes.iter().all(|h| h["hash"] == first["hash"]), "replicas differ: {hashes:?}");
            Ok(first)
        })
        .await
    }

    fn signal(&self, i: usize, signal: Signal) {
        self.process(i).as_mut().expect("a started node").signal(signal);
    }

    fn process(&self, i: usize) -> MutexGuard<'_, Option<Process>> {
        self.nodes[i].process.lock().expect("no test panics while it holds a process")
    }
}

impl Drop for Cluster {
    /// Processes are killed by their own drop; a failing test shows their last words.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- {} on port {}\n{}", node.name, node.port, tail(&self.log_path(&node.name)));
            }
        }
    }
}

/// Ports that tests of this process were given. Who has one may not listen there yet, or not at
/// the moment: a node of another cluster that took it would answer in its stead.
static CLAIMED_PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Whether the port becomes the caller's own among all tests of this process.
pub fn claim_port(port: u16) -> bool {
    CLAIMED_PORTS.lock().expect("no panic while it is held").insert(port)
}

/// Ports nobody listens on and no other test has. All are held until all are found, so that
/// they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let (mut held, mut ports) = (Vec::new(), Vec::new());
    while ports.len() < count {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        held.push(listener);
        if claim_port(port) {
            ports.push(port);
        }
    }
    ports
}
