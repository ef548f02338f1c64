//! The key index: for each key, which rows are its versions.
//!
//! It is in memory, and on open it is rebuilt from the table, most of it from a `checkpoint`
//! if there is one that fits. Keys are found by hash: a
//! walk down an ordered tree of 100 thousand keys misses the processor's cache a dozen
//! times, and took a third of a follower's time. Their order is kept beside, for ranges;
//! only a new key and a forgotten one touch it.
//!
//! A key with one version costs about 130 bytes, its own up to 23 among them; longer keys
//! are on the heap, once. The index has its own copy of each: a slice of a log entry's
//! buffer would keep the whole entry alive.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::io;
use std::ops::Bound;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::row::{RowId, RowRef};
use super::types::KeyRange;
use crate::types::Revision;

/// The newest version of a key: enough to make the next one without reading the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latest {
    pub id: RowId,
    pub create_revision: Revision,
    /// 0: a tombstone.
    pub version: u64,
}

impl Latest {
    pub fn of(id: RowId, row: &RowRef<'_>) -> Self {
        Self { id, create_revision: row.create_revision, version: row.version }
    }

    pub fn is_live(&self) -> bool {
        self.version > 0
    }
}

/// An older version. Flat, so that it packs into 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Older {
    revision: Revision,
    sub: u32,
    live: bool,
}

impl Older {
    pub fn new(RowId { revision, sub }: RowId, live: bool) -> Self {
        Self { revision, sub, live }
    }

    pub fn id(&self) -> RowId {
        RowId { revision: self.revision, sub: self.sub }
    }

    /// False: a tombstone.
    pub fn is_live(&self) -> bool {
        self.live
    }
}

/// The versions of one key.
#[derive(Debug)]
pub(super) struct History {
    latest: Latest,
    /// Oldest first; a queue, because compaction takes from the front. Boxed: most keys
    /// have none.
    older: Option<Box<VersionQueue>>,
}

type VersionQueue = VecDeque<Older>;

impl History {
    /// From all versions but the newest, oldest first, and the newest.
    pub fn new(older: Vec<Older>, latest: Latest) -> Self {
        let older = (!older.is_empty()).then(|| Box::new(VersionQueue::from(older)));
        Self { latest, older }
    }

    pub fn latest(&self) -> Latest {
        self.latest
    }

    /// All versions but the newest, oldest first.
    pub fn older(&self) -> impl Iterator<Item = Older> {
        self.older.iter().flat_map(|older| older.iter().copied())
    }

    fn versions(&self) -> u64 {
        1 + self.older.as_ref().map_or(0, |older| older.len() as u64)
    }

    /// The row that holds the key's value at `at` (newest when `None`), if it has one then.
    pub fn find(&self, at: Option<Revision>) -> Option<RowId> {
        let at = at.unwrap_or(Revision::MAX);
        if self.latest.id.revision <= at {
            return self.latest.is_live().then_some(self.latest.id);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|version| version.revision <= at);
        let version = older.get(after.checked_sub(1)?)?;
        version.live.then(|| version.id())
    }

    fn push(&mut self, next: Latest) {
        let older = Older::new(self.latest.id, self.latest.is_live());
        self.older.get_or_insert_default().push_back(older);
        self.latest = next;
    }

    /// Forgets an older version; false when it is not there. Compaction comes in order: it is
    /// nearly always the first.
    fn forget(&mut self, id: RowId) -> bool {
        let Some(older) = self.older.as_mut() else { return false };
        let forgotten = if older.front().is_some_and(|first| first.id() == id) {
            older.pop_front()
        } else {
            older.binary_search_by_key(&id, Older::id).ok().and_then(|place| older.remove(place))
        };
        if older.is_empty() {
            self.older = None;
        }
        forgotten.is_some()
    }
}

pub(super) type Key = hipstr::HipByt<'static>;

/// A table that is full moves all its keys to a larger one, and nobody reads meanwhile:
/// with this many tables, even ten million keys move in steps of a few milliseconds.
const TABLES: usize = 256;

/// Histories by key.
struct Histories {
    tables: Box<[HashTable<(Key, History)>]>,
    /// Seeded at random: clients choose the keys, and must not choose collisions.
    hasher: DefaultHashBuilder,
}

impl Default for Histories {
    fn default() -> Self {
        let tables = std::iter::repeat_with(HashTable::new).take(TABLES).collect();
        Self { tables, hasher: DefaultHashBuilder::default() }
    }
}

impl Histories {
    /// The key's hash, and the table that it is in. A table uses the hash's lowest and
    /// highest bits.
    fn place(&self, key: &[u8]) -> (u64, usize) {
        let hash = self.hasher.hash_one(key);
        (hash, (hash >> 32) as usize % TABLES)
    }

    fn get(&self, key: &[u8]) -> Option<&History> {
        let (hash, table) = self.place(key);
        let found = self.tables[table].find(hash, |(known, _)| *known == key);
        found.map(|(_, history)| history)
    }

    fn entry(&mut self, key: &[u8]) -> Entry<'_, (Key, History)> {
        let (hash, table) = self.place(key);
        let hasher = &self.hasher;
        let rehash = |(known, _): &(Key, History)| hasher.hash_one(known.as_slice());
        self.tables[table].entry(hash, |(known, _)| *known == key, rehash)
    }

    /// Adds a key that is not there.
    fn insert_new(&mut self, key: Key, history: History) {
        let (hash, table) = self.place(&key);
        let hasher = &self.hasher;
        let rehash = |(known, _): &(Key, History)| hasher.hash_one(known.as_slice());
        self.tables[table].insert_unique(hash, (key, history), rehash);
    }
}

