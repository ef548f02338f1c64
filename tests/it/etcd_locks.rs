//! Locks and elections as etcd's clients use them, on real processes: one holder at a time,
//! in the order of arrival, and a fence against those who believe that they still hold.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether::proto::etcdserverpb::RangeRequest;
use bellwether::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use bellwether::proto::v3lockpb::UnlockRequest;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Status};

use crate::support::{Cluster, Etcd, PATIENCE, Rng, env_number, eventually};

/// Nobody waits for its end.
const LONG_S: i64 = 120;
const SHORT_S: i64 = 2;

fn acquiring(etcd: &Etcd, name: &'static str, lease: i64) -> JoinHandle<Result<Vec<u8>, Status>> {
    let etcd = etcd.clone();
    tokio::spawn(async move { etcd.acquire(name, lease).await })
}

/// Waits until so many stand in line.
async fn wait_line(etcd: &Etcd, prefix: &str, length: usize) {
    eventually(PATIENCE, || async {
        let line = etcd.by_age(prefix, 0).await.map_err(|status| status.to_string())?;
        if line.len() == length { Ok(()) } else { Err(format!("in line: {line:?}")) }
    })
    .await;
}

async fn release(etcd: &Etcd, key: &[u8]) {
    etcd.lock().unlock(UnlockRequest { key: key.to_vec().into() }).await.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_down_the_line() {
    let cluster = Cluster::started(3, &[]).await;
    let nodes = [0, 1, 2].map(|i| Etcd::at(&cluster, i));
    let mut leases = Vec::new();
    for etcd in &nodes {
        leases.push(etcd.grant(LONG_S).await.expect("granted"));
    }
    let first = nodes[0].acquire("jobs", leases[0]).await.expect("free");
    assert_eq!(first, format!("jobs/{:x}", leases[0]).into_bytes());
    assert_eq!(nodes[1].acquire("jobs", leases[0]).await.expect("held by the same lease"), first);

    let second = acquiring(&nodes[1], "jobs", leases[1]);
    wait_line(&nodes[0], "jobs/", 2).await;
    let third = acquiring(&nodes[2], "jobs", leases[2]);
    wait_line(&nodes[0], "jobs/", 3).await;
    // Whoever gives up leaves the line.
    second.abort();
    wait_line(&nodes[0], "jobs/", 2).await;
    assert!(!third.is_finished());
    release(&nodes[1], &first).await;
    let third = third.await.expect("no panic").expect("served");

    // The next waits, its lease goes, and the holder's lease frees the lock.
    let lost = acquiring(&nodes[1], "jobs", leases[1]);
    wait_line(&nodes[0], "jobs/", 2).await;
    nodes[0].revoke(leases[1]).await.expect("revoked");
    let lost = lost.await.expect("no panic").expect_err("without a lease");
    assert_eq!((lost.code(), lost.message()), (Code::Unknown, "mutex: session is expired"));
    let next = acquiring(&nodes[0], "jobs", leases[0]);
    wait_line(&nodes[0], "jobs/", 2).await;
    nodes[1].revoke(leases[2]).await.expect("revoked");
    assert_eq!(next.await.expect("no panic").expect("served"), first);
    assert!(nodes[1].get(std::str::from_utf8(&third).expect("text")).await.expect("read").kvs.is_empty());

    let unknown = nodes[1].acquire("jobs", 99).await.expect_err("unknown lease");
    assert_eq!(unknown.message(), "etcdserver: requested lease not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_brings_no_lease_gets_one_that_goes_with_the_caller() {
    let cluster = Cluster::started(1, &[]).await;
    let etcd = Etcd::at(&cluster, 0);
    let held = etcd.acquire("jobs", 0).await.expect("free");
    let held = std::str::from_utf8(&held).expect("text");
    let lease = etcd.get(held).await.expect("read").kvs[0].lease;
    let ttl = etcd.time_to_live(lease).await.expect("answered");
    assert_eq!(ttl.granted_ttl, 60);
    let waiting = acquiring(&etcd, "jobs", 0);
    wait_line(&etcd, "jobs/", 2).await;
    let second = etcd.by_age("jobs/", 0).await.expect("read")[1].lease;
    waiting.abort();
    wait_line(&etcd, "jobs/", 1).await;
    eventually(PATIENCE, || async {
        let ttl = etcd.time_to_live(second).await.map_err(|status| status.to_string())?.ttl;
        if ttl == -1 { Ok(()) } else { Err(format!("its lease has {ttl} s")) }
    })
    .await;
}

/// Whoever was away for longer than its lease still believes that it holds the lock. The
/// twin in it, the write without a fence, shows the damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_past_its_lease_is_fenced_off() {
    let cluster = Cluster::started(3, &[]).await;
    let (slow, quick) = (Etcd::at(&cluster, 0), Etcd::at(&cluster, 1));
    let lease = slow.grant(SHORT_S).await.expect("granted");
    let key = slow.acquire("jobs", lease).await.expect("free");
    let created = slow.by_age("jobs/", 0).await.expect("read")[0].create_revision;
    let held = slow.put_if_created((&key, created), "fenced", "slow").await.expect("answered");
    assert!(held.succeeded, "the lock is held");
    // It never renews its lease, as if it were paused.
    let lease = quick.grant(LONG_S).await.expect("granted");
    let next = quick.acquire("jobs", lease).await.expect("served when the lease is over");
    let line = quick.by_age("jobs/", 0).await.expect("read");
    assert_eq!((line.len(), &line[0].key[..]), (1, &next[..]));
    assert!(line[0].create_revision > created, "it grows from holder to holder");
    let fence = (&next[..], line[0].create_revision);
    assert!(quick.put_if_created(fence, "fenced", "quick").await.expect("answered").succeeded);
    quick.put("unfenced", "quick", 0).await.expect("written");

    let late = slow.put_if_created((&key, created), "fenced", "slow").await.expect("answered");
    assert!(!late.succeeded, "it holds the lock no longer");
    slow.put("unfenced", "slow", 0).await.expect("nothing refuses it");
    assert_eq!(quick.get("fenced").await.expect("read").kvs[0].value, "quick");
    assert_eq!(quick.get("unfenced").await.expect("read").kvs[0].value, "slow", "the damage");
}

async fn campaign(etcd: Etcd, lease: i64, value: &'static str) -> Result<CampaignResponse, Status> {
    let request = CampaignRequest { name: "boss".into(), lease, value: value.into() };
    Ok(etcd.election().campaign(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_has_one_leader_that_all_observe() {
    let cluster = Cluster::started(3, &[]).await;
    let [a, b, c] = [0, 1, 2].map(|i| Etcd::at(&cluster, i));
    let name = || LeaderRequest { name: "boss".into() };
    let nobody = c.election().leader(name()).await.expect_err("nobody leads");
    assert_eq!((nobody.code(), nobody.message()), (Code::Unknown, "election: no leader"));
    let mut observed = c.election().observe(name()).await.expect("a stream").into_inner();
    let (first, second) = (a.grant(LONG_S).await.expect("granted"), b.grant(LONG_S).await.expect("granted"));

    let leader = campaign(a.clone(), first, "a1").await.expect("elected").leader.expect("a key");
    assert_eq!(leader.key, format!("boss/{first:x}"));
    let waiting = tokio::spawn(campaign(b.clone(), second, "b1"));
    wait_line(&a, "boss/", 2).await;
    let told = c.election().leader(name()).await.expect("somebody leads").into_inner().kv.expect("a key");
    assert_eq!((&told.key, &told.value[..]), (&leader.key, &b"a1"[..]));
    // The same lease again proclaims what it says now.
    let again = campaign(c.clone(), first, "a2").await.expect("it leads").leader.expect("a key");
    assert_eq!(again, leader);
    let proclaim = async |leader: &LeaderKey, value: &'static str| {
        let request = ProclaimRequest { leader: Some(leader.clone()), value: value.into() };
        b.election().proclaim(request).await
    };
    proclaim(&leader, "a3").await.expect("it leads");
    assert!(!waiting.is_finished());
    a.election().resign(ResignRequest { leader: Some(leader.clone()) }).await.expect("resigned");
    let next = waiting.await.expect("no panic").expect("elected").leader.expect("a key");
    let refused = proclaim(&leader, "a4").await.expect_err("not any more");
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "election: not leader"));
    a.election().resign(ResignRequest { leader: Some(leader) }).await.expect("nothing to give up");
    proclaim(&next, "b2").await.expect("it leads");
    let missing = a.election().resign(ResignRequest { leader: None }).await.expect_err("whose?");
    assert_eq!(missing.message(), "\"leader\" field must be provided");

    for expected in ["a1", "a2", "a3", "b1", "b2"] {
        let seen = tokio::time::timeout(PATIENCE, observed.message()).await.expect("in time");
        let seen = seen.expect("no error").expect("a leader").kv.expect("a key");
        assert_eq!(seen.value, expected);
    }
}

/// Enough for continuous integration; `BELLWETHER_LOCK_ROUNDS=50` is a long form.
const DEFAULT_ROUNDS: u64 = 4;
const CONTENDERS: usize = 8;
/// Their lease: short, so that it ends under those that a fault keeps from renewing it.
const CONTENDERS_TTL_S: i64 = 3;
/// One request of a contender; then it tries again with another node.
const CONTENDERS_PATIENCE: Duration = Duration::from_secs(4);
const HOLD: Duration = Duration::from_millis(20);
/// Writes of holders between two faults.
const WRITES_A_ROUND: i64 = 10;

/// Takes the lock, writes its create revision behind the fence, and lets go, over and over,
/// through any node. What goes wrong on the way is the faults' doing.
async fn contender(cluster: Arc<Cluster>, mut rng: Rng) {
    loop {
        let etcd = Etcd::at(&cluster, rng.below(3));
        let _ = tokio::time::timeout(CONTENDERS_PATIENCE, hold_once(&etcd)).await;
    }
}

async fn hold_once(etcd: &Etcd) -> Result<(), Status> {
    let lease = etcd.grant(CONTENDERS_TTL_S).await?;
    let key = etcd.acquire("lock", lease).await?;
    let line = etcd.by_age("lock/", 0).await?;
    // Its lease may be over by now.
    let Some(own) = line.iter().find(|kv| kv.key == key) else { return Ok(()) };
    let created = own.create_revision;
    tokio::time::sleep(HOLD).await;
    etcd.put_if_created((&key, created), "fenced", &created.to_string()).await?;
    etcd.revoke(lease).await?;
    Ok(())
}

async fn fenced_writes(cluster: &Cluster) -> i64 {
    eventually(PATIENCE, || async {
        let running = (0..3).find(|i| cluster.runs(*i)).ok_or("no node runs")?;
        let read = Etcd::at(cluster, running).get("fenced").await.map_err(|status| status.to_string())?;
        Ok(read.kvs.first().map_or(0, |kv| kv.version))
    })
    .await
}

async fn wait_progress(cluster: &Cluster) {
    let goal = fenced_writes(cluster).await + WRITES_A_ROUND;
    eventually(PATIENCE * 2, || async {
        let now = fenced_writes(cluster).await;
        if now >= goal { Ok(()) } else { Err(format!("{now} of {goal} writes of holders")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_has_one_holder_at_a_time_whatever_dies() {
    let _alone = crate::support::alone().await;
    let rounds = env_number("BELLWETHER_LOCK_ROUNDS", DEFAULT_ROUNDS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = env_number("BELLWETHER_SEED", clock.as_nanos() as u64);
    println!(
        "reproduce: BELLWETHER_SEED={seed} BELLWETHER_LOCK_ROUNDS={rounds} cargo test --test it a_lock_has"
    );
    let cluster = Arc::new(Cluster::started(3, &[]).await);
    let mut rng = Rng::new(seed);
    let mut contenders = JoinSet::new();
    for _ in 0..CONTENDERS {
        contenders.spawn(contender(cluster.clone(), Rng::new(rng.next())));
    }
    for round in 0..rounds {
        wait_progress(&cluster).await;
        let node = if rng.below(2) == 0 { cluster.wait_leader().await } else { rng.below(3) };
        let pause = rng.below(2) == 0;
        println!("round {round}: {} {node}", if pause { "pause" } else { "kill" });
        if pause {
            cluster.pause(node)
        } else {
            cluster.kill9(node)
        }
        wait_progress(&cluster).await;
        if pause {
            cluster.resume(node)
        } else {
            cluster.start(node).await
        }
        cluster.wait_leader().await;
    }
    contenders.shutdown().await;
    let writes = expect_one_holder_at_each_write(&Etcd::at(&cluster, 0)).await;
    println!("{writes} writes of holders");
    cluster.wait_equal_hashes().await;
}

/// Walks back through the writes behind the fence: at each, the oldest key in line is that
/// of whoever wrote, and holders come in the order of their create revisions.
async fn expect_one_holder_at_each_write(etcd: &Etcd) -> usize {
    let (mut revision, mut later, mut writes) = (0, i64::MAX, 0);
    loop {
        let request = RangeRequest { key: "fenced".into(), revision, ..RangeRequest::default() };
        let found = etcd.kv().range(request).await.expect("read").into_inner().kvs;
        let Some(write) = found.first() else { return writes };
        let holder: i64 = String::from_utf8_lossy(&write.value).parse().expect("a create revision");
        let line = etcd.by_age("lock/", write.mod_revision).await.expect("read");
        let oldest = line.first().map(|kv| kv.create_revision);
        assert_eq!(oldest, Some(holder), "at revision {}: {line:?}", write.mod_revision);
        assert!(holder < later, "holder {holder} wrote after holder {later} had begun");
        (revision, later, writes) = (write.mod_revision - 1, holder, writes + 1);
    }
}
