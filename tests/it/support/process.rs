//! One `bellwether serve` process: start, signals, exit, log.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// Lines of a log shown when a test fails.
const TAIL_LINES: usize = 40;

pub struct Process {
    child: Child,
    log: PathBuf,
    pub paused: bool,
}

impl Process {
    /// Starts a server that sees these settings and nothing of the test's environment.
    pub fn start(env: &[(String, String)], log: &Path) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_bellwether")), env, log)
    }

    /// The same, for a process that may not open more files than this.
    pub fn start_with_few_files(files: u64, env: &[(String, String)], log: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
        shell.arg(env!("CARGO_BIN_EXE_bellwether"));
        Self::start_by(shell, env, log)
    }

    fn start_by(mut command: Command, env: &[(String, String)], log: &Path) -> Self {
        let open = || -> std::io::Result<(File, File)> {
            let file = OpenOptions::new().create(true).append(true).open(log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = open().expect("a log file in the test's own directory");
        let child = command
            .arg("serve")
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the binary under test starts");
        Self { child, log: log.to_owned(), paused: false }
    }

    pub fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::STOP => self.paused = true,
            Signal::CONT => self.paused = false,
            _ => {}
        }
        // It may have exited by itself; that is for the test's own checks to notice.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for an own child")
    }

    /// Waits for the process to end by itself.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        eventually(deadline, || {
            let exited = self.exited().ok_or_else(|| "the process still runs".to_owned());
            async move { exited }
        })
        .await
    }

    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines it wrote, across all its lives.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
