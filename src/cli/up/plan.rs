//! Who runs where: names, ports and directories, written down in `cluster.json` at the
//! first `up` and followed by every later one, because a cluster's members are known by
//! their names and addresses.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches, parser::ValueSource};
use serde::{Deserialize, Serialize};

use super::Up;
use crate::cli::Failure;
use crate::config::Settings;

/// More voters make no local cluster safer, and each costs memory and a port.
pub const MAX_NODES: u16 = 15;
const DEFAULT_NODES: u16 = 3;
const DEFAULT_PORT: u16 = 4001;

/// What `cluster.json` remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    nodes: u16,
    port: u16,
}

/// One node's place.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    pub port: u16,
    /// The program and what it is given; the settings `up` decides are environment
    /// variables, so that flags after `--` win.
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(&'static str, OsString)>,
}

impl NodeSpec {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// A cluster ready to start. Holds the directory's lock.
#[derive(Debug)]
pub struct Plan {
    pub dir: PathBuf,
    pub nodes: Vec<NodeSpec>,
    /// Whether the directory had a cluster before.
    pub resumed: bool,
    /// Released when this process ends, however it ends.
    _lock: File,
}

impl Plan {
    pub fn make(up: &Up) -> Result<Self, Failure> {
        check_serve_flags(&up.serve_flags)?;
        let dir = up.data_dir.clone();
        std::fs::create_dir_all(&dir).map_err(|error| in_dir(&dir, "can't be made", &error))?;
        let dir = dir.canonicalize().map_err(|error| in_dir(&up.data_dir, "can't be found", &error))?;
        let lock = lock(&dir)?;
        let known = read_shape(&dir)?;
        let shape = choose(known, up.nodes, up.port)?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::error(format!("this program's own path is unknown: {error}")))?;
        let nodes = specs(shape, &dir, &program, up);
        nodes.iter().try_for_each(check_port)?;
        if known.is_none() {
            write_shape(&dir, shape)?;
        }
        Ok(Self { dir, nodes, resumed: known.is_some(), _lock: lock })
    }
}

fn in_dir(dir: &Path, what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::error(format!("{} {what}: {error}", dir.display())).hint("choose another --data-dir")
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("up.lock");
    let lock = File::create(&path).map_err(|error| in_dir(&path, "can't be made", &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another `bellwether up` runs in {}", dir.display());
            Err(Failure::error(message).hint("stop it with Ctrl-C, or choose another --data-dir and --port"))
        }
        Err(TryLockError::Error(error)) => Err(in_dir(&path, "can't be locked", &error)),
    }
}

fn read_shape(dir: &Path) -> Result<Option<Shape>, Failure> {
    let path = dir.join("cluster.json");
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| in_dir(&path, "can't be read", &error))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| in_dir(&path, "is damaged", &error))
}

/// Written beside and renamed, so that a crash leaves the old file or the new one.
fn write_shape(dir: &Path, shape: Shape) -> Result<(), Failure> {
    let (path, new) = (dir.join("cluster.json"), dir.join("cluster.json.new"));
    let text = serde_json::json!(shape).to_string();
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|error| in_dir(&path, "can't be written", &error))
}

/// What was made once is kept: a cluster that is asked to be another one is refused.
fn choose(known: Option<Shape>, nodes: Option<u16>, port: Option<u16>) -> Result<Shape, Failure> {
    let Some(known) = known else {
        return Ok(Shape { nodes: nodes.unwrap_or(DEFAULT_NODES), port: port.unwrap_or(DEFAULT_PORT) });
    };
    let asked = Shape { nodes: nodes.unwrap_or(known.nodes), port: port.unwrap_or(known.port) };
    if asked == known {
        return Ok(known);
    }
    let message = format!(
        "this directory holds a cluster of {} nodes from port {}, not {} from {}",
        known.nodes, known.port, asked.nodes, asked.port
    );
    Err(Failure::usage(message)
        .hint("leave --nodes and --port away to go on with it, or choose another --data-dir"))
}

fn specs(shape: Shape, dir: &Path, program: &Path, up: &Up) -> Vec<NodeSpec> {
    // A range that leaves the port space is caught by `check_port`: ports saturate, and
    // the second 65535 is in use.
    let ports: Vec<u16> = (0..shape.nodes).map(|index| shape.port.saturating_add(index)).collect();
    let spec = |index: usize| {
        let name = format!("node-{}", index + 1);
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != index)
            .map(|(_, port)| format!("http://127.0.0.1:{port}"))
            .collect();
        let mut env: Vec<(&'static str, OsString)> = vec![
            ("NODE_ID", name.clone().into()),
            ("PORT", ports[index].to_string().into()),
            ("PEERS", peers.join(",").into()),
            ("DATA_DIR", dir.join(&name).into()),
            // A local cluster is nobody else's business; `-- --listen 0.0.0.0` opens it.
            ("LISTEN", "127.0.0.1".into()),
            // Of the shell's settings, one that can't be meant for all nodes at once.
            ("ADVERTISE_URL", "".into()),
        ];
        env.extend(up.election.map(|election| ("ELECTION", election.as_str().into())));
        let own = ["serve", "--exit-with-stdin"].map(OsString::from);
        let args = own.into_iter().chain(up.serve_flags.iter().map(OsString::from)).collect();
        NodeSpec { name, port: ports[index], program: program.to_owned(), args, env }
    };
    (0..ports.len()).map(spec).collect()
}

