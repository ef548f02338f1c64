//! Asks the peers, decides, acts, until this directory holds a cluster's log.

use std::io;
use std::time::Duration;

use futures::future::join_all;

use crate::consensus;
use crate::storage::log::Vote;
use crate::types::{ClusterId, MemberId};

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

fn me(shared: &Shared) -> Me {
    let identity = shared.identity.lock();
    Me {
        name: identity.name.clone(),
        incarnation: identity.incarnation,
        advertise: shared.config.advertise_url.clone(),
        recorded: identity.founders().cloned(),
        refused: identity.refused.clone(),
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
        let due = self.said.as_ref().is_none_or(|(said, at)| *said != why || at.elapsed() > REMIND);
        if due {
            tracing::info!("{}{why}", if self.said.is_some() { "still " } else { "" });
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
        let hellos = ask_all(shared).await;
        match decide(&me(shared), &answers(&hellos)) {
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

/// Watches over a begun founder while no leader is heard: returns when its cluster can
/// never have a majority and nothing was ever done under it.
pub(crate) async fn watch_for_abandonment(shared: &Shared) -> Exit {
    loop {
        tokio::time::sleep(SLOW_ROUND).await;
        let Some(running) = shared.running() else { continue };
        let identity = shared.identity.lock().clone();
        let Membership::Begun { origin: Origin::Founder(set), .. } = &identity.membership else {
            return std::future::pending().await;
        };
        if running.consensus.standing().0.leader.is_some() {
            continue;
        }
        let hellos = ask_all(shared).await;
        if let Some(why) =
            another_cluster(&running.consensus.membership_message(), &identity.membership, &hellos)
        {
            return Exit::Failed(why);
        }
        let seed_only = shared.log.last_id().is_some_and(|last| last.index == 0);
        if seed_only && must_abandon(&me(shared), set, &answers(&hellos)) {
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

/// A peer URL that leads to a living member of another cluster.
fn another_cluster(
    membership: &crate::proto::log::Membership,
    mine: &Membership,
    hellos: &[(String, Option<Hello>)],
) -> Option<String> {
    let Membership::Begun { cluster, .. } = mine else { return None };
    let ours = |name: &str| membership.members.iter().any(|member| member.name == name);
    hellos.iter().find_map(|(url, hello)| {
        let answer = &hello.as_ref()?.answer;
        let theirs = answer.begun.as_ref().filter(|begun| begun.cluster != *cluster)?;
        // A founder of the same name that began another set may yet abandon it.
        let settled = hello.as_ref()?.leader.is_some();
        (settled || !ours(answer.name.as_str())).then(|| {
            format!(
                "this directory belongs to cluster {cluster}, but {url} is {} of cluster {}: point PEERS at this node's own cluster, or start with an empty DATA_DIR to join that one",
                answer.name, theirs.cluster
            )
        })
    })
}
