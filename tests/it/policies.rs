//! The election policies on real processes: the leader killed, asleep, cut off, behind a
//! link that comes and goes, and back again, under clients whose history is checked.
//!
//! Who wins is up to the votes: a log that is behind, or a busy machine, may pass the
//! first in line over. What is asserted holds whoever wins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{
    Cluster, Lab, Observer, PATIENCE, Request, Settings, Workload, cut, env_number, eventually,
};

/// Elections that a fault may cost beyond the one it forced.
const FEW_TERMS: u64 = 3;
/// How often the link comes and goes, and messages lost each time: about a fifth of a
/// second of heartbeats, well within the lease.
const FLAPS: usize = 6;
const LOST_A_FLAP: u64 = 8;
const HIGHEST: usize = 2;
const DEFAULT_ROUNDS: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Paused,
    CutOff,
}

impl Fault {
    async fn strike(self, lab: &Lab, at: usize) {
        match self {
            Fault::Killed => lab.cluster.kill9(at),
            Fault::Paused => lab.cluster.pause(at),
            Fault::CutOff => cut_off(lab, at).await,
        }
    }

    async fn end(self, lab: &Lab, at: usize) {
        match self {
            Fault::Killed => lab.cluster.start(at).await,
            Fault::Paused => lab.cluster.resume(at),
            Fault::CutOff => {
                lab.expect_struck(at, "cut").await;
                lab.heal().await;
            }
        }
    }
}

async fn cut_off(lab: &Lab, at: usize) {
    for peer in lab.others(at) {
        lab.spoil(at, peer, cut()).await;
    }
}

/// Who is to lead once everybody is back, where the policy says it.
async fn settle(cluster: &Cluster, policy: &str) -> usize {
    eventually(PATIENCE, || async {
        let leader = cluster.wait_leader().await;
        match policy {
            "highest-id" if leader != HIGHEST => Err(format!("{} leads", cluster.name(leader))),
            _ => Ok(leader),
        }
    })
    .await
}

async fn replaced_and_back(lab: &Lab, workload: &Workload, policy: &str, fault: Fault) {
    let cluster = &lab.cluster;
    let old = settle(cluster, policy).await;
    let before = lab.term(old).await;
    fault.strike(lab, old).await;
    let new = cluster.wait_leader_among(&lab.others(old)).await;
    let elected = lab.term(new).await;
    println!(
        "{policy}: {} {fault:?}, {} leads, term {before} to {elected}",
        cluster.name(old),
        cluster.name(new)
    );
    assert!(elected > before);
    // Not by the clients' progress: they may all wait for one that sleeps.
    lab.cluster.put(new, "/key/meanwhile?forward=true", "1").await.expect(200);
    fault.end(lab, old).await;
    let last = settle(cluster, policy).await;
    workload.wait_progress(50).await;
    let after = lab.term(last).await;
    assert!(after <= before + 1 + FEW_TERMS, "{policy} {fault:?}: from term {before} to {after}");
    if policy == "lowest-id" {
        // Not even the lowest of all interrupts a leader.
        assert_eq!((last, after), (new, elected), "{fault:?}: the return of {}", cluster.name(old));
    }
}

/// The leader's links come and go, faster than a lease runs out.
async fn flap(lab: &Lab, workload: &Workload, policy: &str) {
    let leader = settle(&lab.cluster, policy).await;
    let before = lab.term(leader).await;
    for _ in 0..FLAPS {
        let lost = lab.struck(leader, "cut").await;
        cut_off(lab, leader).await;
        eventually(PATIENCE, || async {
            let now = lab.struck(leader, "cut").await;
            if now >= lost + LOST_A_FLAP { Ok(()) } else { Err(format!("{now} messages lost")) }
        })
        .await;
        lab.heal().await;
        workload.wait_progress(10).await;
    }
    let after = lab.term(settle(&lab.cluster, policy).await).await;
    println!("{policy}: {FLAPS} flaps, from term {before} to {after}");
    assert!(after <= before + FEW_TERMS, "{policy}: from term {before} to {after}");
}

