//! Leases as etcd's clients use them, on real processes: they end when nobody renews them
//! and never sooner, whoever leads and whatever was paused.

use std::time::{Duration, Instant};

use bellwether::proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest};
use tokio::task::JoinHandle;
use tonic::{Code, Request};

use crate::support::{Cluster, Etcd, PATIENCE, eventually};

/// The shortest lease that there is.
const SHORT_S: i64 = 2;
/// Long enough for the last leader to be given up, and another elected, before it ends.
const MIDDLE_S: i64 = 8;
/// Nobody waits for its end.
const LONG_S: i64 = 120;
/// Most of a lease: the node, and not its client, tries again when the leader is paused.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(6);
const BETWEEN_RENEWALS: Duration = Duration::from_millis(100);
/// What a change of leader may give to a lease: the time between two written clocks.
const UNWRITTEN_S: i64 = 3;

/// Renews a lease until it is dropped. A lease that is over makes the test fail.
struct Renewing(JoinHandle<()>);

impl Renewing {
    fn start(etcd: Etcd, lease: i64) -> Self {
        Self(tokio::spawn(async move {
            loop {
                if let Ok(Ok(ttl)) = tokio::time::timeout(RENEWAL_TIMEOUT, etcd.keep_alive(lease)).await {
                    assert!(ttl > 0, "lease {lease:x} ended while it was kept alive");
                }
                tokio::time::sleep(BETWEEN_RENEWALS).await;
            }
        }))
    }

