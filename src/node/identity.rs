//! Who this node is: the name, incarnation, run and cluster that its directory records.
//! Every change is on disk before anybody acts on it.

use std::collections::BTreeSet;
use std::io;

use crate::consensus::types::{decode_member, encode_member};
use crate::env::Disk;
use crate::env::planted::{Bug, is_planted};
use crate::env::random::rng;
use crate::proto::data as pb;
use crate::proto::peer::Run;
use crate::storage::data_dir;
use crate::types::{ClusterId, Incarnation, MemberId, MemberName};

use super::bootstrap::founding::{Founder, FoundingSet, member_id};
use super::state_check::Alarm;

#[derive(Clone, Debug)]
pub struct Identity {
    pub name: MemberName,
    pub incarnation: Incarnation,
    /// This run of the directory.
    pub run: Run,
    pub membership: Membership,
    /// Founding sets given up for good.
    pub refused: BTreeSet<ClusterId>,
    /// Why this node must not serve.
    pub alarm: Option<Alarm>,
}

/// How far this directory has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    None,
    /// A founding set is written down; its cluster has not begun here.
    Agreed(FoundingSet),
    /// The log of that cluster is in this directory.
    Begun {
        cluster: ClusterId,
        member: MemberId,
        origin: Origin,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Founder(FoundingSet),
    /// Came in the place of a directory that was lost.
    Rejoined,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Identity {
    /// Reads the directory's identity, or makes one; counts this start. On disk when it
    /// returns.
    pub fn load(disk: &dyn Disk, name: &MemberName) -> io::Result<Self> {
        let nonce = rand::Rng::next_u64(&mut rng());
        let mut identity = match data_dir::load_identity(disk)? {
            Some(stored) => Self::decode(stored, name, nonce)?,
            None => Self {
                name: name.clone(),
                incarnation: new_incarnation(name),
                run: Run { starts: 0, nonce },
                membership: Membership::None,
                refused: BTreeSet::new(),
                alarm: None,
            },
        };
        identity.run.starts += 1;
        identity.save(disk)?;
        Ok(identity)
    }

    fn decode(stored: pb::Identity, name: &MemberName, nonce: u64) -> io::Result<Self> {
        if stored.name != name.as_str() {
            return Err(invalid(format!(
                "this data directory belongs to {}, this node is called {name}: set NODE_ID={} or choose another DATA_DIR",
                stored.name, stored.name
            )));
        }
        let incarnation = Incarnation::from_slice(&stored.incarnation)
            .ok_or_else(|| invalid("identity: bad incarnation"))?;
        Ok(Self {
            name: name.clone(),
            incarnation,
            run: Run { starts: stored.starts, nonce },
            membership: stored.cluster.map_or(Ok(Membership::None), decode_membership)?,
            refused: stored.refused_clusters.into_iter().map(ClusterId).collect(),
            alarm: stored.alarm.map(Alarm::decode),
        })
    }

    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let message = pb::Identity {
            format: data_dir::FORMAT,
            name: self.name.to_string(),
            incarnation: self.incarnation.to_bytes(),
            starts: self.run.starts,
            cluster: encode_membership(&self.membership, self),
            refused_clusters: self.refused.iter().map(|cluster| cluster.0).collect(),
            alarm: self.alarm.as_ref().map(Alarm::encode),
        };
        data_dir::store_identity(disk, &message)
    }

    /// Gives a founding set up for good.
    pub fn refuse(&mut self, cluster: ClusterId) {
        self.refused.insert(cluster);
    }

    pub fn founders(&self) -> Option<&FoundingSet> {
        match &self.membership {
            Membership::Agreed(set) | Membership::Begun { origin: Origin::Founder(set), .. } => Some(set),
            _ => None,
        }
    }

    pub fn begun(&self) -> Option<(ClusterId, MemberId)> {
        match self.membership {
            Membership::Begun { cluster, member, .. } => Some((cluster, member)),
            _ => None,
        }
    }
}

