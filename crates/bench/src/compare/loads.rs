//! The loads of one round: each job by so many clients, over one protocol.

use anyhow::{Context, Result, ensure};
use bellwether_load::target::Target;
use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::{self as load, Outcome, watch};

use super::Plan;
use super::samples::{Clients, Figure, Job, Samples, Way};
use super::spent::Spent;
use crate::cluster::{Cluster, NODES};

/// Of all operations in a window. More means that something other than speed was measured.
const MOST_ERRORS: f64 = 0.01;

/// One system, and where its figures go.
pub struct Party<'a, T> {
    pub name: &'a str,
    pub cluster: &'a Cluster,
    /// How the clients can be connected: writes by many of them are measured in each way, and
    /// the faster counts; the first serves everything else.
    pub ways: [(Way, T); 2],
    pub to: &'a mut Samples,
}

/// Each load on one system after the other: a machine whose speed changes within minutes
/// changes it for all of them.
pub async fn run<T: Target>(parties: &mut [Party<'_, T>], plan: &Plan) -> Result<()> {
    for clients in Clients::ALL {
        for party in &mut *parties {
            party.writes(clients, plan).await?;
        }
    }
    let jobs = [
        (Job::LocalGet, Clients::One),
        (Job::LocalGet, Clients::Many),
        (Job::Get, Clients::Many),
        (Job::Mixed, Clients::Many),
        (Job::Swap, Clients::Many),
    ];
    for (job, clients) in jobs {
        for party in &mut *parties {
            let [(_, target), _] = &party.ways;
            let (load, title) = (job.load(clients, plan), party.title(job, clients));
            let outcome = load::run(target, &load, &party.cluster.pids(), &title).await?;
            party.record(job, clients, &outcome)?;
        }
    }
    Ok(())
}

impl<T: Target> Party<'_, T> {
    async fn writes(&mut self, clients: Clients, plan: &Plan) -> Result<()> {
        // One client has one connection in either way.
        let ways = if clients == Clients::One { &self.ways[..1] } else { &self.ways };
        let mut best: Option<(Outcome, Spent, Spent)> = None;
        for (way, target) in ways {
            let before = Spent::now(self.cluster).await?;
            let (load, title) = (Job::Put.load(clients, plan), self.title(Job::Put, clients));
            let outcome = load::run(target, &load, &self.cluster.pids(), &title).await?;
            let after = Spent::now(self.cluster).await?;
            self.to.add(Figure::PutsByWay(clients, *way), outcome.per_second);
            if best.as_ref().is_none_or(|(best, ..)| outcome.per_second > best.per_second) {
                best = Some((outcome, before, after));
            }
        }
        let (outcome, before, after) = best.context("nothing measured")?;
        after.record(&before, clients, plan.value_bytes, self.to, NODES);
        self.record(Job::Put, clients, &outcome)
    }

    fn title(&self, job: Job, clients: Clients) -> String {
        format!("{}: {job:?}, clients: {}", self.name, clients.count())
    }

    fn record(&mut self, job: Job, clients: Clients, outcome: &Outcome) -> Result<()> {
        let errors = outcome.errors as f64;
        let first = outcome.first_error.as_deref().unwrap_or_default();
        let bearable = errors <= MOST_ERRORS * outcome.operations as f64;
        ensure!(bearable, "{}: {errors} errors, such as: {first}", self.title(job, clients));
        let to = &mut *self.to;
        to.add(Figure::Rate(job, clients), outcome.per_second);
        to.add(Figure::P50(job, clients), outcome.p50_us as f64 / 1000.0);
        to.add(Figure::P99(job, clients), outcome.p99_us as f64 / 1000.0);
        to.add(Figure::ClientCpu(job, clients), outcome.client_cpu_per_1000);
        if let Some(cpu) = outcome.server_cpu_per_1000 {
            to.add(Figure::ServerCpu(job, clients), cpu);
        }
        Ok(())
    }
}

/// Events to watchers, which only etcd's protocol has.
pub async fn events(parties: &mut [Party<'_, EtcdTarget>], plan: &Plan) -> Result<()> {
    let (job, clients) = (Job::Watch, Clients::Many);
    for party in parties {
        let [(_, target), _] = &party.ways;
        let (load, title) = (job.load(clients, plan), party.title(job, clients));
        let outcome = watch::run(target, &load, &party.cluster.pids(), &title).await?;
        party.record(job, clients, &outcome)?;
    }
    Ok(())
}
