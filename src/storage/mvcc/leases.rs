//! Leases: promises that end, and the keys that go with them.
//!
//! Only what is replicated is here: which leases there are, which keys hang on them, and
//! until when, on the *lease clock*. That clock is part of the state: log entries carry it
//! and it never goes back, so every replica knows the same time left. What moves it, and
//! who declares a lease ended, is the leader (`node::leases`).
//!
//! Which key hangs on which lease is in the rows already; it is rebuilt from them on open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use super::table::invalid;
use super::types::Lease;

const MS_PER_SECOND: u64 = 1000;

/// A lease that was added, changed or (`None`) ended.
pub(super) type LeaseChange = (i64, Option<Lease>);

#[derive(Default)]
pub(super) struct Leases {
    /// The lease clock, in milliseconds.
    clock_ms: u64,
    by_id: BTreeMap<i64, (Lease, BTreeSet<Bytes>)>,
    /// The same leases, in the order in which they end.
    by_deadline: BTreeSet<(u64, i64)>,
    of_key: BTreeMap<Bytes, i64>,
    /// Since the last log entry ended.
    changes: Vec<LeaseChange>,
}

impl Leases {
    /// As the table holds them; keys are attached afterwards, row by row.
    pub fn load(clock_ms: u64, leases: impl IntoIterator<Item = (i64, Lease)>) -> Self {
        let mut loaded = Self { clock_ms, ..Self::default() };
        for (id, lease) in leases {
            loaded.by_id.insert(id, (lease, BTreeSet::new()));
            loaded.by_deadline.insert((lease.deadline_ms, id));
        }
        loaded
    }

    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// An entry carries the clock of the leader that proposed it. A leader's may stand behind
    /// for a moment, right after it was elected.
    pub fn advance_clock(&mut self, to_ms: u64) {
        self.clock_ms = self.clock_ms.max(to_ms);
    }

    pub fn get(&self, id: i64) -> Option<Lease> {
        self.by_id.get(&id).map(|(lease, _)| *lease)
    }

    pub fn keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.by_id.get(&id).into_iter().flat_map(|(_, keys)| keys)
    }

    /// All leases, those that end first first.
    pub fn by_deadline(&self) -> impl Iterator<Item = (u64, i64)> {
        self.by_deadline.iter().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i64, Lease)> {
        self.by_id.iter().map(|(id, (lease, _))| (*id, *lease))
    }

    /// The lease that the key hangs on; 0: none.
    pub fn of_key(&self, key: &[u8]) -> i64 {
        self.of_key.get(key).copied().unwrap_or(0)
    }

    /// Starts a lease, or gives one its whole time again.
    pub fn put(&mut self, id: i64, ttl_s: i64) {
        let ttl_ms = u64::try_from(ttl_s).unwrap_or(0).saturating_mul(MS_PER_SECOND);
        let lease = Lease { ttl_s, deadline_ms: self.clock_ms.saturating_add(ttl_ms) };
        let (known, _) = self.by_id.entry(id).or_insert((lease, BTreeSet::new()));
        self.by_deadline.remove(&(known.deadline_ms, id));
        *known = lease;
        self.by_deadline.insert((lease.deadline_ms, id));
        self.changes.push((id, Some(lease)));
    }

    /// Ends a lease, whose keys must be detached already.
    pub fn remove(&mut self, id: i64) {
        let Some((lease, _)) = self.by_id.remove(&id) else { return };
        self.by_deadline.remove(&(lease.deadline_ms, id));
        self.changes.push((id, None));
    }

    /// The key was written with this lease, or with none, or deleted (0 both times).
    pub fn attach(&mut self, key: &[u8], lease: i64) {
        if lease == 0 && self.of_key.is_empty() {
            return;
        }
        let before = match lease {
            0 => self.of_key.remove(key),
            // A copy of its own: a slice of a log entry would keep the whole entry alive.
            _ => self.of_key.insert(Bytes::copy_from_slice(key), lease),
        };
        if before == Some(lease) {
            return;
        }
        if let Some((_, keys)) = before.and_then(|before| self.by_id.get_mut(&before)) {
            keys.remove(key);
        }
        if let Some((_, keys)) = self.by_id.get_mut(&lease) {
            keys.insert(Bytes::copy_from_slice(key));
        }
    }

    /// What the log entry that ends now did to the leases.
    pub fn take_changes(&mut self) -> Vec<LeaseChange> {
        std::mem::take(&mut self.changes)
    }
}

impl Lease {
    /// The encoding in the table, in the snapshot and in the state hash.
    pub(super) fn encode(self) -> Vec<u8> {
        let mut encoded = Vec::new();
        encode_varint(self.ttl_s.cast_unsigned(), &mut encoded);
        encode_varint(self.deadline_ms, &mut encoded);
        encoded
    }

    pub(super) fn decode(mut encoded: &[u8]) -> io::Result<Self> {
        let mut number = || decode_varint(&mut encoded).map_err(|_| invalid("a lease cannot be decoded"));
        let lease = Self { ttl_s: number()?.cast_signed(), deadline_ms: number()? };
        if encoded.is_empty() { Ok(lease) } else { Err(invalid("a lease is longer than it should be")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases() -> Leases {
        let mut leases = Leases::default();
        leases.advance_clock(1_000);
        leases.put(7, 5);
        leases.put(8, 2);
        leases
    }

    #[test]
    fn a_key_hangs_on_one_lease_at_a_time() {
        let (mut leases, key) = (leases(), Bytes::from_static(b"k"));
        leases.attach(&key, 7);
        leases.attach(&key, 8);
        assert_eq!((leases.keys(7).count(), leases.keys(8).count()), (0, 1));
        leases.attach(&key, 0);
        assert_eq!((leases.of_key(&key), leases.keys(8).count()), (0, 0));
    }

    #[test]
    fn those_that_end_first_come_first_and_renewal_counts_from_now() {
        let mut leases = leases();
        assert_eq!(leases.by_deadline().collect::<Vec<_>>(), [(3_000, 8), (6_000, 7)]);
        leases.advance_clock(5_000);
        leases.advance_clock(4_000);
        leases.put(8, 2);
        assert_eq!(leases.by_deadline().collect::<Vec<_>>(), [(6_000, 7), (7_000, 8)]);
        leases.remove(7);
        assert_eq!(leases.iter().map(|(id, _)| id).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_lease_reads_back_as_written() {
        for lease in
            [Lease { ttl_s: 9_000_000_000, deadline_ms: u64::MAX }, Lease { ttl_s: -1, deadline_ms: 0 }]
        {
            assert_eq!(Lease::decode(&lease.encode()).expect("decodes"), lease);
        }
        assert!(Lease::decode(&[]).is_err());
        assert!(Lease::decode(&[1, 2, 3]).is_err());
    }
}