/// By what the nodes themselves told, over the whole history.
fn expect_one_leader_a_term(cluster: &Cluster) {
    let mut leaders = BTreeMap::<u64, BTreeSet<&str>>::new();
    for i in 0..cluster.len() {
        let log = fs::read_to_string(cluster.log_path(cluster.name(i))).expect("a log");
        let terms = log.lines().filter_map(|line| line.split_once("Became LEADER for term "));
        for (_, term) in terms {
            leaders.entry(term.parse().expect("a term")).or_default().insert(cluster.name(i));
        }
    }
    assert!(leaders.len() > 1, "no election was told of: {leaders:?}");
    assert!(leaders.values().all(|names| names.len() == 1), "two leaders in one term: {leaders:?}");
}

async fn keeps_one_leader_a_term(policy: &str) {
    let lab = Lab::started_with(&[("ELECTION", policy)]).await;
    let observer = Observer::start(&lab.cluster.ports());
    let workload = Workload::start(&lab.cluster, Settings { seed: 11, clients: 4 });
    workload.wait_progress(50).await;
    for fault in [Fault::Killed, Fault::Paused, Fault::CutOff] {
        replaced_and_back(&lab, &workload, policy, fault).await;
    }
    flap(&lab, &workload, policy).await;
    lab.expect_whole().await;
    workload.finish().await;
    observer.expect_one_leader_a_term();
    expect_one_leader_a_term(&lab.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn raft_keeps_one_leader_a_term_whatever_befalls_it() {
    keeps_one_leader_a_term("raft").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lowest_id_keeps_one_leader_a_term_and_deposes_nobody() {
    keeps_one_leader_a_term("lowest-id").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn highest_id_keeps_one_leader_a_term_and_always_leads_again() {
    keeps_one_leader_a_term("highest-id").await;
}

/// Clients that write as fast as they are answered, to whoever they believe leads.
struct Writers {
    accepted: Arc<std::sync::Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

const WRITERS: usize = 4;
/// A write that hangs is given up after this; its client goes on at the next node.
const GIVE_UP: Duration = Duration::from_secs(1);
/// Between two refusals: a gap is measured to so much.
const RETRY: Duration = Duration::from_millis(1);

impl Writers {
    fn start(cluster: &Arc<Cluster>) -> Self {
        let (accepted, stop) = (Arc::default(), Arc::<AtomicBool>::default());
        let leader = Arc::<AtomicUsize>::default();
        let client = |id| {
            let (cluster, accepted, stop) = (cluster.clone(), Arc::clone(&accepted), stop.clone());
            tokio::spawn(write(id, cluster, leader.clone(), accepted, stop))
        };
        let clients = (0..WRITERS).map(client).collect();
        Self { accepted, stop, clients }
    }

    fn count(&self) -> usize {
        self.accepted.lock().expect("no writer panics").len()
    }

    /// Waits until writes are accepted again.
    async fn wait_progress(&self) {
        let goal = self.count() + 20;
        eventually(PATIENCE, || async {
            if self.count() >= goal { Ok(()) } else { Err("no writes are accepted".to_owned()) }
        })
        .await;
    }

    /// The longest time without an accepted write, from `since` on.
    fn longest_gap(&self, since: Instant) -> Duration {
        let accepted = self.accepted.lock().expect("no writer panics");
        let mut last = since;
        let gaps =
            accepted.iter().filter(|at| **at > since).map(|at| *at - std::mem::replace(&mut last, *at));
        gaps.max().expect("writes were accepted")
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a writer panicked");
        }
    }
}

async fn write(
    id: usize,
    cluster: Arc<Cluster>,
    leader: Arc<AtomicUsize>,
    accepted: Arc<std::sync::Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let at = leader.load(Ordering::Relaxed);
        let request = Request::put(format!("/key/{id}?timeout=1s"), "1").timeout(GIVE_UP);
        match cluster.send(at, request).await {
            Ok(reply) if reply.status == 200 => {
                accepted.lock().expect("no writer panics").push(Instant::now());
            }
            // Another one may know better; whoever was first moves all of them on.
            _ => {
                let _ = leader.compare_exchange(at, (at + 1) % 3, Ordering::Relaxed, Ordering::Relaxed);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// What one return of the highest did.
struct TakeOver {
    gap: Duration,
    failover: Duration,
    terms: u64,
    /// Lines of all logs since the return: that a leader is not heard, that one leads.
    timeouts: Vec<String>,
    leaders: Vec<String>,
}

/// What all nodes have told so far of one matter.
fn told(cluster: &Cluster, what: &str) -> Vec<String> {
    let mut told = Vec::new();
    for i in 0..cluster.len() {
        let log = fs::read_to_string(cluster.log_path(cluster.name(i))).expect("a log");
        told.extend(log.lines().filter(|line| line.contains(what)).map(str::to_owned));
    }
    told
}

/// The lines of one matter that were not there before.
fn told_since(cluster: &Cluster, what: &str, before: &[String]) -> Vec<String> {
    let mut news = told(cluster, what);
    for old in before {
        let known = news.iter().position(|line| line == old);
        known.map(|at| news.remove(at));
    }
    news
}

const LOST: &str = "Election timeout";
const LEADS: &str = "Became LEADER";

/// The highest is killed, replaced, and comes back.
async fn take_over(cluster: &Arc<Cluster>, writers: &Writers) -> TakeOver {
    settle(cluster, "highest-id").await;
    writers.wait_progress().await;
    let killed = Instant::now();
    cluster.kill9(HIGHEST);
    eventually(PATIENCE, || async {
        let leader = cluster.wait_leader_other_than(HIGHEST).await;
        if leader == HIGHEST - 1 { Ok(()) } else { Err(format!("{} leads", cluster.name(leader))) }
    })
    .await;
    writers.wait_progress().await;
    let failover = writers.longest_gap(killed);
    let term = |status: serde_json::Value| status["term"].as_u64().expect("a number");
    let before = term(cluster.status(HIGHEST - 1).await.expect("it answers"));
    let (lost, leads) = (told(cluster, LOST), told(cluster, LEADS));
    let back = Instant::now();
    cluster.start(HIGHEST).await;
    settle(cluster, "highest-id").await;
    writers.wait_progress().await;
    let after = term(cluster.status(HIGHEST).await.expect("it answers"));
    TakeOver {
        gap: writers.longest_gap(back),
        failover,
        terms: after - before,
        timeouts: told_since(cluster, LOST, &lost),
        leaders: told_since(cluster, LEADS, &leads),
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// Under `highest-id` the highest takes over by transfer: nobody has to miss a leader.
/// `BELLWETHER_TAKEOVERS` rounds in release mode give the figures.
#[tokio::test(flavor = "multi_thread")]
async fn the_highest_takes_over_without_an_election_timeout() {
    let rounds = env_number("BELLWETHER_TAKEOVERS", DEFAULT_ROUNDS);
    let cluster = Arc::new(Cluster::started(3, &[("ELECTION", "highest-id")]).await);
    let writers = Writers::start(&cluster);
    let (mut gaps, mut failovers, mut disturbed) = (Vec::new(), Vec::new(), 0);
    while (gaps.len() as u64) < rounds {
        let seen = take_over(&cluster, &writers).await;
        println!("gap {:?}, after the kill {:?}, {} terms", seen.gap, seen.failover, seen.terms);
        if !seen.timeouts.is_empty() {
            // A machine that stalls for longer than the lease has elections of its own.
            disturbed += 1;
            assert!(disturbed < 3 + rounds / 10, "not by transfer: {:?}", seen.timeouts);
            continue;
        }
        // Who was named, and nobody else, asked for votes, and once.
        assert_eq!((seen.terms, seen.leaders.len()), (1, 1), "{:?}", seen.leaders);
        assert!(seen.leaders[0].starts_with("[node-3]"), "{:?}", seen.leaders);
        gaps.push(seen.gap);
        failovers.push(seen.failover);
    }
    writers.finish().await;
    println!(
        "longest gap in accepted writes, median of {rounds}: {:?} at the return, {:?} after the kill",
        median(gaps),
        median(failovers)
    );
    cluster.put(HIGHEST, "/key/after?forward=true", &json!(1).to_string()).await.expect(200);
    cluster.wait_equal_hashes().await;
}
