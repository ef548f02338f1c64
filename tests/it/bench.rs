//! `bellwether bench`, each workload for a moment, in both protocols. How fast anything is
//! is nobody's business here.

use std::process::{Command, Output};

use bellwether_load::target::etcd::EtcdTarget;
use bellwether_load::target::http::{Body, HttpTarget};
use bellwether_load::target::{Route, Session, Target};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::support::{Cluster, PATIENCE, eventually};

const HTTP: &str = "--endpoints";
const ETCD: &str = "--etcd";

/// Runs it to its end, beside the nodes that it loads.
async fn bench(cluster: &Cluster, protocol: &str, arguments: &str) -> Output {
    let urls: Vec<String> = (0..cluster.len()).map(|node| cluster.url(node)).collect();
    bench_on(urls, protocol, arguments).await
}

async fn bench_on(urls: Vec<String>, protocol: &str, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.arg("bench").args(arguments.split_whitespace()).args([protocol, &urls.join(",")]);
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("no panic").expect("the binary under test starts")
}

async fn outcome(cluster: &Cluster, protocol: &str, arguments: &str) -> Value {
    let arguments = format!("{arguments} --clients 4 --keys 50 --warmup 1ms --output json");
    let output = bench(cluster, protocol, &arguments).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{protocol} {arguments}: {told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments}: {error}: {told}"))
}

fn number(outcome: &Value, field: &str) -> f64 {
    outcome[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {outcome}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workload_runs_in_both_protocols() {
    let cluster = Cluster::started(3, &[]).await;
    for (protocol, workloads) in [
        (HTTP, &["put --fill", "get", "get --local", "mixed", "range --range-size 20"][..]),
        (ETCD, &["put --fill", "get", "get --local --connections 2", "mixed", "range --range-size 20"]),
        (ETCD, &["lease", "get --rate 2000 --distribution zipf", "put --distribution sequential"]),
        (HTTP, &["put --connections 2", "put --body bytes"]),
    ] {
        for workload in workloads {
            let outcome = outcome(&cluster, protocol, &format!("{workload} --count 200")).await;
            assert_eq!(outcome["workload"], workload.split(' ').next().expect("a name"));
            assert_eq!((&outcome["errors"], &outcome["missing"]), (&0.into(), &0.into()), "{outcome}");
            assert_eq!(outcome["operations"], 200, "{protocol} {workload}: {outcome}");
            let rising =
                ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(|name| number(&outcome, name));
            assert!(rising[0] > 0.0 && rising.is_sorted(), "{outcome}");
            assert!(number(&outcome, "per_second") > 0.0 && outcome["server_cpu_per_1000"].is_null());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_win_or_lose_and_nothing_else() {
    let cluster = Cluster::started(3, &[]).await;
    for protocol in [HTTP, ETCD] {
        let outcome = outcome(&cluster, protocol, "txn --count 300").await;
        let (won, lost) = (number(&outcome, "operations"), number(&outcome, "lost_races"));
        assert_eq!((won + lost, &outcome["errors"]), (300.0, &0.into()), "{outcome}");
        assert!(won > 0.0, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_enough_where_it_passes_writes_on() {
    let cluster = Cluster::started(3, &[]).await;
    let follower = (cluster.wait_leader().await + 1) % cluster.len();
    let on_follower =
        async |protocol, arguments| bench_on(vec![cluster.url(follower)], protocol, arguments).await;
    for (protocol, arguments) in [(ETCD, "put --count 50"), (HTTP, "get --local --count 50")] {
        let output = on_follower(protocol, arguments).await;
        assert!(output.status.success(), "{protocol} {arguments}: {output:?}");
    }
    let refused = on_follower(HTTP, "put --count 50").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Not the leader"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_of_every_write() {
    let cluster = Cluster::started(3, &[]).await;
    let outcome = outcome(&cluster, ETCD, "watch --watchers 7 --count 200 --connections 3").await;
    assert_eq!(outcome["errors"], 0, "{outcome}");
    // The run itself fails when one of them misses a write; how many of the events come
    // inside the window is a matter of time.
    assert!(number(&outcome, "operations") > 0.0, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_given_by_process_id_are_accounted() {
    let cluster = Cluster::started(3, &[]).await;
    let own = std::process::id();
    let outcome = outcome(&cluster, ETCD, &format!("put --count 50 --pids {own}")).await;
    assert!(number(&outcome, "server_resident_bytes") > 0.0, "{outcome}");
    number(&outcome, "server_cpu_per_1000");
    number(&outcome, "server_growth_bytes_per_operation");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_have_other_forms_and_failures_their_codes() {
    let cluster = Cluster::started(3, &[]).await;
    let csv = bench(&cluster, HTTP, "put --count 50 --warmup 1ms --output csv").await;
    let csv = String::from_utf8(csv.stdout).expect("text");
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(lines.len() == 2 && lines[0].len() == lines[1].len(), "{csv}");
    let table = bench(&cluster, HTTP, "put --count 50 --warmup 1ms").await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("latency p99.9"), "{table:?}");
    let refused = bench(&cluster, HTTP, "watch").await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--etcd"), "{refused:?}");
    for node in 0..cluster.len() {
        cluster.kill9(node);
    }
    assert_eq!(bench(&cluster, ETCD, "put").await.status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_another_node_when_theirs_dies() {
    let cluster = Cluster::started(3, &[]).await;
    let urls: Vec<String> = (0..cluster.len()).map(|node| cluster.url(node)).collect();
    let etcd = EtcdTarget::new(&urls, Some(1)).expect("URLs");
    let http = HttpTarget::new(&urls, Body::Json, None).expect("URLs");
    let etcd = etcd.session(Route::Leader).await.expect("a leader");
    let http = http.session(Route::Leader).await.expect("a leader");
    cluster.kill9(cluster.wait_leader().await);
    writes_again(etcd).await;
    writes_again(http).await;
}

async fn writes_again(session: impl Session) {
    let session = Mutex::new(session);
    eventually(PATIENCE, || async {
        let mut session = session.lock().await;
        let answer = session.put("key", &Bytes::from_static(b"1")).await;
        if answer.is_err() {
            session.recover().await;
        }
        answer.map_err(|error| format!("{error:#}"))
    })
    .await;
}