/// An index in the making, from keys in order: their order is cheaper to make from all of
/// them at once.
#[derive(Default)]
pub(super) struct SortedKeys {
    histories: Histories,
    keys: Vec<Key>,
}

impl SortedKeys {
    pub fn last(&self) -> Option<&Key> {
        self.keys.last()
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds a key that comes after all others.
    pub fn push(&mut self, key: Key, history: History) {
        self.histories.insert_new(key.clone(), history);
        self.keys.push(key);
    }

    /// Looks at every key, and keeps those for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut History) -> io::Result<bool>) -> io::Result<()> {
        let mut kept = Vec::with_capacity(self.keys.len());
        for key in std::mem::take(&mut self.keys) {
            let Entry::Occupied(mut known) = self.histories.entry(&key) else { continue };
            match keep(&mut known.get_mut().1)? {
                true => kept.push(key),
                false => drop(known.remove()),
            }
        }
        self.keys = kept;
        Ok(())
    }

    pub fn into_index(self) -> KeyIndex {
        let histories = || self.histories.tables.iter().flatten().map(|(_, history)| history);
        let live = histories().filter(|history| history.latest.is_live()).count() as u64;
        let versions = histories().map(History::versions).sum();
        KeyIndex { histories: self.histories, order: self.keys.into_iter().collect(), live, versions }
    }
}

#[derive(Default)]
pub(super) struct KeyIndex {
    histories: Histories,
    /// The same keys, in order.
    order: BTreeSet<Key>,
    /// How many keys have a live newest version.
    live: u64,
    /// How many versions there are, of all keys together.
    versions: u64,
}

impl KeyIndex {
    /// How many keys there are, with those deleted by now, and how many versions of them.
    pub fn size(&self) -> (usize, u64) {
        (self.order.len(), self.versions)
    }

    /// All keys after this one (`None`: all), in order.
    pub fn after(&self, key: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &History)> {
        self.between((key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// The number of keys that exist now.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// The newest version, when the key exists now.
    pub fn latest(&self, key: &[u8]) -> Option<Latest> {
        self.histories.get(key).map(|history| history.latest).filter(Latest::is_live)
    }

    pub fn find(&self, key: &[u8], at: Option<Revision>) -> Option<RowId> {
        self.histories.get(key)?.find(at)
    }

    /// Adds the newest version of a key.
    pub fn record(&mut self, key: &[u8], next: Latest) {
        let Ok(_) = self.update::<Infallible>(key, |_| Ok(next));
    }

    /// Adds the newest version of a key, made from the one it replaces, if the key exists
    /// now; says both. Changes nothing when `make` refuses.
    pub fn update<E>(
        &mut self,
        key: &[u8],
        make: impl FnOnce(Option<Latest>) -> Result<Latest, E>,
    ) -> Result<(Option<Latest>, Latest), E> {
        let (before, next) = match self.histories.entry(key) {
            Entry::Occupied(mut known) => {
                let (_, history) = known.get_mut();
                let before = Some(history.latest).filter(Latest::is_live);
                let next = make(before)?;
                history.push(next);
                (before, next)
            }
            Entry::Vacant(place) => {
                let next = make(None)?;
                let key = Key::from(key);
                self.order.insert(key.clone());
                place.insert((key, History { latest: next, older: None }));
                (None, next)
            }
        };
        self.live += u64::from(next.is_live());
        self.live -= u64::from(before.is_some());
        self.versions += 1;
        Ok((before, next))
    }

    /// Keys in `range`, in order, with their histories; also those deleted by now. A single key
    /// is not looked for in the order of all.
    pub fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (&'a [u8], &'a History)> {
        let (one, bounds) = match range {
            KeyRange::One(key) => (self.histories.get(key).map(|history| (&key[..], history)), None),
            // B-tree ranges panic when they are inverted; an inverted range holds no key.
            KeyRange::Between(start, end) if start >= end => (None, None),
            KeyRange::Between(start, end) => {
                (None, Some((Bound::Included(&start[..]), Bound::Excluded(&end[..]))))
            }
            KeyRange::From(start) => (None, Some((Bound::Included(&start[..]), Bound::Unbounded))),
        };
        one.into_iter().chain(bounds.into_iter().flat_map(|bounds| self.between(bounds)))
    }

    fn between(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> impl Iterator<Item = (&[u8], &History)> {
        let keys = self.order.range::<[u8], _>(bounds);
        keys.filter_map(|key| Some((key.as_slice(), self.histories.get(key)?)))
    }

    /// Keys in `range` that exist now, in order.
    pub fn live_keys<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a [u8]> {
        self.range(range).filter(|(_, history)| history.latest.is_live()).map(|(key, _)| key)
    }

    /// Forgets a version that compaction removed.
    pub fn forget(&mut self, key: &[u8], id: RowId) {
        let Entry::Occupied(mut known) = self.histories.entry(key) else { return };
        let (_, history) = known.get_mut();
        if history.latest.id != id {
            self.versions -= u64::from(history.forget(id));
        } else if !history.latest.is_live() && history.older.is_none() {
            known.remove();
            self.order.remove(key);
            self.versions -= 1;
        }
    }
}
