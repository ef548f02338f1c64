//! What one node answers, case by case; the texts are etcd's.

use bellwether::proto::etcdserverpb::request_op::Request;
use bellwether::proto::etcdserverpb::watch_create_request::FilterType;
use bellwether::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchResponse};
use bytes::Bytes;
use tonic::Code;

use crate::support::{Cluster, Etcd};

async fn one_node() -> (Cluster, Etcd) {
    let cluster = Cluster::started(1, &[]).await;
    let etcd = Etcd::connect(cluster.port(0)).await.expect("it listens");
    (cluster, etcd)
}

fn key(key: &'static str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() }
}

/// Key, value and revision of each event; deletions have no value.
fn told(response: &WatchResponse) -> Vec<(String, String, i64)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let events = response.events.iter().map(|event| event.kv.as_ref().expect("a key"));
    events.map(|kv| (text(&kv.key), text(&kv.value), kv.mod_revision)).collect()
}

fn row(key: &str, value: &str, revision: i64) -> (String, String, i64) {
    (key.to_owned(), value.to_owned(), revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_carries_watches_of_keys_and_ranges() {
    let (_cluster, etcd) = one_node().await;
    let mut watch = etcd.watch().await.expect("served");
    let range = |key: &'static str, end: &'static str| WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..WatchCreateRequest::default()
    };
    let single = watch.created(key("b")).await;
    let prefix = watch.created(range("b", "c")).await;
    let from_key = watch.created(range("b1", "\0")).await;
    let all = watch.created(range("", "\0")).await;
    assert_eq!([single, prefix, from_key, all], [0, 1, 2, 3]);
    etcd.write("a", "1").await.expect("written");
    let response = watch.next().await;
    assert_eq!((response.watch_id, told(&response)), (all, vec![row("a", "1", 2)]));
    assert_eq!(response.header.expect("a header").revision, 2);
    for (put, watchers) in [("b", vec![single, prefix, all]), ("b1", vec![prefix, from_key, all])] {
        let revision = etcd.write(put, "2").await.expect("written");
        let mut heard = Vec::new();
        for _ in 0..watchers.len() {
            let response = watch.next().await;
            assert_eq!(told(&response), [row(put, "2", revision)]);
            heard.push(response.watch_id);
        }
        heard.sort_unstable();
        assert_eq!(heard, watchers);
    }
    // After a cancelled watch's last word there is no other.
    watch.cancel(all);
    let cancelled = watch.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == all && cancelled.cancel_reason.is_empty());
    watch.cancel(99);
    etcd.write("z", "3").await.expect("written");
    let response = watch.next().await;
    assert_eq!((response.watch_id, told(&response)), (from_key, vec![row("z", "3", 5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_in_etcds_words() {
    let (_cluster, etcd) = one_node().await;
    let mut watch = etcd.watch().await.expect("served");
    assert_eq!(watch.created(WatchCreateRequest { watch_id: 7, ..key("a") }).await, 7);
    watch.create(WatchCreateRequest { watch_id: 7, ..key("b") });
    watch.create(WatchCreateRequest { range_end: "a".into(), ..key("b") });
    for reason in ["mvcc: duplicate watch ID provided on the WatchStream", "mvcc: watcher range is empty"] {
        let response = watch.next().await;
        assert!(response.created && response.canceled, "{response:?}");
        assert_eq!((response.watch_id, response.cancel_reason.as_str()), (-1, reason));
    }
    // The stream goes on.
    assert_eq!(watch.created(key("b")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_what_was_replaced() {
    let (_cluster, etcd) = one_node().await;
    let mut watch = etcd.watch().await.expect("served");
    let filtered = |filter: FilterType| WatchCreateRequest { filters: vec![filter.into()], ..key("a") };
    let deletes = watch.created(filtered(FilterType::Noput)).await;
    let puts = watch.created(WatchCreateRequest { prev_kv: true, ..filtered(FilterType::Nodelete) }).await;
    for value in ["1", "2"] {
        etcd.write("a", value).await.expect("written");
    }
    etcd.delete("a").await.expect("deleted");
    let mut heard = std::collections::BTreeMap::<i64, Vec<_>>::new();
    while heard.values().map(Vec::len).sum::<usize>() < 3 {
        let response = watch.next().await;
        let previous = response.events.iter().map(|event| event.prev_kv.clone().map(|kv| kv.value));
        let events = told(&response).into_iter().zip(previous);
        heard.entry(response.watch_id).or_default().extend(events);
    }
    let puts_expected = vec![(row("a", "1", 2), None), (row("a", "2", 3), Some("1".into()))];
    assert_eq!(heard.remove(&puts), Some(puts_expected));
    assert_eq!(heard.remove(&deletes), Some(vec![(row("a", "", 4), None)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_response_or_its_fragments() {
    const KEYS: usize = 100;
    let (_cluster, etcd) = one_node().await;
    // What is replaced counts as well, so together they are more than one response may have.
    let put = |n: usize, bytes: usize| PutRequest {
        key: format!("key {n:03}").into(),
        value: vec![b'x'; bytes].into(),
        ..PutRequest::default()
    };
    for n in 0..KEYS {
        etcd.kv().put(put(n, 40_000)).await.expect("written");
    }
    let mut watches = [etcd.watch().await.expect("served"), etcd.watch().await.expect("served")];
    for (watch, fragment) in watches.iter_mut().zip([false, true]) {
        let range_end = "l".into();
        watch.created(WatchCreateRequest { range_end, prev_kv: true, fragment, ..key("key") }).await;
    }
    let op = |n| RequestOp { request: Some(Request::RequestPut(put(n, 10))) };
    let txn = TxnRequest { success: (0..KEYS).map(op).collect(), ..TxnRequest::default() };
    let revision = etcd.kv().txn(txn).await.expect("written").into_inner().header.expect("a header").revision;
    let [whole, cut] = &mut watches;
    let whole = whole.next().await;
    assert_eq!((whole.events.len(), whole.fragment), (KEYS, false));
    let (mut pieces, mut events) = (0, Vec::new());
    loop {
        let piece = cut.next().await;
        assert_eq!(piece.header.expect("a header").revision, revision);
        pieces += 1;
        events.extend(piece.events);
        if !piece.fragment {
            break;
        }
    }
    assert!(pieces > 1, "nothing was cut");
    assert_eq!(events, whole.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_a_bookmark() {
    let (_cluster, etcd) = one_node().await;
    let mut watch = etcd.watch().await.expect("served");
    watch.created(key("a")).await;
    let other = etcd.write("b", "1").await.expect("written");
    watch.ask_progress();
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert!(progress.header.expect("a header").revision >= other);
    let revision = etcd.write("a", "2").await.expect("written");
    watch.ask_progress();
    let (first, second) = (watch.next().await, watch.next().await);
    assert_eq!(told(&first), [row("a", "2", revision)]);
    assert_eq!(second.watch_id, -1);
    assert!(second.header.expect("a header").revision >= revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_compacted_revision_there_is_nothing_to_watch() {
    let (_cluster, etcd) = one_node().await;
    for n in 0..10 {
        etcd.write("a", n.to_string()).await.expect("written");
    }
    etcd.compact(6).await.expect("compacted");
    let mut watch = etcd.watch().await.expect("served");
    let id = watch.created(WatchCreateRequest { start_revision: 3, ..key("a") }).await;
    let cancelled = watch.next().await;
    assert!(cancelled.canceled && !cancelled.created && cancelled.watch_id == id, "{cancelled:?}");
    assert_eq!(cancelled.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    // Where it says that one may begin, one may.
    let oldest = cancelled.compact_revision;
    watch.created(WatchCreateRequest { start_revision: oldest, ..key("a") }).await;
    let mut next = oldest;
    while next <= 11 {
        for (_, _, revision) in told(&watch.next().await) {
            assert_eq!(revision, next);
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_sends_its_watchers_elsewhere() {
    let (cluster, etcd) = one_node().await;
    let mut watch = etcd.watch().await.expect("served");
    watch.created(key("a")).await;
    cluster.term(0);
    let ended = watch.try_next().await.expect_err("the stream ends");
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert_eq!(cluster.wait_exit(0).await, Some(0));
}

/// The one that wants a leader is sent elsewhere; the other one waits for better times.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_only_streams_that_want_one_end() {
    let cluster = Cluster::started(3, &[]).await;
    let etcd = Etcd::connect(cluster.port(0)).await.expect("it listens");
    let mut patient = etcd.watch().await.expect("served");
    let mut wants_leader = etcd.watch_with(true).await.expect("served");
    patient.created(key("a")).await;
    wants_leader.created(key("a")).await;
    cluster.kill9(1);
    cluster.kill9(2);
    let ended = wants_leader.try_next().await.expect_err("the stream ends");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    let refused = etcd.watch_with(true).await.err().expect("no leader");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    cluster.start(1).await;
    cluster.wait_leader().await;
    let revision = etcd.write("a", "1").await.expect("written");
    assert_eq!(told(&patient.next().await), [row("a", "1", revision)]);
}
