//! What a node without a cluster does next: a pure function of what it knows of itself
//! and what its peers answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{ClusterId, Incarnation, MemberName};

use super::founding::{Founder, FoundingSet};

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Me {
    pub name: MemberName,
    pub incarnation: Incarnation,
    pub advertise: Option<String>,
    /// The founding set that it wrote down.
    pub recorded: Option<FoundingSet>,
    /// Sets that it has given up for good.
    pub refused: BTreeSet<ClusterId>,
    /// Whom it had found before this round of questions began.
    pub known_before: BTreeSet<Incarnation>,
    /// The address of a node without peers.
    pub own_url: String,
}

/// What a node found behind one of its peer URLs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acquaintance {
    pub url: String,
    pub name: MemberName,
    pub incarnation: Incarnation,
}

/// One peer's answer to "who are you?".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub name: MemberName,
    pub incarnation: Incarnation,
    pub advertise: Option<String>,
    /// How many URLs its `PEERS` has, and whom it found behind them so far.
    pub peers: usize,
    pub knows: Vec<Acquaintance>,
    pub recorded: Option<FoundingSet>,
    pub refused: BTreeSet<ClusterId>,
    /// The cluster that it has begun, with the members it has now.
    pub begun: Option<Begun>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Begun {
    pub cluster: ClusterId,
    pub members: Vec<(MemberName, Incarnation)>,
}

/// All peer URLs, in the order of `PEERS`, each with its answer if there was one.
pub type Answers = [(String, Option<Answer>)];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again; the text says for whom or what.
    Wait(String),
    /// Write this set down; give the other one up, if one is named.
    Record { set: FoundingSet, refuse: Option<ClusterId> },
    /// Seed the log with the recorded set and start.
    Begin,
    /// The cluster knows this name under another incarnation: ask its leader to be let
    /// back in. Nothing is given up before a leader agrees: who began that cluster may
    /// yet abandon it.
    Rejoin(ClusterId),
    /// The settings cannot work; the text says how to mend them.
    Fail(String),
}

pub fn decide(me: &Me, answers: &Answers) -> Step {
    let answered: Vec<(&str, &Answer)> =
        answers.iter().filter_map(|(url, answer)| Some((url.as_str(), answer.as_ref()?))).collect();
    if let Some(mistake) = mistaken_names(me, &answered) {
        return Step::Fail(mistake);
    }
    if let Some(step) = follow_begun(me, &answered) {
        return step;
    }
    let silent: Vec<&str> =
        answers.iter().filter(|(_, answer)| answer.is_none()).map(|(url, _)| url.as_str()).collect();
    if !silent.is_empty() {
        return Step::Wait(format!("waiting for {} to answer", silent.join(" and ")));
    }
    if let Some(mistake) = mistaken_sets(me, &answered) {
        return Step::Fail(mistake);
    }
    match founding_set(me, &answered) {
        Ok(set) => agree(me, set, &answered),
        Err(unknown) => Step::Wait(unknown),
    }
}

/// Two nodes of one name, or this node behind one of its own peer URLs.
fn mistaken_names(me: &Me, answered: &[(&str, &Answer)]) -> Option<String> {
    let mut seen: BTreeMap<&MemberName, &str> = BTreeMap::new();
    for (url, answer) in answered {
        if answer.incarnation == me.incarnation {
            return Some(format!(
                "the peer URL {url} leads to this node itself, or to a copy of its data directory: PEERS lists the other nodes only, and each needs a directory of its own"
            ));
        }
        if answer.name == me.name && answer.begun.is_none() {
            return Some(format!(
                "the node at {url} is called {} too: give each node its own NODE_ID",
                me.name
            ));
        }
        if let Some(other) = seen.insert(&answer.name, url) {
            return Some(format!(
                "{other} and {url} are both {}: list each node once in PEERS, and give each its own NODE_ID",
                answer.name
            ));
        }
    }
    None
}

/// Somebody has begun: go along, ask to be let back in, or say what is wrong.
fn follow_begun(me: &Me, answered: &[(&str, &Answer)]) -> Option<Step> {
    let begun = answered.iter().filter_map(|(url, answer)| Some((*url, answer.begun.as_ref()?)));
    // A set that we gave up can have no majority: who began it will find out.
    let begun: Vec<_> = begun.filter(|(_, begun)| !me.refused.contains(&begun.cluster)).collect();
    let recorded = me.recorded.as_ref().map(FoundingSet::cluster);
    if begun.iter().any(|(_, begun)| Some(begun.cluster) == recorded) {
        return Some(Step::Begin);
    }
    let (url, first) = *begun.first()?;
    if let Some((other, _)) = begun.iter().find(|(_, other)| other.cluster != first.cluster) {
        // One of them may be about to give up; two living clusters stay.
        return Some(Step::Wait(format!(
            "waiting: {url} and {other} belong to different clusters; if that lasts, check PEERS on this node and on those two"
        )));
    }
    if first.members.iter().any(|(name, _)| *name == me.name) {
        return Some(Step::Rejoin(first.cluster));
    }
    let names: Vec<&str> = first.members.iter().map(|(name, _)| name.as_str()).collect();
    Some(Step::Fail(format!(
        "the cluster at {url} has no member called {}; its members are {}: use one of those names with that node's address, or start a cluster of its own by pointing PEERS elsewhere",
        me.name,
        names.join(", ")
    )))
}

