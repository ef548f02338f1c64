//! The key index: for each key, which rows are its versions.
//!
//! It is in memory only and is rebuilt from the table on open. A key with one version
//! costs one B-tree slot (56 bytes) and its own bytes; the rest of its history, if any,
//! is boxed. It holds its own copy of each key: a slice of a log entry's buffer would
//! keep the whole entry alive.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Bound;

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

    fn is_live(&self) -> bool {
        self.version > 0
    }
}

/// An older version. Flat, so that it packs into 16 bytes.
struct Older {
    revision: Revision,
    sub: u32,
    live: bool,
}

impl Older {
    fn id(&self) -> RowId {
        RowId { revision: self.revision, sub: self.sub }
    }
}

/// The versions of one key.
pub(super) struct History {
    latest: Latest,
    /// Oldest first; a queue, because compaction takes from the front. Boxed: most keys
    /// have none.
    older: Option<Box<VersionQueue>>,
}

type VersionQueue = VecDeque<Older>;

impl History {
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
        let RowId { revision, sub } = self.latest.id;
        let live = self.latest.is_live();
        self.older.get_or_insert_default().push_back(Older { revision, sub, live });
        self.latest = next;
    }

    /// Forgets an older version. Compaction comes in order: it is nearly always the first.
    fn forget(&mut self, id: RowId) {
        let Some(older) = self.older.as_mut() else { return };
        if older.front().is_some_and(|first| first.id() == id) {
            older.pop_front();
        } else if let Ok(place) = older.binary_search_by_key(&id, Older::id) {
            older.remove(place);
        }
        if older.is_empty() {
            self.older = None;
        }
    }
}

#[derive(Default)]
pub(super) struct KeyIndex {
    keys: BTreeMap<Box<[u8]>, History>,
    /// How many keys have a live newest version.
    live: u64,
}

impl KeyIndex {
    /// The number of keys that exist now.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// The newest version, when the key exists now.
    pub fn latest(&self, key: &[u8]) -> Option<Latest> {
        self.keys.get(key).map(|history| history.latest).filter(Latest::is_live)
    }

    pub fn find(&self, key: &[u8], at: Option<Revision>) -> Option<RowId> {
        self.keys.get(key)?.find(at)
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
        let (before, next) = match self.keys.get_mut(key) {
            Some(history) => {
                let before = Some(history.latest).filter(Latest::is_live);
                let next = make(before)?;
                history.push(next);
                (before, next)
            }
            None => {
                let next = make(None)?;
                self.keys.insert(key.into(), History { latest: next, older: None });
                (None, next)
            }
        };
        self.live += u64::from(next.is_live());
        self.live -= u64::from(before.is_some());
        Ok((before, next))
    }

    /// Keys in `range`, in order, with their histories; also those deleted by now.
    pub fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (&'a [u8], &'a History)> {
        // B-tree ranges panic when they are inverted; an inverted range holds no key.
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = match range {
            KeyRange::One(key) => (Bound::Included(key), Bound::Included(key)),
            KeyRange::Between(start, end) if start >= end => (Bound::Included(start), Bound::Included(start)),
            KeyRange::Between(start, end) => (Bound::Included(start), Bound::Excluded(end)),
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
        };
        let empty = matches!(range, KeyRange::Between(start, end) if start >= end);
        let keys = self.keys.range::<[u8], _>(bounds).take(if empty { 0 } else { usize::MAX });
        keys.map(|(key, history)| (&**key, history))
    }

    /// Forgets a version that compaction removed.
    pub fn forget(&mut self, key: &[u8], id: RowId) {
        let Some(history) = self.keys.get_mut(key) else { return };
        if history.latest.id != id {
            history.forget(id);
        } else if !history.latest.is_live() && history.older.is_none() {
            self.keys.remove(key);
        }
    }
}
