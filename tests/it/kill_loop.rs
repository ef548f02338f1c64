//! Kill -9 of random nodes under concurrent clients, over and over.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Cluster, Observer, Rng, Settings, Workload, env_number};

/// Enough for continuous integration; `BELLWETHER_KILL_ROUNDS=50` is the full form.
const DEFAULT_ROUNDS: u64 = 4;
/// Writes that must succeed before the next kill, so that every round tests something.
const WRITES_A_ROUND: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kill_9() {
    let rounds = env_number("BELLWETHER_KILL_ROUNDS", DEFAULT_ROUNDS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = env_number("BELLWETHER_SEED", clock.as_nanos() as u64);
    println!(
        "reproduce: BELLWETHER_SEED={seed} BELLWETHER_KILL_ROUNDS={rounds} cargo test --test it kill_loop"
    );
    let cluster = Arc::new(Cluster::started(3, &[]).await);
    let observer = Observer::start(&cluster.ports());
    let workload = Workload::start(&cluster, Settings { seed, clients: 6 });
    let mut rng = Rng::new(seed);
    for round in 0..rounds {
        workload.wait_progress(WRITES_A_ROUND).await;
        // Mostly one node, often the leader; sometimes two, so that nobody has a quorum.
        let first = match rng.below(2) {
            0 => cluster.wait_leader().await,
            _ => rng.below(3),
        };
        let second = (rng.below(4) == 0).then(|| (first + 1 + rng.below(2)) % 3);
        println!("round {round}: kill {first} {second:?}");
        cluster.kill9(first);
        match second {
            Some(second) => cluster.kill9(second),
            None => workload.wait_progress(WRITES_A_ROUND).await,
        }
        cluster.start(first).await;
        if let Some(second) = second {
            cluster.start(second).await;
        }
        cluster.wait_leader().await;
    }
    let history = workload.finish().await;
    println!("{} operations checked, leaders {:?}", history.len(), observer.leaders());
    observer.expect_one_leader_a_term();
    cluster.wait_equal_hashes().await;
}
