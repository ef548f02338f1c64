//! Runs a program beside a cluster of three, and kills the leader when the program says so.
//!
//! The program finds the nodes in `ENDPOINTS`. A line "kill the leader" on its standard
//! output is done (SIGKILL) and answered with a line that ends in the node's endpoint;
//! "start it again" brings the node back. Other lines are passed on.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bellwether_bench::cluster::Cluster;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use crate::cluster::Programs;
use crate::proto::etcdserverpb::StatusRequest;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;

/// Past this a program hangs: it waits for elections, not for more.
const PATIENCE: Duration = Duration::from_secs(180);
/// A cluster has a leader by then.
const ELECTED: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct WithCluster {
    /// etcd instead of Bellwether: shows that the program asks nothing unusual
    #[arg(long)]
    on_etcd: bool,

    /// The program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

impl WithCluster {
    /// Whether the program succeeded.
    pub async fn run(&self, programs: &Programs) -> Result<bool> {
        let mut cluster = match self.on_etcd {
            true => programs.start_etcd(3, "etcd").await?,
            false => programs.start_bellwether().await?,
        };
        let (program, arguments) = self.command.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("ENDPOINTS", cluster.urls().join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let served = timeout(PATIENCE, serve(&mut child, &mut cluster)).await;
        served.context("it hangs")??;
        Ok(child.wait().await?.success())
    }
}

/// Does what the program asks for, until it has nothing more to say.
async fn serve(child: &mut Child, cluster: &mut Cluster) -> Result<()> {
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let mut answers = child.stdin.take().context("its input")?;
    let mut killed = None;
    while let Some(line) = lines.next_line().await? {
        let answer = match line.as_str() {
            "kill the leader" => {
                let leader = leader(&cluster.urls()).await?;
                cluster.kill(leader)?;
                killed = Some(leader);
                format!("killed {}\n", cluster.urls()[leader])
            }
            "start it again" => {
                cluster.start(killed.context("nobody was killed")?)?;
                "started\n".to_owned()
            }
            _ => {
                println!("{line}");
                continue;
            }
        };
        answers.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// The place of the node that says that it leads.
async fn leader(urls: &[String]) -> Result<usize> {
    let end = Instant::now() + ELECTED;
    while Instant::now() < end {
        for (place, url) in urls.iter().enumerate() {
            // One that is down doesn't lead; the others tell.
            if matches!(timeout(ANSWER, leads(url)).await, Ok(Ok(true))) {
                return Ok(place);
            }
        }
        sleep(PAUSE).await;
    }
    bail!("no node says that it leads")
}

async fn leads(url: &str) -> Result<bool> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?.into_inner();
    Ok(status.leader != 0 && status.header.map(|header| header.member_id) == Some(status.leader))
}
