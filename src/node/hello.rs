//! "Who are you?": the one message that needs no common cluster, both ways.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::consensus::network::pool::dial;
use crate::consensus::types::{decode_member, encode_member};
use crate::env::Net;
use crate::proto::peer as pb;
use crate::proto::peer::Run;
use crate::types::{ClusterId, Incarnation, MemberId, MemberName};

use super::Shared;
use super::bootstrap::decide::{Acquaintance, Answer, Begun};
use super::bootstrap::founding::{Founder, FoundingSet};

/// A peer that takes longer counts as silent in this round.
const HELLO_TIMEOUT: Duration = Duration::from_millis(600);

/// A peer's reply: what bootstrap looks at, and what identifies the process.
#[derive(Clone, Debug)]
pub struct Hello {
    pub answer: Answer,
    pub run: Run,
    pub member: Option<MemberId>,
    pub leader: Option<MemberId>,
    /// Where the cluster's members are, when one has begun there.
    pub urls: Vec<(MemberId, String)>,
}

/// Asks once.
pub async fn ask(net: &Arc<dyn Net>, url: &str, me: pb::Identity) -> Option<Hello> {
    let call = async {
        let mut client = dial(net, url).await.ok()?;
        let reply = client.hello(pb::HelloRequest { me: Some(me) }).await.ok()?;
        decode(reply.into_inner()).ok()
    };
    tokio::time::timeout(HELLO_TIMEOUT, call).await.ok().flatten()
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn incarnation(bytes: &[u8]) -> io::Result<Incarnation> {
    Incarnation::from_slice(bytes).ok_or_else(|| invalid("bad incarnation"))
}

fn decode(reply: pb::HelloReply) -> io::Result<Hello> {
    let me = reply.me.ok_or_else(|| invalid("a hello without an identity"))?;
    let mut knows = Vec::with_capacity(reply.knows.len());
    for known in &reply.knows {
        let name = MemberName::parse(&known.name).map_err(invalid)?;
        knows.push(Acquaintance {
            url: known.url.clone(),
            name,
            incarnation: incarnation(&known.incarnation)?,
        });
    }
    let mut founders = Vec::with_capacity(reply.founders.len());
    for founder in &reply.founders {
        let (_, member) = decode_member(founder)?;
        founders.push(Founder { name: member.name, incarnation: member.incarnation, url: member.url });
    }
    let (mut members, mut urls) = (Vec::new(), Vec::new());
    for member in reply.membership.unwrap_or_default().members {
        let (id, member) = decode_member(&member)?;
        urls.push((id, member.url));
        members.push((member.name, member.incarnation));
    }
    let answer = Answer {
        name: MemberName::parse(&me.name).map_err(invalid)?,
        incarnation: incarnation(&me.incarnation)?,
        advertise: Some(me.advertise).filter(|url| !url.is_empty()),
        peers: reply.peers as usize,
        knows,
        recorded: (!founders.is_empty()).then(|| FoundingSet::new(founders)),
        refused: reply.refused_clusters.into_iter().map(ClusterId).collect::<BTreeSet<_>>(),
        begun: reply.begun.then_some(Begun { cluster: ClusterId(reply.cluster), members }),
    };
    let some_member = |id: u64| (id != 0).then_some(MemberId(id));
    let run = me.run.unwrap_or_default();
    Ok(Hello { answer, run, member: some_member(reply.member), leader: some_member(reply.leader), urls })
}

impl Shared {
    /// Who this node is, as it introduces itself.
    pub(crate) fn introduction(&self) -> pb::Identity {
        let identity = self.identity.lock();
        pb::Identity {
            name: identity.name.to_string(),
            incarnation: identity.incarnation.to_bytes(),
            run: Some(identity.run),
            advertise: self.config.advertise_url.clone().unwrap_or_default(),
        }
    }

    /// The reply to somebody's hello.
    pub(crate) fn hello_reply(&self) -> pb::HelloReply {
        let me = self.introduction();
        let knows = self.acquaintances.lock().clone();
        let running = self.running();
        let identity = self.identity.lock();
        let founders = identity.founders().map(|set| set.members()).unwrap_or_default();
        let begun = identity.begun();
        let founders_cluster = identity.founders().map(FoundingSet::cluster);
        pb::HelloReply {
            me: Some(me),
            knows: knows
                .into_iter()
                .map(|known| pb::Acquaintance {
                    url: known.url,
                    name: known.name.to_string(),
                    incarnation: known.incarnation.to_bytes(),
                })
                .collect(),
            founders: founders.iter().map(|(id, member)| encode_member(id.0, member)).collect(),
            cluster: begun.map(|(cluster, _)| cluster).or(founders_cluster).map_or(0, |cluster| cluster.0),
            member: begun.map_or(0, |(_, member)| member.0),
            begun: begun.is_some(),
            // Until the engine runs, the founders are the members.
            membership: match &running {
                Some(running) => Some(running.consensus.membership_message()),
                None => begun.map(|_| crate::proto::log::Membership {
                    configs: Vec::new(),
                    members: founders.iter().map(|(id, member)| encode_member(id.0, member)).collect(),
                }),
            },
            leader: running
                .and_then(|running| running.consensus.standing().0.leader)
                .map_or(0, |leader| leader.0),
            refused_clusters: identity.refused.iter().map(|cluster| cluster.0).collect(),
            peers: self.config.peers.len() as u32,
        }
    }
}
