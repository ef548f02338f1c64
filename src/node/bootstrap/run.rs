//! Asks the peers, decides, acts, until this directory holds a cluster's log.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use futures::future::join_all;

use crate::consensus;
use crate::storage::log::Vote;
use crate::types::{ClusterId, Incarnation, MemberId};

use super::super::hello::{self, Hello};
use super::super::identity::{Membership, Origin};
use super::super::{Exit, Shared, rejoin};
use super::decide::{Acquaintance, Me, Step, decide, must_abandon};
use super::founding::FoundingSet;

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(60);
/// Once something has been waited for this long, rounds become slower.
const PATIENCE: Duration = Duration::from_secs(5);
const SLOW_ROUND: Duration = Duration::from_millis(500);
/// Between two lines in the log that say the same.
const REMIND: Duration = Duration::from_secs(15);

/// One round: every peer URL, asked at the same time.
pub(crate) async fn ask_all(shared: &Shared) -> Vec<(String, Option<Hello>)> {
    let ask = |url: &String| {
        let (url, me) = (url.clone(), shared.introduction());
        async move {
            let hello = hello::ask(&shared.world.net, &url, me).await;
            (url, hello)
        }
    };
    let hellos = join_all(shared.config.peers.iter().map(ask)).await;
    let mut acquaintances = shared.acquaintances.lock();
    for (url, hello) in &hellos {
        let Some(hello) = hello else { continue };
        acquaintances.retain(|known| known.url != *url);
        let Hello { answer, .. } = hello;
        acquaintances.push(Acquaintance {
            url: url.clone(),
            name: answer.name.clone(),
            incarnation: answer.incarnation,
        });
    }
    hellos
}

fn answers(hellos: &[(String, Option<Hello>)]) -> Vec<(String, Option<super::decide::Answer>)> {
    let answer = |(url, hello): &(String, Option<Hello>)| {
        (url.clone(), hello.as_ref().map(|hello| hello.answer.clone()))
    };
    hellos.iter().map(answer).collect()
}

fn me(shared: &Shared, known_before: BTreeSet<Incarnation>) -> Me {
    let identity = shared.identity.lock();
    Me {
        name: identity.name.clone(),
        incarnation: identity.incarnation,
        advertise: shared.config.advertise_url.clone(),
        recorded: identity.founders().cloned(),
        refused: identity.refused.clone(),
        known_before,
        own_url: shared.own_url(),
    }
}

/// Says what is waited for: at once when it changes, and now and then.
struct Patience {
    since: tokio::time::Instant,
    said: Option<(String, tokio::time::Instant)>,
}

impl Patience {
    async fn wait(&mut self, shared: &Shared, why: String) {
        let again = self.said.as_ref().filter(|(said, _)| *said == why);
        if again.is_none_or(|(_, at)| at.elapsed() > REMIND) {
            tracing::info!("{}{why}", if again.is_some() { "still " } else { "" });
            self.said = Some((why.clone(), tokio::time::Instant::now()));
        }
        shared.set_waiting(why);
        let slow = self.since.elapsed() > PATIENCE;
        tokio::time::sleep(if slow { SLOW_ROUND } else { ROUND }).await;
    }
}

/// Returns when the directory holds a cluster's log: founded, joined again, or from
/// before.
pub(crate) async fn find_cluster(shared: &Shared) -> Result<(ClusterId, MemberId), Exit> {
    let mut patience = Patience { since: tokio::time::Instant::now(), said: None };
    loop {
        if let Some(begun) = shared.identity.lock().begun() {
            return Ok(begun);
        }
        let known_before = shared.acquaintances.lock().iter().map(|known| known.incarnation).collect();
        let hellos = ask_all(shared).await;
        match decide(&me(shared, known_before), &answers(&hellos)) {
            Step::Wait(why) => patience.wait(shared, why).await,
            Step::Record { set, refuse } => record(shared, set, refuse).map_err(Exit::failed)?,
            Step::Begin => begin(shared).await.map_err(Exit::failed)?,
            Step::Rejoin(cluster) => match rejoin::ask(shared, cluster, &hellos).await? {
                rejoin::Asked::Accepted(member) => {
                    settle_in(shared, cluster, member).await.map_err(Exit::failed)?
                }
                rejoin::Asked::Wait(why) => patience.wait(shared, why).await,
            },
            Step::Fail(why) => return Err(Exit::Failed(why)),
        }
    }
}

