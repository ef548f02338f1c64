//! The founding set and the ids that are hashes of it.

use std::collections::BTreeMap;

use crate::consensus::types::Member;
use crate::types::{ClusterId, Incarnation, MemberId, MemberName};

/// One founder: a name, one life of its disk, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Founder {
    pub name: MemberName,
    pub incarnation: Incarnation,
    pub url: String,
}

/// The members a cluster starts with, in natural order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundingSet {
    founders: Vec<Founder>,
    cluster: ClusterId,
}

impl FoundingSet {
    pub fn new(mut founders: Vec<Founder>) -> Self {
        founders.sort();
        let cluster = hash_founders(&founders);
        Self { founders, cluster }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Founder> {
        self.founders.iter()
    }

    pub fn len(&self) -> usize {
        self.founders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.founders.is_empty()
    }

    pub fn names(&self, incarnation: Incarnation) -> bool {
        self.founders.iter().any(|founder| founder.incarnation == incarnation)
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The members with their ids, as the first log entry names them.
    pub fn members(&self) -> BTreeMap<MemberId, Member> {
        let cluster = self.cluster;
        let member = |founder: &Founder| {
            let Founder { name, incarnation, url } = founder.clone();
            (member_id(cluster, &name, incarnation), Member { name, url, incarnation })
        };
        self.founders.iter().map(member).collect()
    }
}

fn hash_founders(founders: &[Founder]) -> ClusterId {
    let mut hasher = blake3::Hasher::new_derive_key("bellwether 2026 cluster id");
    for founder in founders {
        hash_text(&mut hasher, founder.name.as_str());
        hasher.update(founder.incarnation.0.as_bytes());
        hash_text(&mut hasher, &founder.url);
    }
    ClusterId(first_u64(&hasher))
}

/// A node's id in a cluster. Another incarnation of the same name is another member.
pub fn member_id(cluster: ClusterId, name: &MemberName, incarnation: Incarnation) -> MemberId {
    let mut hasher = blake3::Hasher::new_derive_key("bellwether 2026 member id");
    hasher.update(&cluster.0.to_le_bytes());
    hash_text(&mut hasher, name.as_str());
    hasher.update(incarnation.0.as_bytes());
    MemberId(first_u64(&hasher))
}

/// Length first, so that two texts never run into each other.
fn hash_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Never 0, which means "none" in messages.
fn first_u64(hasher: &blake3::Hasher) -> u64 {
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(name: &str, incarnation: u128) -> Founder {
        Founder {
            name: MemberName::parse(name).expect("name"),
            incarnation: Incarnation(uuid::Uuid::from_u128(incarnation)),
            url: format!("http://{name}:4000"),
        }
    }

    #[test]
    fn the_same_founders_in_any_order_make_the_same_cluster() {
        let one = FoundingSet::new(vec![founder("node-1", 1), founder("node-2", 2)]);
        let two = FoundingSet::new(vec![founder("node-2", 2), founder("node-1", 1)]);
        assert_eq!(one.cluster(), two.cluster());
        assert_eq!(one.members(), two.members());
    }

    #[test]
    fn another_incarnation_makes_another_cluster_and_another_member() {
        let one = FoundingSet::new(vec![founder("node-1", 1)]);
        let two = FoundingSet::new(vec![founder("node-1", 9)]);
        assert_ne!(one.cluster(), two.cluster());
        let name = MemberName::parse("node-1").expect("name");
        let id =
            |incarnation| member_id(ClusterId(7), &name, Incarnation(uuid::Uuid::from_u128(incarnation)));
        assert_ne!(id(1), id(9));
    }
}
