//! First starts, returns with an empty disk, and the mistakes that must be refused.

use std::path::Path;

use serde_json::Value;

use crate::support::{Cluster, PATIENCE, Process, Request, eventually};

type Env = Vec<(String, String)>;

fn set(env: &mut Env, name: &str, value: String) {
    env.retain(|(known, _)| known != name);
    env.push((name.to_owned(), value));
}

/// Starts one more process and waits until it gives up; its log says why.
async fn refused(cluster: &Cluster, label: &str, env: &Env) -> String {
    let mut process = Process::start(env, &cluster.log_path(label));
    let status = process.wait(PATIENCE).await;
    let log = process.tail();
    assert_ne!(status.code(), Some(0), "{label} must be refused:\n{log}");
    assert!(status.code().is_some(), "{label} says why instead of dying of a signal:\n{log}");
    log
}

async fn member_id(cluster: &Cluster, i: usize) -> Value {
    cluster.status(i).await.expect("a running node answers")["memberId"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_start_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let cluster = Cluster::new(3, &[]);
        for i in order {
            cluster.start(i).await;
        }
        let leader = cluster.wait_leader().await;
        cluster.put(leader, "/key/order", "1").await.expect(200);
        let mut ids = Vec::new();
        for i in 0..3 {
            ids.push(cluster.status(i).await.expect("answers")["clusterId"].clone());
        }
        assert!(ids.iter().all(|id| *id == ids[0] && !id.is_null()), "{order:?}: {ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_leads_at_once() {
    let cluster = Cluster::started(1, &[]).await;
    cluster.put(0, "/key/alone", "1").await.expect(200);
    cluster.get(0, "/key/alone?consistency=linearizable").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_is_late_the_others_say_whom_they_wait_for() {
    let cluster = Cluster::new(3, &[]);
    cluster.start(0).await;
    cluster.start(1).await;
    for i in [0, 1] {
        eventually(PATIENCE, || async {
            let ready = cluster.get(i, "/readyz").await;
            let late = cluster.port(2).to_string();
            let names_it = ready.status == 503 && ready.text().contains(&late);
            if names_it { Ok(()) } else { Err(ready.text()) }
        })
        .await;
        cluster.put(i, "/key/early", "1").await.expect(503);
    }
    cluster.start(2).await;
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/now", "1").await.expect(200);
}

async fn comes_back_wiped(leader_is_wiped: bool) {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    for i in 0..20 {
        cluster.put(leader, &format!("/key/w{i}"), "1").await.expect(200);
    }
    let wiped = if leader_is_wiped { leader } else { (leader + 1) % 3 };
    let former = member_id(&cluster, wiped).await;
    cluster.kill9(wiped);
    cluster.wipe(wiped);
    cluster.start(wiped).await;
    let leader = cluster.wait_leader().await;
    assert_ne!(member_id(&cluster, wiped).await, former, "an empty disk is another member");
    let voters = eventually(PATIENCE, || async {
        let status = cluster.status(leader).await?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let voters = members.iter().filter(|m| m["voter"] == true).count();
        if members.len() == 3 && voters == 3 { Ok(members) } else { Err(status.to_string()) }
    })
    .await;
    assert!(voters.iter().all(|m| m["id"] != former), "the former self is gone: {voters:?}");
    cluster.wait_equal_hashes().await;
    // It counts again: with it and without another one, there is a majority.
    cluster.kill9((wiped + 1) % 3);
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/after", "1").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_follower_comes_back_as_another_member() {
    comes_back_wiped(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_leader_comes_back_as_another_member() {
    comes_back_wiped(true).await;
}

/// Its twin is [`comes_back_wiped`]: with one disk lost, the rest lets the newcomer in.
#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_disks_lost_nobody_makes_up_a_past() {
    let cluster = Cluster::started(3, &[]).await;
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/kept?ack=all", "1").await.expect(200);
    // Told to stop, so that the last write is in the table of the disk that is left.
    for i in 0..3 {
        cluster.term(i);
        cluster.wait_exit(i).await;
    }
    (1..3).for_each(|i| cluster.wipe(i));
    (0..3).for_each(|i| cluster.spawn(i));
    // The newcomers know that they cannot be let in, and say what a person can do.
    for newcomer in 1..3 {
        eventually(PATIENCE, || async {
            let ready = cluster.send(newcomer, Request::get("/readyz")).await.map_err(|e| e.to_string())?;
            let explained = ready.status == 503 && ready.text().contains("no majority remembers");
            if explained { Ok(()) } else { Err(ready.text()) }
        })
        .await;
    }
    for i in 0..3 {
        cluster.put(i, "/key/new", "1").await.expect(503);
        assert_ne!(cluster.status(i).await.expect("it answers")["role"], "leader", "{}", cluster.name(i));
    }
    // What is left can still be looked at.
    let read = cluster.get(0, "/key/kept?consistency=stale").await;
    read.expect_json(200, serde_json::json!({"value": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn impostors_are_refused() {
    let cluster = Cluster::started(3, &[]).await;
    let spare = Cluster::new(1, &[]);

    // A second process with a living node's name, elsewhere and with an empty directory.
    let mut env = cluster.env_of(1);
    set(&mut env, "PORT", spare.port(0).to_string());
    set(&mut env, "DATA_DIR", spare.data_dir(0).display().to_string());
    let log = refused(&cluster, "second-node-2", &env).await;
    assert!(log.contains("node-2"), "names the name:\n{log}");

    // The same directory twice.
    let mut env = cluster.env_of(1);
    set(&mut env, "PORT", spare.port(0).to_string());
    let log = refused(&cluster, "same-directory", &env).await;
    assert!(log.contains("use"), "says that the directory is in use:\n{log}");

    // A copied directory beside its living original.
    let copy = cluster.data_dir(1).with_extension("copy");
    copy_dir(&cluster.data_dir(1), &copy);
    set(&mut env, "DATA_DIR", copy.display().to_string());
    let log = refused(&cluster, "copied-directory", &env).await;
    assert!(log.to_lowercase().contains("cop"), "says that it is a copy:\n{log}");

    // The port of somebody else.
    let mut env = cluster.env_of(1);
    set(&mut env, "DATA_DIR", spare.data_dir(0).display().to_string());
    let log = refused(&cluster, "taken-port", &env).await;
    assert!(log.contains(&cluster.port(1).to_string()), "names the port:\n{log}");

    // None of it disturbed the cluster.
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/undisturbed", "1").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_node_or_cluster_is_refused() {
    let cluster = Cluster::started(3, &[]).await;
    let other = Cluster::started(1, &[]).await;
    cluster.kill9(1);

    let mut env = cluster.env_of(1);
    set(&mut env, "NODE_ID", "node-9".to_owned());
    let log = refused(&cluster, "renamed", &env).await;
    assert!(log.contains("node-2") && log.contains("node-9"), "names both:\n{log}");

    other.kill9(0);
    let mut env = cluster.env_of(1);
    set(&mut env, "NODE_ID", other.name(0).to_owned());
    set(&mut env, "DATA_DIR", other.data_dir(0).display().to_string());
    let log = refused(&cluster, "other-cluster", &env).await;
    assert!(log.contains("cluster"), "says that it is another cluster's:\n{log}");

    cluster.start(1).await;
    let leader = cluster.wait_leader().await;
    cluster.put(leader, "/key/undisturbed", "1").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_with_different_sets_are_explained() {
    let cluster = Cluster::new(3, &[]);
    let mut env = cluster.env_of(0);
    set(&mut env, "PEERS", cluster.url(1));
    cluster.start_with(0, &env).await;
    let mut env = cluster.env_of(1);
    set(&mut env, "PEERS", format!("{},{}", cluster.url(0), cluster.url(2)));
    // They may refuse to run at all, or run on and say what is wrong.
    let _second = Process::start(&env, &cluster.log_path(cluster.name(1)));
    let _third = Process::start(&cluster.env_of(2), &cluster.log_path(cluster.name(2)));
    eventually(PATIENCE, || async {
        let said = said_by_all(&cluster);
        if said.contains("PEERS") { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Everything the nodes log about why they do not begin.
fn said_by_all(cluster: &Cluster) -> String {
    let log = |i| std::fs::read_to_string(cluster.log_path(cluster.name(i))).unwrap_or_default();
    (0..cluster.len()).map(log).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory beside the original");
    for entry in std::fs::read_dir(from).expect("the original is there") {
        let entry = entry.expect("a readable entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a readable file");
        }
    }
}
