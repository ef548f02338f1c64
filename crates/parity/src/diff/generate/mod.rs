//! Draws sequences: mostly what clients do, often at the edges, sometimes plainly wrong.
//!
//! Few keys and few leases, so that operations meet: most deletes hit something, most
//! transactions compare what exists. What is wrong is drawn field by field, so that a
//! request may be wrong in several ways at once and the order of the checks shows, too.

mod kv;
mod lease;
mod watch;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::op::{Action, Op, Sequence};
use super::proto::*;
use super::symbols::{BASE, CHOSEN, OLDEST};

/// Operations of a sequence; enough for a history, few enough to read.
const LEAST_OPS: usize = 4;
const MOST_OPS: usize = 36;
/// Sequences that watch something: one in so many.
const WATCHING: u32 = 2;
/// Names that are prefixes of each other, a zero byte, the greatest byte.
const KEYS: [&[u8]; 7] = [b"a", b"aa", b"ab", b"b", b"b\0", b"c", b"\xff"];
/// Revisions past the sequence's begin that requests speak of.
const REVISIONS: i64 = 16;
const FAR_FUTURE: i64 = 1 << 40;
/// Leases that clients choose ids for.
const LEASES: i64 = 4;
/// An id that nobody ever grants.
const UNKNOWN_LEASE: i64 = 77;

pub struct Generator {
    rng: SmallRng,
    watching: bool,
    /// Where a compaction was asked for; no watch begins there, for such are known to differ.
    compacted: Vec<i64>,
    /// The transaction that is made has deleted all keys from one on.
    deleted_the_rest: bool,
}

/// The sequence of a seed, always the same.
pub fn sequence(seed: u64) -> Sequence {
    let mut rng = SmallRng::seed_from_u64(seed);
    let watching = rng.random_ratio(1, WATCHING);
    let mut generator = Generator { rng, watching, compacted: vec![BASE], deleted_the_rest: false };
    let length = generator.rng.random_range(LEAST_OPS..=MOST_OPS);
    let mut ops = Vec::new();
    while ops.len() < length {
        let node = generator.rng.random_range(0..3);
        ops.extend(generator.actions().into_iter().map(|action| Op { node, action }));
    }
    Sequence { seed, ops: ops.into_iter().enumerate().collect() }
}

impl Generator {
    /// One action, or some that belong together.
    fn actions(&mut self) -> Vec<Action> {
        match self.rng.random_range(0..100) {
            0..25 => vec![Action::Put(self.put())],
            25..43 => vec![Action::Range(self.range())],
            43..52 => vec![Action::DeleteRange(self.delete())],
            52..72 => vec![Action::Txn(self.txn(0))],
            72..75 => vec![Action::Compact(self.compact())],
            75..86 => self.lease_actions(),
            _ if self.watching => vec![Action::Watch(self.watch())],
            86..94 => vec![Action::Put(self.put())],
            _ => vec![Action::Range(self.range())],
        }
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.rng.random_ratio(1, times)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())]
    }

    fn key(&mut self) -> Bytes {
        if self.once_in(40) { Bytes::new() } else { Bytes::from_static(self.one_of(&KEYS)) }
    }

    /// One key, all from one on, or up to another, which may well be smaller.
    fn range_end(&mut self) -> Bytes {
        match self.rng.random_range(0..10) {
            0..4 => Bytes::new(),
            4..6 => Bytes::from_static(b"\0"),
            _ => Bytes::from_static(self.one_of(&KEYS)),
        }
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.one_of(&[b"1".as_slice(), b"2", b"10", b"", b"\x00\xff"]))
    }

    /// Compacted, of the sequence, or not yet made.
    fn revision(&mut self) -> i64 {
        match self.rng.random_range(0..30) {
            0 => FAR_FUTURE,
            1 => -1,
            2 => OLDEST,
            _ => self.rng.random_range(BASE - 1..BASE + REVISIONS),
        }
    }

    fn revision_once_in(&mut self, times: u32) -> i64 {
        if self.once_in(times) { self.revision() } else { 0 }
    }

    /// The client's choice, the server's, or nobody's.
    fn lease(&mut self) -> i64 {
        match self.rng.random_range(0..12) {
            0 => UNKNOWN_LEASE,
            1..3 => CHOSEN + self.rng.random_range(0..2),
            _ => self.rng.random_range(1..=LEASES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        let draw = |seed| sequence(seed).ops;
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_kind_of_operation_is_drawn() {
        let all: std::collections::BTreeSet<_> =
            (0..200).flat_map(|seed| sequence(seed).ops).map(|(_, op)| op.action.kind()).collect();
        // Settling is not drawn.
        assert_eq!(all.len(), 11, "{all:?}");
    }
}