/// Peers whose own PEERS name other nodes than ours.
fn mistaken_sets(me: &Me, answered: &[(&str, &Answer)]) -> Option<String> {
    let ours: BTreeSet<Incarnation> =
        answered.iter().map(|(_, answer)| answer.incarnation).chain([me.incarnation]).collect();
    for (url, answer) in answered {
        let theirs: BTreeSet<Incarnation> =
            answer.knows.iter().map(|known| known.incarnation).chain([answer.incarnation]).collect();
        // What it has not found yet, or knew under an incarnation that is gone, is no
        // mistake; another number of peers is.
        if answer.peers + 1 != ours.len() {
            return Some(format!(
                "{} at {url} lists {} peers, this node {}: PEERS on every node must list all the others",
                answer.name,
                answer.peers,
                answered.len()
            ));
        }
        if answer.knows.len() == answer.peers && !theirs.contains(&me.incarnation) {
            let knows_my_name = answer.knows.iter().any(|known| known.name == me.name);
            if !knows_my_name {
                return Some(format!(
                    "{} at {url} does not list this node in its PEERS: PEERS on every node must list all the others",
                    answer.name
                ));
            }
        }
    }
    None
}

/// The set that everybody computes from the same answers.
fn founding_set(me: &Me, answered: &[(&str, &Answer)]) -> Result<FoundingSet, String> {
    // Everybody's (name, incarnation, advertised address), by name.
    let mut everybody: BTreeMap<&MemberName, (Incarnation, Option<&String>)> = answered
        .iter()
        .map(|(_, answer)| (&answer.name, (answer.incarnation, answer.advertise.as_ref())))
        .collect();
    everybody.insert(&me.name, (me.incarnation, me.advertise.as_ref()));
    let names: Vec<&MemberName> = everybody.keys().copied().collect();
    let mut founders = Vec::with_capacity(names.len());
    for (name, (incarnation, advertise)) in &everybody {
        let url = match (advertise, names.iter().find(|other| *other != name)) {
            (Some(url), _) => (*url).clone(),
            (None, Some(witness)) => reached_by(me, answered, witness, *incarnation)
                .ok_or_else(|| format!("waiting for {witness} to find {name}"))?,
            (None, None) => me.own_url.clone(),
        };
        founders.push(Founder { name: (*name).clone(), incarnation: *incarnation, url });
    }
    Ok(FoundingSet::new(founders))
}

/// The URL by which `witness` reaches the node with that incarnation.
fn reached_by(
    me: &Me,
    answered: &[(&str, &Answer)],
    witness: &MemberName,
    target: Incarnation,
) -> Option<String> {
    if *witness == me.name {
        let found = answered.iter().find(|(_, answer)| answer.incarnation == target);
        return found.map(|(url, _)| (*url).to_owned());
    }
    let (_, answer) = answered.iter().find(|(_, answer)| answer.name == *witness)?;
    answer.knows.iter().find(|known| known.incarnation == target).map(|known| known.url.clone())
}

/// All answered and none has begun: write the set down, replace it, or begin.
fn agree(me: &Me, set: FoundingSet, answered: &[(&str, &Answer)]) -> Step {
    match &me.recorded {
        None if me.refused.contains(&set.cluster()) => {
            Step::Wait("waiting for a founding set that this node has not given up".to_owned())
        }
        None => Step::Record { set, refuse: None },
        Some(recorded) if *recorded == set => {
            let undecided: Vec<&str> = answered
                .iter()
                .filter(|(_, answer)| answer.recorded.as_ref() != Some(&set))
                .map(|(_, answer)| answer.name.as_str())
                .collect();
            match undecided.is_empty() {
                true => Step::Begin,
                false => Step::Wait(format!(
                    "waiting for {} to agree on the founding set",
                    undecided.join(" and ")
                )),
            }
        }
        Some(recorded) if me.refused.contains(&set.cluster()) => {
            Step::Wait(format!("waiting: the founding set of cluster {} was given up", recorded.cluster()))
        }
        // A new incarnation came up within this very round: the others' answers may be
        // from before its former self died, when they might have begun together. Only
        // what they say from now on counts.
        Some(recorded) if came_up_just_now(me, recorded, &set) => {
            Step::Wait("a founder came back with an empty directory; asking everybody again".to_owned())
        }
        Some(recorded) => Step::Record { refuse: Some(recorded.cluster()), set },
    }
}

fn came_up_just_now(me: &Me, recorded: &FoundingSet, set: &FoundingSet) -> bool {
    let new =
        set.iter().map(|founder| founder.incarnation).filter(|incarnation| !recorded.names(*incarnation));
    new.into_iter().any(|incarnation| !me.known_before.contains(&incarnation))
}

/// For a begun node whose log holds nothing but the seed: true when its set can neither
/// have had a majority nor ever have one, because founders have given it up or came back
/// with empty disks. Nothing can have been acknowledged under it, so it may start afresh.
pub fn must_abandon(me: &Me, set: &FoundingSet, answers: &Answers) -> bool {
    let cluster = set.cluster();
    let answer_of = |founder: &Founder| {
        answers.iter().filter_map(|(_, answer)| answer.as_ref()).find(|answer| answer.name == founder.name)
    };
    let refuses =
        |founder: &Founder| answer_of(founder).is_some_and(|answer| answer.refused.contains(&cluster));
    let gone = |founder: &Founder| {
        answer_of(founder).is_some_and(|answer| answer.incarnation != founder.incarnation)
    };
    let majority = set.len() / 2 + 1;
    // Who refuses a set never began it; who is gone may have. We took part in nothing.
    let may_have_acted =
        set.iter().filter(|founder| founder.incarnation != me.incarnation && !refuses(founder)).count();
    let can_act = set.iter().filter(|founder| !refuses(founder) && !gone(founder)).count();
    may_have_acted < majority && can_act < majority
}
