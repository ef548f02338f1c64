//! Rows that were read from the table lately: to find one again takes no walk through redb's
//! tree, and no page from the operating system. A row never changes, so what is here is never
//! out of date; what compaction forgets is not asked for any more, and makes room in time.

use hashbrown::DefaultHashBuilder;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::row::RowId;
use super::types::KeyValue;

/// What a row takes besides its key and value: its numbers, a place in the cache, and what
/// the allocator adds.
const ROW_BYTES: usize = 200;
/// Only how many rows that had to go are remembered by their ids depends on it.
const TYPICAL_ROW_BYTES: u64 = 500;

pub(super) struct RecentRows(Cache<RowId, KeyValue, Size, DefaultHashBuilder>);

#[derive(Clone)]
struct Size;

impl Weighter<RowId, KeyValue> for Size {
    fn weight(&self, _: &RowId, row: &KeyValue) -> u64 {
        (row.key.len() + row.value.len() + ROW_BYTES) as u64
    }
}

impl RecentRows {
    /// Keeps so many bytes at most. A node that serves no reads from its table takes none.
    pub fn new(bytes: u64) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes)
            .estimated_items_capacity((bytes / TYPICAL_ROW_BYTES) as usize)
            // What is kept must not depend on a hash: simulated nodes do the same each time.
            .shards(1)
            .build()
            .expect("all that is needed is set");
        Self(Cache::with_options(options, Size, DefaultHashBuilder::default(), DefaultLifecycle::default()))
    }

    /// How many bytes there is room for.
    pub fn room(&self) -> u64 {
        self.0.capacity()
    }

    pub fn get(&self, id: RowId) -> Option<KeyValue> {
        self.0.get(&id)
    }

    /// Keeps the row, perhaps in the place of others.
    pub fn add(&self, id: RowId, row: KeyValue) {
        self.0.insert(id, row);
    }

    /// For a row that was changed all the same.
    pub fn remove(&self, id: RowId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn row(revision: u64, value_bytes: usize) -> (RowId, KeyValue) {
        let value = Bytes::from(vec![0; value_bytes]);
        let row = KeyValue {
            key: Bytes::from_static(b"k"),
            value,
            create_revision: 1,
            mod_revision: revision,
            version: revision,
            lease: 0,
        };
        (RowId::first_of(revision), row)
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        const BYTES: u64 = 32 << 20;
        const VALUE_BYTES: usize = 100_000;
        let (recent, room) = (RecentRows::new(BYTES), BYTES / VALUE_BYTES as u64);
        for revision in 1..=2 * room {
            let (id, row) = row(revision, VALUE_BYTES);
            recent.add(id, row);
        }
        let kept = (1..=2 * room).filter(|revision| recent.get(RowId::first_of(*revision)).is_some());
        let kept = kept.count() as u64;
        assert!(kept <= room && kept > room / 2, "{kept} rows where {room} have room");
        let (id, large) = row(3 * room, BYTES as usize);
        recent.add(id, large);
        assert!(recent.get(id).is_none(), "one that would take the place of all others");
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let (recent, (id, row)) = (RecentRows::new(0), row(7, 3));
        recent.add(id, row);
        assert_eq!(recent.get(id), None);
    }

    #[test]
    fn a_row_is_what_was_added_until_it_is_removed() {
        let recent = RecentRows::new(10_000);
        let (id, row) = row(7, 3);
        assert_eq!(recent.get(id), None);
        recent.add(id, row.clone());
        assert_eq!(recent.get(id), Some(row));
        recent.remove(id);
        assert_eq!(recent.get(id), None);
    }
}