fn record(shared: &Shared, set: FoundingSet, refuse: Option<ClusterId>) -> io::Result<()> {
    let mut identity = shared.identity.lock();
    if let Some(cluster) = refuse {
        tracing::warn!(
            "giving up the founding set of cluster {cluster}: a founder came back with an empty directory"
        );
        identity.refuse(cluster);
    }
    let names: Vec<&str> = set.iter().map(|founder| founder.name.as_str()).collect();
    tracing::info!("Agreed to found cluster {} with {}", set.cluster(), names.join(", "));
    identity.membership = Membership::Agreed(set);
    identity.save(shared.world.disk.as_ref())
}

/// The log first, then the word that it is there: a crash in between leaves a seed that
/// the next start throws away.
async fn begin(shared: &Shared) -> io::Result<()> {
    let Some(set) = shared.identity.lock().founders().cloned() else {
        return Err(io::Error::other("nothing to begin: no founding set is recorded"));
    };
    consensus::seed(&shared.log, &set.members()).await?;
    let mut identity = shared.identity.lock();
    let cluster = set.cluster();
    let member = super::founding::member_id(cluster, &identity.name, identity.incarnation);
    identity.membership = Membership::Begun { cluster, member, origin: Origin::Founder(set) };
    identity.save(shared.world.disk.as_ref())
}

/// A leader let this node in: from now on it is that member.
async fn settle_in(shared: &Shared, cluster: ClusterId, member: MemberId) -> io::Result<()> {
    // A record in the log says that there is one: a begun directory without it has lost
    // its memory and must not start.
    shared.log.save_vote(Vote { term: 0, voted_for: member.0, committed: false }).await?;
    let mut identity = shared.identity.lock();
    if let Some(given_up) = identity.founders().map(FoundingSet::cluster) {
        identity.refuse(given_up);
    }
    identity.membership = Membership::Begun { cluster, member, origin: Origin::Rejoined };
    identity.save(shared.world.disk.as_ref())
}

/// Watches over a begun node: at its start until every peer has answered once, later
/// whenever no leader is heard. Returns when its peers belong to another cluster, or
/// when its own can never have a majority and nothing was ever done under it.
pub(crate) async fn watch_over(shared: &Shared) -> Exit {
    let mut all_answered = false;
    loop {
        tokio::time::sleep(SLOW_ROUND).await;
        let Some(running) = shared.running() else { continue };
        if all_answered && running.consensus.standing().0.leader.is_some() {
            continue;
        }
        let membership = shared.identity.lock().membership.clone();
        let hellos = ask_all(shared).await;
        all_answered |= hellos.iter().all(|(_, hello)| hello.is_some());
        if let Some(why) = another_cluster(running.cluster, &hellos) {
            return Exit::Failed(why);
        }
        let Membership::Begun { origin: Origin::Founder(set), .. } = membership else { continue };
        let seed_only = shared.log.last_id().is_some_and(|last| last.index == 0);
        if seed_only && must_abandon(&me(shared, BTreeSet::new()), &set, &answers(&hellos)) {
            tracing::warn!(
                "cluster {} can never have a majority: founders gave it up. Starting afresh",
                set.cluster()
            );
            return abandon(shared, set.cluster()).map_or_else(Exit::failed, |()| Exit::StartAfresh);
        }
    }
}

fn abandon(shared: &Shared, cluster: ClusterId) -> io::Result<()> {
    let mut identity = shared.identity.lock();
    identity.refuse(cluster);
    identity.membership = Membership::None;
    identity.save(shared.world.disk.as_ref())
}

