//! etcd, with its defaults: only names, addresses and the directory are set.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use super::{Cluster, NODES, Spec, empty, ports};

/// Three members, not started yet.
pub fn cluster(program: &Path, dir: &Path) -> Result<Cluster> {
    cluster_of(NODES, program, dir, &[])
}

/// So many members, with these flags besides.
pub fn cluster_of(members: usize, program: &Path, dir: &Path, flags: &[&str]) -> Result<Cluster> {
    empty(dir)?;
    let ports = ports::free(2 * members)?;
    let (client, peer) = ports.split_at(members);
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let name = |index: usize| format!("etcd-{}", index + 1);
    let initial: Vec<String> =
        (0..members).map(|index| format!("{}={}", name(index), url(peer[index]))).collect();
    let spec = |index: usize| {
        let data = dir.join(name(index));
        let (clients, peers) = (url(client[index]), url(peer[index]));
        let mut args: Vec<OsString> = vec![
            "--name".into(),
            name(index).into(),
            "--data-dir".into(),
            data.clone().into(),
            "--listen-client-urls".into(),
            clients.clone().into(),
            "--advertise-client-urls".into(),
            clients.clone().into(),
            "--listen-peer-urls".into(),
            peers.clone().into(),
            "--initial-advertise-peer-urls".into(),
            peers.into(),
            "--initial-cluster".into(),
            initial.join(",").into(),
        ];
        args.extend(flags.iter().map(OsString::from));
        let log = dir.join(format!("{}.log", name(index)));
        Spec { program: program.to_owned(), args, env: vec![], log, data, url: clients }
    };
    Ok(Cluster::new(dir, (0..members).map(spec).collect()))
}
