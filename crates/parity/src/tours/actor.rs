//! Runs a tour's lines against one cluster, as a person at a shell would.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::plain::Plain;
use super::script::Step;

/// Past this a line of a tour hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Actor {
    /// Where the etcdctl of the tour is.
    bin: PathBuf,
    endpoints: String,
    base: i64,
    plain: Plain,
}

impl Actor {
    pub fn new(bin: PathBuf, urls: &[String], base: i64) -> Result<Self> {
        Ok(Self { bin, endpoints: urls.join(","), base, plain: Plain::new()? })
    }

    /// What a line printed, made comparable.
    pub async fn run(&mut self, step: &Step) -> Result<String> {
        let mut child = self.spawn(&step.line)?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let said = timeout(PATIENCE, hear(&mut child, step.until.as_deref())).await;
        let text = match said {
            Ok(said) => said.with_context(|| step.line.clone())?,
            Err(_) => format!("(hangs for {} s)\n", PATIENCE.as_secs()),
        };
        if let Some(group) = group {
            end(&mut child, group).await?;
        }
        Ok(self.plain.plain(&text, step.any_order))
    }

    fn spawn(&self, line: &str) -> Result<Child> {
        let path = std::env::var("PATH").unwrap_or_default();
        let ids = self.plain.ids().iter().enumerate();
        Command::new("sh")
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", &self.endpoints)
            .env("BARE", self.endpoints.replace("http://", ""))
            .env("ENDPOINT", self.endpoints.split(',').next().unwrap_or_default())
            .env("BASE", self.base.to_string())
            .envs(ids.map(|(at, id)| (format!("ID{}", at + 1), format!("{id:x}"))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A line may start several programs; all are to end together.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("starting sh")
    }
}

/// Interrupts what still runs, and waits for it: a client gives up its lock or its
/// leadership before it ends.
async fn end(child: &mut Child, group: Pid) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    // Nobody is left in a group that can't be signalled.
    let mut sent = kill_process_group(group, Signal::INT);
    while sent.is_ok() {
        sleep(PAUSE).await;
        child.try_wait()?;
        sent = test_kill_process_group(group);
        if Instant::now() > end {
            sent = kill_process_group(group, Signal::KILL);
        }
    }
    Ok(())
}

/// All it says until it ends, or until a line has the text that is waited for.
async fn hear(child: &mut Child, until: Option<&str>) -> Result<String> {
    let mut out = BufReader::new(child.stdout.take().context("its output")?);
    let mut errors = child.stderr.take().context("its errors")?;
    let mut said = String::new();
    if let Some(text) = until {
        let mut line = String::new();
        while out.read_line(&mut line).await? > 0 {
            said.push_str(&line);
            if line.contains(text) {
                return Ok(said);
            }
            line.clear();
        }
    }
    let mut complaint = String::new();
    tokio::try_join!(out.read_to_string(&mut said), errors.read_to_string(&mut complaint))?;
    let status = child.wait().await?;
    Ok(format!("{said}{complaint}{}", ending(status)))
}

fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => String::new(),
        Some(code) => format!("(exit {code})\n"),
        None => "(killed)\n".to_owned(),
    }
}