    fn stop(self) {
        assert!(!self.0.is_finished(), "the lease ended while it was kept alive");
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn put(etcd: &Etcd, key: &str, lease: i64) -> i64 {
    let put = etcd.put(key, "1", lease).await.expect("the lease is there");
    put.header.expect("a header").revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_and_its_keys_go_at_one_revision() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    let (etcd, follower) = (Etcd::at(&cluster, leader), Etcd::at(&cluster, (leader + 1) % 3));
    // Too short: it gets the shortest.
    let granted = follower.lease().lease_grant(LeaseGrantRequest { ttl: 0, id: 7 }).await.expect("granted");
    assert_eq!((granted.get_ref().id, granted.get_ref().ttl), (7, SHORT_S));
    put(&follower, "other", 0).await;
    put(&follower, "a", 7).await;
    let last = put(&etcd, "b", 7).await;
    let ttl = follower.time_to_live(7).await.expect("answered");
    assert_eq!((ttl.granted_ttl, &ttl.keys[..]), (SHORT_S, &["a".into(), "b".into()][..]));
    assert!((0..=SHORT_S).contains(&ttl.ttl), "{ttl:?}");

    let gone = etcd.wait_gone("a").await;
    assert_eq!(gone, last + 1);
    assert!(etcd.get("b").await.expect("read").kvs.is_empty(), "at the same revision");
    assert_eq!(etcd.get("other").await.expect("read").kvs.len(), 1);
    for etcd in [&etcd, &follower] {
        let ttl = etcd.time_to_live(7).await.expect("answered");
        assert_eq!((ttl.ttl, ttl.granted_ttl, ttl.keys.len()), (-1, 0, 0));
        assert_eq!(etcd.keep_alive(7).await.expect("answered"), 0);
    }
    cluster.wait_equal_hashes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_leases_is_answered_as_etcd_does() {
    let cluster = Cluster::started(1, &[]).await;
    let etcd = Etcd::at(&cluster, 0);
    let refused = etcd.revoke(99).await.expect_err("unknown");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    assert_eq!(etcd.put("a", "1", 99).await.expect_err("unknown").code(), Code::NotFound);
    let grant = async |ttl, id| etcd.lease().lease_grant(LeaseGrantRequest { ttl, id }).await;
    assert_eq!(grant(9_000_000_001, 0).await.expect_err("too long").code(), Code::OutOfRange);
    for (ttl, id) in [(300, 1), (100, 2), (200, -3), (9_000_000_000, 4)] {
        assert_eq!(grant(ttl, id).await.expect("granted").get_ref().ttl, ttl);
    }
    assert_eq!(grant(300, 1).await.expect_err("there").code(), Code::FailedPrecondition);
    let random = etcd.grant(50).await.expect("granted");
    assert!(random > 0);
    let listed = etcd.lease().lease_leases(LeaseLeasesRequest {}).await.expect("listed").into_inner();
    let ids: Vec<i64> = listed.leases.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [random, 2, -3, 1, 4], "those that end first first");

    let requests = [1, 99, 2, 1].map(|id| LeaseKeepAliveRequest { id });
    let answer = etcd.lease().lease_keep_alive(futures::stream::iter(requests)).await;
    let mut replies = answer.expect("a stream").into_inner();
    for expected in [(1, 300), (99, 0), (2, 100), (1, 300)] {
        let reply = replies.message().await.expect("no error").expect("a reply");
        assert_eq!((reply.id, reply.ttl), expected);
        assert!(reply.header.is_some_and(|header| header.revision > 0));
    }
    assert!(replies.message().await.expect("no error").is_none());

    // A key hangs on the lease that it was last put with.
    put(&etcd, "a", 1).await;
    put(&etcd, "b", 1).await;
    put(&etcd, "c", 1).await;
    put(&etcd, "c", 2).await;
    let last = put(&etcd, "b", 0).await;
    let revoked = etcd.revoke(1).await.expect("revoked");
    assert_eq!(revoked.header.expect("a header").revision, last + 1);
    assert!(etcd.get("a").await.expect("read").kvs.is_empty());
    assert_eq!(etcd.get("b").await.expect("read").kvs.len(), 1);
    assert_eq!(etcd.get("c").await.expect("read").kvs[0].lease, 2);
}

/// Longer than the lease would live: the twin beside it shows that.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_ends_no_lease_that_is_kept_alive_through_another_node() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    let etcd = Etcd::at(&cluster, (leader + 1) % 3);
    let (kept, twin) =
        (etcd.grant(MIDDLE_S).await.expect("granted"), etcd.grant(MIDDLE_S).await.expect("granted"));
    put(&etcd, "kept", kept).await;
    put(&etcd, "twin", twin).await;
    let renewing = Renewing::start(etcd.clone(), kept);
    cluster.pause(leader);
    cluster.wait_leader_other_than(leader).await;
    etcd.wait_gone("twin").await;
    assert_eq!(etcd.get("kept").await.expect("read").kvs.len(), 1);
    cluster.resume(leader);
    cluster.wait_leader().await;
    cluster.wait_equal_hashes().await;
    assert_eq!(Etcd::at(&cluster, leader).get("kept").await.expect("read").kvs.len(), 1);
    renewing.stop();
    etcd.wait_gone("kept").await;
}

/// Nobody could renew while the only node was paused: the time does not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_only_node_ends_no_lease() {
    let cluster = Cluster::started(1, &[]).await;
    let etcd = Etcd::at(&cluster, 0);
    let lease = etcd.grant(SHORT_S).await.expect("granted");
    put(&etcd, "kept", lease).await;
    assert_eq!(etcd.keep_alive(lease).await.expect("answered"), SHORT_S);
    cluster.pause(0);
    // Longer than the lease and its grace: there is nothing to look at while it is paused.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.resume(0);
    assert_eq!(etcd.keep_alive(lease).await.expect("answered"), SHORT_S);
    assert_eq!(etcd.get("kept").await.expect("read").kvs.len(), 1);
    etcd.wait_gone("kept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_left_survives_the_leader() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    let etcd = Etcd::at(&cluster, (leader + 1) % 3);
    let lease = etcd.grant(LONG_S).await.expect("granted");
    let spent = |seconds: i64| {
        let etcd = &etcd;
        eventually(PATIENCE, move || async move {
            let left = etcd.time_to_live(lease).await.map_err(|status| status.to_string())?.ttl;
            if left <= LONG_S - seconds { Ok(left) } else { Err(format!("{left} s left")) }
        })
    };
    // More than what a change of leader may give back, so that a reset would show.
    let before = spent(2 * UNWRITTEN_S).await;
    let began = Instant::now();
    cluster.kill9(leader);
    cluster.wait_leader_other_than(leader).await;
    let after = spent(0).await;
    let passed = i64::try_from(began.elapsed().as_secs()).expect("seconds") + 1;
    println!("{before} s before, {after} s after, {passed} s passed");
    assert!(after <= before + UNWRITTEN_S, "{after} s left: a reset");
    assert!(after >= before - passed, "{after} s left: more was taken than has passed");

    // All at once: what is on disk is enough.
    for i in (0..3).filter(|i| *i != leader) {
        cluster.kill9(i);
    }
    cluster.start_all().await;
    cluster.wait_leader().await;
    let restarted = spent(0).await;
    assert!((before - passed - 60..=before + UNWRITTEN_S).contains(&restarted), "{restarted} s left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_wants_a_leader_ends_without_one() {
    let cluster = Cluster::started(3, &[]).await;
    let etcd = Etcd::at(&cluster, 0);
    let lease = etcd.grant(LONG_S).await.expect("granted");
    let (renew, renewals) = tokio::sync::mpsc::channel(1);
    let renewals = tokio_stream::wrappers::ReceiverStream::new(renewals);
    let mut request = Request::new(renewals);
    request.metadata_mut().insert("hasleader", "true".parse().expect("metadata"));
    renew.send(LeaseKeepAliveRequest { id: lease }).await.expect("the stream is open");
    let mut replies = etcd.lease().lease_keep_alive(request).await.expect("a stream").into_inner();
    assert_eq!(replies.message().await.expect("no error").expect("a reply").ttl, LONG_S);
    cluster.kill9(1);
    cluster.kill9(2);
    let ended = tokio::time::timeout(PATIENCE, replies.message()).await.expect("the stream ends");
    let ended = ended.expect_err("without a leader");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
}
