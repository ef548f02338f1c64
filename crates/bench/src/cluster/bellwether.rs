//! Bellwether: `serve` three times, or `up` once.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Cluster, NODES, Spec, empty, ports};

/// Three nodes with default settings, not started yet.
pub fn cluster(program: &Path, dir: &Path) -> Result<Cluster> {
    cluster_with(program, dir, &[])
}

/// The same with other settings.
pub fn cluster_with(program: &Path, dir: &Path, settings: &[(&'static str, String)]) -> Result<Cluster> {
    empty(dir)?;
    let ports = ports::free(NODES)?;
    let urls: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    let spec = |index: usize| {
        let name = format!("node-{}", index + 1);
        let peers: Vec<&str> =
            urls.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, url)| url.as_str()).collect();
        let mut env: Vec<(&'static str, OsString)> = vec![
            ("NODE_ID", name.clone().into()),
            ("PORT", ports[index].to_string().into()),
            ("PEERS", peers.join(",").into()),
            ("DATA_DIR", dir.join(&name).into()),
            ("LISTEN", "127.0.0.1".into()),
        ];
        env.extend(settings.iter().map(|(name, value)| (*name, value.into())));
        Spec {
            program: program.to_owned(),
            args: vec!["serve".into()],
            env,
            log: dir.join(format!("{name}.log")),
            data: dir.join(&name),
            url: urls[index].clone(),
        }
    };
    Ok(Cluster::new(dir, (0..NODES).map(spec).collect()))
}

/// A running `bellwether up`, as a newcomer starts it.
pub struct Up {
    child: Child,
    dir: std::path::PathBuf,
    pub urls: Vec<String>,
}

impl Up {
    pub fn start(program: &Path, dir: &Path) -> Result<Self> {
        empty(dir)?;
        let first = ports::free_row(NODES as u16)?;
        let child = Command::new(program)
            .arg("up")
            .args(["--nodes", &NODES.to_string(), "--port", &first.to_string()])
            .arg("--data-dir")
            .arg(dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {} up", program.display()))?;
        let urls = (first..).take(NODES).map(|port| format!("http://127.0.0.1:{port}")).collect();
        Ok(Self { child, dir: dir.to_owned(), urls })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // As Ctrl-C does: it stops its nodes before it ends.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