/// Finds out before anything starts, because the message can say more here.
fn check_port(node: &NodeSpec) -> Result<(), Failure> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, node.port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = format!("port {} for {} can't be used: {error}", node.port, node.name);
            Err(Failure::error(message).hint("stop what uses it, or choose other ports and a directory for them: bellwether up --port 5001 --data-dir ./bellwether-data/cluster-5001"))
        }
    }
}

/// Settings that only one node can have; `up` decides them.
const EACH_ITS_OWN: [(&str, &str); 5] = [
    ("node_id", "--node-id"),
    ("port", "--port"),
    ("peers", "--peers"),
    ("data_dir", "--data-dir"),
    ("advertise_url", "--advertise-url"),
];

/// Bad settings, from flags or the environment, are told once, here, and not by every node.
fn check_serve_flags(flags: &[String]) -> Result<(), Failure> {
    let command = Settings::augment_args(Command::new("bellwether up --").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).unwrap_or_else(|error| error.exit());
    for (id, flag) in EACH_ITS_OWN {
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            return Err(Failure::usage(format!("{flag} can't be the same for every node; `up` chooses it"))
                .hint("`up` itself takes --port and --data-dir, before the `--`"));
        }
    }
    let settings = Settings::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    settings.validate().map(|_| ()).map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Exit;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    fn up(dir: &Path, args: &[&str]) -> Up {
        let dir = dir.to_str().expect("utf-8");
        Line::try_parse_from(["up", "--data-dir", dir].iter().chain(args)).expect("parses").up
    }

    #[test]
    fn a_second_up_goes_on_with_the_first_ones_shape() {
        let known = Some(Shape { nodes: 5, port: 4101 });
        assert_eq!(choose(known, None, None).expect("kept"), Shape { nodes: 5, port: 4101 });
        assert_eq!(choose(known, Some(5), None).expect("the same"), Shape { nodes: 5, port: 4101 });
        assert_eq!(choose(known, Some(3), None).expect_err("another").exit(), Exit::Usage);
        assert_eq!(choose(known, None, Some(1)).expect_err("another").exit(), Exit::Usage);
        assert_eq!(choose(None, None, None).expect("new"), Shape { nodes: 3, port: 4001 });
    }

    #[test]
    fn the_shape_survives_and_the_directory_is_locked() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read_shape(dir.path()).expect("none yet"), None);
        write_shape(dir.path(), Shape { nodes: 2, port: 7 }).expect("written");
        assert_eq!(read_shape(dir.path()).expect("there"), Some(Shape { nodes: 2, port: 7 }));
        let held = lock(dir.path()).expect("free");
        let refused = lock(dir.path()).expect_err("held");
        assert!(format!("{refused:?}").contains("another `bellwether up`"));
        drop(held);
        lock(dir.path()).expect("free again");
    }

    #[test]
    fn nodes_are_each_others_peers() {
        let dir = tempfile::tempdir().expect("a directory");
        let up = up(dir.path(), &["--election", "lowest-id", "--", "--ack", "all"]);
        let nodes = specs(Shape { nodes: 3, port: 9001 }, dir.path(), Path::new("x"), &up);
        let env = |name: &str| {
            let found = nodes[1].env.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.to_string_lossy().into_owned()).expect(name)
        };
        assert_eq!(env("NODE_ID"), "node-2");
        assert_eq!(env("PEERS"), "http://127.0.0.1:9001,http://127.0.0.1:9003");
        assert_eq!(env("ELECTION"), "lowest-id");
        assert!(nodes[1].args.iter().any(|arg| arg == "--ack"));
    }

    #[test]
    fn a_port_in_use_is_told_with_the_mend() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let spec = NodeSpec { name: "node-1".into(), port, program: "x".into(), args: vec![], env: vec![] };
        assert!(format!("{:?}", check_port(&spec).expect_err("in use")).contains("--port"));
    }

    #[test]
    fn flags_that_tell_nodes_apart_are_refused() {
        for flag in ["--node-id=a", "--port=1", "--peers=http://a:1", "--data-dir=x"] {
            assert_eq!(check_serve_flags(&[flag.to_owned()]).expect_err(flag).exit(), Exit::Usage);
        }
        check_serve_flags(&["--ack".to_owned(), "all".to_owned()]).expect("fine");
        let failure = check_serve_flags(&["--heartbeat-ms=900".to_owned()]).expect_err("above the timeout");
        assert_eq!(failure.exit(), Exit::Usage);
    }
}