fn new_incarnation(name: &MemberName) -> Incarnation {
    let mut bytes = [0; 16];
    match is_planted(Bug::WipedComesBackAsItself) {
        true => bytes.iter_mut().zip(name.as_str().bytes()).for_each(|(to, from)| *to = from),
        false => rand::Rng::fill_bytes(&mut rng(), &mut bytes),
    }
    Incarnation(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn decode_membership(stored: pb::Cluster) -> io::Result<Membership> {
    let founder = |member: &_| {
        let (_, member) = decode_member(member)?;
        Ok::<_, io::Error>(Founder { name: member.name, incarnation: member.incarnation, url: member.url })
    };
    let founders: Vec<Founder> = stored.founders.iter().map(founder).collect::<Result<_, _>>()?;
    let set = FoundingSet::new(founders);
    if !stored.begun {
        return Ok(Membership::Agreed(set));
    }
    let origin = if stored.rejoined { Origin::Rejoined } else { Origin::Founder(set) };
    Ok(Membership::Begun { cluster: ClusterId(stored.id), member: MemberId(stored.member), origin })
}

fn encode_membership(membership: &Membership, identity: &Identity) -> Option<pb::Cluster> {
    let founders =
        |set: &FoundingSet| set.members().iter().map(|(id, member)| encode_member(id.0, member)).collect();
    match membership {
        Membership::None => None,
        Membership::Agreed(set) => Some(pb::Cluster {
            id: set.cluster().0,
            member: member_id(set.cluster(), &identity.name, identity.incarnation).0,
            founders: founders(set),
            begun: false,
            rejoined: false,
        }),
        Membership::Begun { cluster, member, origin } => Some(pb::Cluster {
            id: cluster.0,
            member: member.0,
            founders: match origin {
                Origin::Founder(set) => founders(set),
                Origin::Rejoined => Vec::new(),
            },
            begun: true,
            rejoined: *origin == Origin::Rejoined,
        }),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::env::fake_disk::FakeDisk;

    fn name() -> MemberName {
        MemberName::parse("node-1").expect("a name")
    }

    /// A node's life as far as its identity goes: each step is on disk before the next.
    fn life(disk: &FakeDisk, reached: &mut Vec<Identity>) -> io::Result<()> {
        let mut identity = Identity::load(disk, &name())?;
        reached.push(identity.clone());
        let founder = Founder {
            name: name(),
            incarnation: identity.incarnation,
            url: "http://127.0.0.1:4000".to_owned(),
        };
        let set = FoundingSet::new(vec![founder]);
        let cluster = set.cluster();
        let member = member_id(cluster, &name(), identity.incarnation);
        let begun = Membership::Begun { cluster, member, origin: Origin::Founder(set.clone()) };
        let rejoined = Membership::Begun { cluster, member, origin: Origin::Rejoined };
        for membership in [Membership::Agreed(set), begun, Membership::None, rejoined] {
            if membership == Membership::None {
                identity.refuse(cluster);
            }
            identity.membership = membership;
            identity.save(disk)?;
            reached.push(identity.clone());
        }
        Ok(())
    }

    fn same(one: &Identity, other: &Identity) -> bool {
        (one.incarnation, &one.membership, &one.refused)
            == (other.incarnation, &other.membership, &other.refused)
    }

    /// Whoever saw a step of this node must find it still taken; and no run of it may be
    /// counted twice, for by that number copies are told.
    #[test]
    fn no_step_is_taken_back_and_no_start_counted_twice_wherever_the_power_goes() {
        let mut all = Vec::new();
        life(&FakeDisk::new(), &mut all).expect("nothing fails");
        for operations in 0.. {
            let mut cut = false;
            for seed in 0..8 {
                let disk = FakeDisk::new();
                let mut reached = Vec::new();
                disk.stop_after(operations);
                cut |= life(&disk, &mut reached).is_err();
                disk.crash(&mut SmallRng::seed_from_u64(seed));
                let Some(last) = reached.last() else { continue };
                let found = Identity::load(&disk, &name()).expect("loads");
                assert!(found.run.starts > last.run.starts, "{operations} {seed}");
                let next = &all[reached.len().min(all.len() - 1)];
                let may_be_next = found.incarnation == last.incarnation
                    && std::mem::discriminant(&found.membership) == std::mem::discriminant(&next.membership);
                assert!(same(&found, last) || may_be_next, "{operations} {seed}: {found:?} after {last:?}");
            }
            if !cut {
                assert!(operations > 20, "a life takes {operations} operations");
                return;
            }
        }
    }
}