/// True of a node on the wrong directory, or with the wrong PEERS: most of its peer URLs
/// lead to members of another, living cluster. A single such peer is the one at fault.
fn another_cluster(cluster: ClusterId, hellos: &[(String, Option<Hello>)]) -> Option<String> {
    let foreign = hellos.iter().filter_map(|(url, hello)| {
        let hello = hello.as_ref()?;
        let theirs = hello.answer.begun.as_ref()?.cluster;
        // Without a leader it may be a founding set that is about to be abandoned.
        (theirs != cluster && hello.leader.is_some()).then_some((url, hello, theirs))
    });
    let foreign: Vec<_> = foreign.collect();
    let (url, hello, theirs) = foreign.first()?;
    if foreign.len() * 2 <= hellos.len() {
        tracing::warn!(
            "{url} is {} of another cluster, {theirs}: check its DATA_DIR and PEERS",
            hello.answer.name
        );
        return None;
    }
    Some(format!(
        "this directory belongs to cluster {cluster}, but {url} is {} of cluster {theirs}: point PEERS at this node's own cluster, or start with an empty DATA_DIR to join that one",
        hello.answer.name
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use clap::Parser;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::config::{Config, Settings};
    use crate::env::fake_disk::FakeDisk;
    use crate::env::{Workers, World, clock, net};
    use crate::node::Node;
    use crate::node::bootstrap::founding::Founder;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        settings: Settings,
    }

    fn config() -> Config {
        let serve = Serve::try_parse_from(["serve", "--log-segment-bytes", "65536"]).expect("settings");
        serve.settings.validate().expect("valid")
    }

    fn open(disk: &FakeDisk) -> io::Result<Node> {
        let world = World {
            net: Arc::new(net::RealNet),
            disk: Arc::new(disk.boot()),
            clock: Arc::new(clock::SystemClock),
            workers: Workers::Tasks { delay: || Duration::ZERO },
        };
        Node::open(config(), world)
    }

    /// The disk of a node that has written its founding set down: itself.
    async fn agreed() -> FakeDisk {
        let disk = FakeDisk::new();
        let node = open(&disk).expect("opens");
        let mut identity = node.shared.identity.lock();
        let me = Founder {
            name: identity.name.clone(),
            incarnation: identity.incarnation,
            url: "http://127.0.0.1:4000".to_owned(),
        };
        identity.membership = Membership::Agreed(FoundingSet::new(vec![me]));
        identity.save(&disk).expect("saved");
        drop(identity);
        disk.kill();
        disk
    }

    #[derive(Clone, Copy, Debug)]
    enum Way {
        Begin,
        SettleIn,
    }

    /// Cuts the power at one operation of the step and at one of the start after it; false
    /// when the step was over before that.
    async fn cut_at(way: Way, operations: u64, seed: u64) -> bool {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = agreed().await;
        let node = open(&disk).expect("opens");
        disk.stop_after(operations);
        let done = match way {
            Way::Begin => begin(&node.shared).await,
            Way::SettleIn => settle_in(&node.shared, ClusterId(1), MemberId(2)).await,
        };
        let cut = disk.stopped();
        disk.crash(&mut rng);
        disk.stop_after(seed * 5);
        drop(open(&disk));
        disk.crash(&mut rng);
        let told = format!("{way:?}, cut at {operations}, seed {seed}");
        let node = open(&disk).unwrap_or_else(|error| panic!("{told}: {error}"));
        let begun = node.shared.identity.lock().begun().is_some();
        assert!(begun || done.is_err(), "{told}: what was begun is forgotten");
        let log = &node.shared.log;
        let remembers = log.vote().is_some() || log.last_id().is_some();
        assert_eq!(begun, remembers, "{told}: the word and the log do not fit");
        cut
    }

    /// The log first, then the word that it is there: whenever the power goes, a node has
    /// both or neither.
    #[tokio::test]
    async fn a_begun_node_has_its_log_wherever_the_power_goes() {
        for way in [Way::Begin, Way::SettleIn] {
            for operations in 0.. {
                let mut cut = false;
                for seed in 0..6 {
                    cut |= cut_at(way, operations, seed).await;
                }
                if !cut {
                    assert!(operations >= 7, "{way:?} takes {operations} operations");
                    break;
                }
            }
        }
    }
}
