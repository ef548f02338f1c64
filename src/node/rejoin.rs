//! The way back of a node whose disk was wiped.
//!
//! Under its old name it is a new member: it must not vote as if it remembered. It asks
//! the leader; the leader lets it in as a learner, fills it, and then puts it in the
//! place of its former self in one joint change. By itself the leader does so only when
//! the newcomer answers at the old self's address (so nobody else can be alive there)
//! and the other voters alone are a majority of the old configuration; one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::consensus::network::pool::dial;
use crate::consensus::types::Member;
use crate::consensus::view::{MemberView, View};
use crate::proto::peer::{self as pb, rejoin_reply};
use crate::types::{ClusterId, Incarnation, MemberId, MemberName};

use super::bootstrap::founding::member_id;
use super::hello::{self, Hello};
use super::{Exit, Running, Shared};

/// One question to a leader.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two questions of a node that is not a voter yet, and between two looks at a
/// joint change that nobody finishes.
const AGAIN: Duration = Duration::from_secs(1);

/// At most one replacement is under way on a leader.
#[derive(Clone, Default)]
pub(crate) struct Guard(Arc<AtomicBool>);

struct Busy(Guard);

impl Guard {
    fn take(&self) -> Option<Busy> {
        let free = self.0.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        free.then(|| Busy(self.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

// ---- the newcomer's side

/// What came of asking.
pub(crate) enum Asked {
    Accepted(MemberId),
    Wait(String),
}

/// Asks the leader of `cluster`, starting with whoever said that it has begun.
pub(crate) async fn ask(
    shared: &Shared,
    cluster: ClusterId,
    hellos: &[(String, Option<Hello>)],
) -> Result<Asked, Exit> {
    let begun = |hello: &&Hello| hello.answer.begun.as_ref().is_some_and(|begun| begun.cluster == cluster);
    let members = hellos
        .iter()
        .filter_map(|(url, hello)| Some((url, hello.as_ref()?)))
        .filter(|(_, hello)| begun(hello));
    if let Some(why) = too_much_was_lost(shared, cluster, hellos) {
        return Ok(Asked::Wait(why));
    }
    // The leader's address as the members know it; else any of them will say.
    let (mut url, mut leader_known) = (None, false);
    for (member_url, hello) in members {
        let leader = hello.leader.and_then(|leader| hello.urls.iter().find(|(id, _)| *id == leader));
        url = url.or(Some(member_url.clone()));
        if let (Some((_, leader_url)), false) = (leader, leader_known) {
            (url, leader_known) = (Some(leader_url.clone()), true);
        }
    }
    let Some(url) = url else { return Ok(Asked::Wait("waiting for the cluster to answer".to_owned())) };
    let reply = ask_member(shared, &url, cluster).await;
    Ok(match reply {
        Ok(rejoin_reply::Result::Accepted(member)) => {
            tracing::warn!(
                "this directory is empty, but cluster {cluster} knows {}: coming back as member {}, to be filled by the leader",
                shared.config.name,
                MemberId(member)
            );
            Asked::Accepted(MemberId(member))
        }
        Ok(rejoin_reply::Result::LeaderUrl(leader)) => {
            Asked::Wait(format!("waiting to be let in by the leader at {leader}"))
        }
        Ok(rejoin_reply::Result::Wait(why)) => Asked::Wait(format!("waiting to be let back in: {why}")),
        Ok(rejoin_reply::Result::Refused(why)) => return Err(Exit::Failed(why)),
        Err(why) => Asked::Wait(format!("waiting for {url}: {why}")),
    })
}

/// When so many directories are empty that no majority remembers the cluster, nobody can
/// let anybody in.
fn too_much_was_lost(
    shared: &Shared,
    cluster: ClusterId,
    hellos: &[(String, Option<Hello>)],
) -> Option<String> {
    let answers = || hellos.iter().filter_map(|(_, hello)| hello.as_ref()).map(|hello| &hello.answer);
    let begun =
        answers().filter_map(|answer| answer.begun.as_ref()).find(|begun| begun.cluster == cluster)?;
    let replaced = |name: &MemberName, incarnation: Incarnation| {
        *name == shared.config.name
            || answers().any(|answer| answer.name == *name && answer.incarnation != incarnation)
    };
    let members = begun.members.len();
    let lost = begun.members.iter().filter(|(name, incarnation)| replaced(name, *incarnation)).count();
    (members - lost < members / 2 + 1).then(|| {
        format!(
            "the data directories of {lost} of {members} nodes are empty: no majority remembers cluster {cluster}, so it cannot mend itself. Put a lost DATA_DIR back from a backup; or, to give up what is left, empty the others too and found a new cluster"
        )
    })
}

async fn ask_member(shared: &Shared, url: &str, cluster: ClusterId) -> Result<rejoin_reply::Result, String> {
    let request =
        pb::RejoinRequest { cluster: cluster.0, me: Some(shared.introduction()), url: shared.own_url() };
    let call = async {
        let mut client = dial(&shared.world.net, url).await.map_err(|error| error.to_string())?;
        let reply = client.rejoin(request).await.map_err(|status| status.message().to_owned())?;
        reply.into_inner().result.ok_or_else(|| "an answer of a kind this version does not know".to_owned())
    };
    tokio::time::timeout(ASK_TIMEOUT, call).await.map_err(|_| "no answer in time".to_owned())?
}

/// A node that came back keeps asking until it votes: the leader that let it in may have
/// died half way.
pub(crate) async fn stay_a_voter(shared: Arc<Shared>, running: Arc<Running>) {
    let rejoined = shared.identity.lock().membership.rejoined();
    if !rejoined {
        return;
    }
    loop {
        tokio::time::sleep(AGAIN).await;
        let view = running.consensus.view();
        if view.member(running.me()).is_some_and(|me| me.voter) && !view.joint {
            return;
        }
        let leader_url = view.leader.and_then(|leader| view.member(leader)).map(|leader| leader.url.clone());
        // Before the leader has sent anything, the peers say who leads.
        let urls = leader_url.map_or_else(|| shared.config.peers.clone(), |url| vec![url]);
        for url in urls {
            match ask_member(&shared, &url, running.cluster).await {
                Ok(rejoin_reply::Result::Refused(why)) => *shared.failure.lock() = Some(why),
                Ok(rejoin_reply::Result::Wait(why)) => tracing::debug!(%url, "not a voter yet: {why}"),
                _ => {}
            }
        }
    }
}

// ---- the leader's side

fn wait(why: impl Into<String>) -> rejoin_reply::Result {
    rejoin_reply::Result::Wait(why.into())
}

fn refused(why: impl Into<String>) -> rejoin_reply::Result {
    rejoin_reply::Result::Refused(why.into())
}

/// Answers a node that asks for its old place; starts the replacement when all is well.
pub(crate) async fn let_in(shared: &Arc<Shared>, request: pb::RejoinRequest) -> pb::RejoinReply {
    let result = match judge(shared, &request).await {
        Ok(accepted) => rejoin_reply::Result::Accepted(accepted.0),
        Err(answer) => answer,
    };
    pb::RejoinReply { result: Some(result) }
}

/// Who asks, parsed.
struct Newcomer {
    name: MemberName,
    incarnation: Incarnation,
}

impl Newcomer {
    fn parse(request: &pb::RejoinRequest) -> Option<Self> {
        let me = request.me.as_ref()?;
        let name = MemberName::parse(&me.name).ok()?;
        Some(Self { name, incarnation: Incarnation::from_slice(&me.incarnation)? })
    }
}

async fn judge(shared: &Arc<Shared>, request: &pb::RejoinRequest) -> Result<MemberId, rejoin_reply::Result> {
    let newcomer = Newcomer::parse(request).ok_or_else(|| refused("malformed request"))?;
    let running = shared.running().ok_or_else(|| wait("this node is starting"))?;
    if request.cluster != running.cluster.0 {
        return Err(refused(format!("this is cluster {}", running.cluster)));
    }
    let view = running.consensus.view();
    if view.leader != Some(running.me()) {
        let leader = view.leader.and_then(|leader| view.member(leader));
        return Err(match leader {
            Some(leader) => rejoin_reply::Result::LeaderUrl(leader.url.clone()),
            None => wait("the cluster has no leader"),
        });
    }
    let new = member_id(running.cluster, &newcomer.name, newcomer.incarnation);
    let old = former_self(&view, &newcomer, new)?;
    let Some(old) = old else { return Ok(new) };
    is_at_its_place(shared, &old, &newcomer).await?;
    let Some(busy) = running.rejoining.take() else { return Err(wait("another replacement is under way")) };
    if !view.membership_committed || view.joint {
        return Err(wait("a change of membership is under way"));
    }
    tokio::spawn(replace(running.clone(), old, new, newcomer, busy));
    Ok(new)
}

/// The voter that the newcomer was before; `None` when it is a voter already.
fn former_self(
    view: &View,
    newcomer: &Newcomer,
    new: MemberId,
) -> Result<Option<MemberView>, rejoin_reply::Result> {
    if view.member(new).is_some_and(|member| member.voter) {
        return Ok(None);
    }
    let Some(old) = view.voters().find(|member| member.name == newcomer.name) else {
        let names: Vec<&str> = view.voters().map(|member| member.name.as_str()).collect();
        return Err(refused(format!(
            "the cluster has no voter called {}; it has {}",
            newcomer.name,
            names.join(", ")
        )));
    };
    let voters = view.voters().count();
    if voters - 1 < voters / 2 + 1 {
        return Err(refused(format!(
            "{} voters without {} are no majority of {voters}: too much was lost for the cluster to mend itself. If all copies are gone, empty every DATA_DIR to found a new cluster",
            voters - 1,
            newcomer.name
        )));
    }
    Ok(Some(old.clone()))
}

/// The newcomer must be what answers at the old self's address.
async fn is_at_its_place(
    shared: &Shared,
    old: &MemberView,
    newcomer: &Newcomer,
) -> Result<(), rejoin_reply::Result> {
    let hello = hello::ask(&shared.world.net, &old.url, shared.introduction()).await;
    match hello.map(|hello| hello.answer) {
        Some(answer) if answer.incarnation == newcomer.incarnation => Ok(()),
        Some(answer) if answer.incarnation == old.incarnation => Err(refused(format!(
            "{} is alive at {}: a second process must not take its name. Give this node another NODE_ID, or stop that one first",
            old.name, old.url
        ))),
        Some(answer) => Err(refused(format!(
            "{} belongs at {}, where {} answers with another directory: start {} at its own address",
            old.name, old.url, answer.name, old.name
        ))),
        None => Err(wait(format!(
            "{} belongs at {}, where nothing answers: start it at that address",
            old.name, old.url
        ))),
    }
}

/// Learner first, then the place of the former self. What fails is asked for again.
async fn replace(running: Arc<Running>, old: MemberView, new: MemberId, newcomer: Newcomer, _busy: Busy) {
    let consensus = &running.consensus;
    tracing::warn!("{} came back with an empty directory: filling it as a learner (member {new})", old.name);
    let stale: Vec<MemberId> = consensus
        .view()
        .members
        .iter()
        .filter(|member| member.name == old.name && !member.voter && member.id != new)
        .map(|member| member.id)
        .collect();
    for learner in stale {
        if let Err(why) = consensus.remove_learner(learner).await {
            tracing::warn!("could not drop an earlier attempt of {} to come back: {why}", old.name);
            return;
        }
    }
    let member = Member { name: newcomer.name, url: old.url.clone(), incarnation: newcomer.incarnation };
    if let Err(why) = consensus.add_learner(new, member).await {
        tracing::warn!("could not fill {}: {why}; it will ask again", old.name);
        return;
    }
    match consensus.replace_voter(old.id, new).await {
        Ok(()) => {
            tracing::warn!("{} votes again as member {new}, in the place of member {}", old.name, old.id)
        }
        Err(why) => tracing::warn!("could not make {} a voter: {why}; it will ask again", old.name),
    }
}

/// A leader that finds a joint configuration which nobody is finishing completes it: a
/// crash between the two steps leaves one behind.
pub(crate) async fn finish_half_done_changes(running: Arc<Running>) {
    let mut joint_before = false;
    loop {
        tokio::time::sleep(AGAIN).await;
        let view = running.consensus.view();
        let stuck = view.engine_leads && view.joint && view.membership_committed;
        if stuck
            && joint_before
            && let Some(_busy) = running.rejoining.take()
        {
            match running.consensus.leave_joint().await {
                Ok(()) => tracing::warn!("completed a change of membership that was left half done"),
                Err(why) => tracing::warn!("could not complete a change of membership: {why}"),
            }
        }
        joint_before = stuck;
    }
}
