//! Three servers on this machine, of either system, with their defaults.
//!
//! A [`Cluster`] owns its processes and its directory: when it goes out of scope the
//! processes are killed and the data is gone, so that the next round begins like the
//! first. What the two systems need on their command lines is in [`bellwether`] and
//! [`etcd`]; ports are whatever is free.

pub mod bellwether;
pub mod etcd;
mod ports;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// Nodes in a cluster: the smallest that survives a loss.
pub const NODES: usize = 3;

/// Between two looks at whether a server has ended.
const END_POLL: Duration = Duration::from_millis(2);

/// How to start one server.
struct Spec {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    /// Where its output goes.
    log: PathBuf,
    /// Where it keeps what it holds.
    data: PathBuf,
    /// Where clients reach it: `http://127.0.0.1:port`.
    url: String,
}

struct Node {
    spec: Spec,
    child: Option<Child>,
}

pub struct Cluster {
    nodes: Vec<Node>,
    dir: PathBuf,
}

impl Cluster {
    /// A cluster that doesn't run yet, in a directory that is empty now.
    fn new(dir: &Path, specs: Vec<Spec>) -> Self {
        let nodes = specs.into_iter().map(|spec| Node { spec, child: None }).collect();
        Self { nodes, dir: dir.to_owned() }
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.spec.url.clone()).collect()
    }

    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref()).map(Child::id).collect()
    }

    /// Where the servers keep what they hold.
    pub fn data_dirs(&self) -> impl Iterator<Item = &Path> {
        self.nodes.iter().map(|node| node.spec.data.as_path())
    }

    pub fn start_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.start(node))
    }

    /// Starts this one, for the first time or again.
    pub fn start(&mut self, node: usize) -> Result<()> {
        self.reap(node);
        let node = &mut self.nodes[node];
        node.child = Some(node.spec.start()?);
        Ok(())
    }

    /// Sends it SIGKILL and doesn't wait for its end.
    pub fn kill(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::KILL)
    }

    /// Sends it this signal, and doesn't wait for what it does.
    pub fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let child = self.nodes[node].child.as_ref().context("the server to signal doesn't run")?;
        kill_process(Pid::from_child(child), signal).context("signalling a server")
    }

    /// Waits until it has ended, after a signal that ends it.
    pub async fn wait_end(&mut self, node: usize) -> Result<()> {
        while let Some(child) = &mut self.nodes[node].child {
            match child.try_wait()? {
                Some(_) => self.nodes[node].child = None,
                None => sleep(END_POLL).await,
            }
        }
        Ok(())
    }

    /// An error, with the end of its log, when a server ended by itself.
    pub fn check(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(&node.spec.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("(no output)");
                bail!("{} ended: {status}; its last words: {last}", node.spec.program.display());
            }
        }
        Ok(())
    }

    /// Copies what the servers said into this directory, which is made anew.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        empty(to)?;
        for node in &self.nodes {
            let name = node.spec.log.file_name().context("a log without a name")?;
            std::fs::copy(&node.spec.log, to.join(name)).context("keeping a log")?;
        }
        Ok(())
    }

    fn reap(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            self.reap(node);
        }
        // Left behind it takes space, no more.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Spec {
    fn start(&self) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).context("a server's log")?;
        Command::new(&self.program)
            .args(&self.args)
            // Nothing of the caller's settings: the defaults are what is measured.
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))
    }
}

/// Makes this directory anew.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, program: &str, args: &[&str]) -> Cluster {
        let dir = std::env::temp_dir().join(format!("bellwether-bench-{name}-{}", std::process::id()));
        empty(&dir).expect("a directory");
        let spec = Spec {
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: vec![],
            log: dir.join("log"),
            data: dir.clone(),
            url: String::new(),
        };
        Cluster::new(&dir, vec![spec])
    }

    #[test]
    fn nothing_is_left_of_a_cluster() {
        let mut cluster = cluster("gone", "/bin/sleep", &["600"]);
        cluster.start_all().expect("starts");
        cluster.check().expect("runs");
        let (pid, dir) = (cluster.pids()[0], cluster.dir.clone());
        drop(cluster);
        assert!(!dir.exists() && !Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_server_that_ended_is_told_with_its_last_words() {
        let mut cluster = cluster("ended", "/bin/sh", &["-c", "echo port in use; exit 3"]);
        cluster.start_all().expect("starts");
        let error = loop {
            match cluster.check() {
                Ok(()) => std::thread::yield_now(),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("port in use") && error.contains('3'), "{error}");
    }
}
