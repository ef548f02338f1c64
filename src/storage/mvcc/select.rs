//! Which rows a range query returns, and in which order.
//!
//! In two steps: [`Selection::find`] looks at the index, under the state's lock;
//! [`Selection::read`] reads the rows, which needs only the view. Without bounds and
//! sorting the limit holds already in the first step. With them every row of the range is
//! looked at, but only what is returned has its value read.

use std::io;

use super::row::{RowId, RowRef};
use super::state::State;
use super::table::View;
use super::types::{KeyRange, KeyValue, RangeQuery, RangeResult, ReadError, RevisionBounds, Sort, SortBy};
use crate::types::Revision;

/// A row that a reader found: still in the tail, or to be read from the view.
pub(super) enum Found {
    InTail(KeyValue),
    InTable(RowId),
}

impl Found {
    pub fn at(state: &State, id: RowId) -> Self {
        match state.tail.get(id) {
            Some(row) => Found::InTail(row.to_key_value(id)),
            None => Found::InTable(id),
        }
    }

    pub fn read(self, view: &View, keys_only: bool) -> io::Result<KeyValue> {
        match self {
            Found::InTail(kv) if keys_only => Ok(KeyValue { value: Default::default(), ..kv }),
            Found::InTail(kv) => Ok(kv),
            Found::InTable(id) if keys_only => {
                view.row(id, |row| RowRef { value: &[], ..row }.to_key_value(id))
            }
            Found::InTable(id) => view.key_value(id),
        }
    }
}

/// What the index says of a query.
pub(super) struct Selection {
    found: Vec<Found>,
    /// Keys in the range, returned or not.
    count: usize,
    revision: Revision,
}

impl Selection {
    pub fn find(state: &State, query: &RangeQuery) -> Result<Self, ReadError> {
        state.check_readable(query.at)?;
        let limit = match query.limit {
            _ if query.count_only => 0,
            0 => usize::MAX,
            _ if looks_at_all(query) => usize::MAX,
            limit if sorts_after_limit(query) => limit.saturating_add(1),
            limit => limit,
        };
        let known = known_count(state, query);
        let (mut found, mut count) = (Vec::new(), 0);
        for (_, history) in state.index.range(&query.range) {
            if known.is_some() && found.len() >= limit {
                break;
            }
            let Some(id) = history.find(query.at) else { continue };
            count += 1;
            if found.len() < limit {
                found.push(Found::at(state, id));
            }
        }
        Ok(Self { found, count: known.unwrap_or(count), revision: state.revision })
    }

    pub fn read(self, view: &View, query: &RangeQuery) -> io::Result<RangeResult> {
        let Self { found, count, revision } = self;
        let left_out = !query.count_only && count > found.len();
        let (kvs, cut) = pick(found, view, query)?;
        Ok(RangeResult { kvs, count, more: left_out || cut, revision })
    }
}

/// Whether the limit can hold only after every row was looked at.
fn looks_at_all(query: &RangeQuery) -> bool {
    let sorted_first = query.sort.is_some_and(|sort| !sort.after_limit && !sort.is_by_index());
    sorted_first || query.bounds != RevisionBounds::default()
}

/// What is sorted then is one more than the limit, as in etcd, which fetches it to see whether
/// there is more.
fn sorts_after_limit(query: &RangeQuery) -> bool {
    query.sort.is_some_and(|sort| sort.after_limit)
}

/// How many keys the query will find, when that is known without looking at each: a page
/// of all keys need not walk through millions.
fn known_count(state: &State, query: &RangeQuery) -> Option<usize> {
    let all_now = query.at.is_none() && matches!(&query.range, KeyRange::From(start) if start.is_empty());
    all_now.then(|| state.index.live() as usize)
}

/// Bounds, sorting, limit; then values are read for what is left. True when the limit left
/// something out.
fn pick(found: Vec<Found>, view: &View, query: &RangeQuery) -> io::Result<(Vec<KeyValue>, bool)> {
    let by_value = query.sort.is_some_and(|sort| sort.by == SortBy::Value);
    // Where none is left out any more, a row is read once.
    let with_values = by_value || !(query.keys_only || looks_at_all(query));
    let mut rows = Vec::new();
    for found in found {
        let row = found.look(view, with_values)?;
        if query.bounds.admit(&row.kv) {
            rows.push(row);
        }
    }
    if let Some(sort) = query.sort {
        sort.sort(&mut rows);
    }
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let kvs = rows.into_iter().map(|row| row.finish(view, query.keys_only));
    Ok((kvs.collect::<io::Result<_>>()?, more))
}

/// A row whose value may have been left where it is.
struct Looked {
    kv: KeyValue,
    value_at: Option<RowId>,
}

impl Found {
    fn look(self, view: &View, with_value: bool) -> io::Result<Looked> {
        let value_at = match &self {
            Found::InTable(id) if !with_value => Some(*id),
            Found::InTail(_) | Found::InTable(_) => None,
        };
        Ok(Looked { kv: self.read(view, value_at.is_some())?, value_at })
    }
}

impl Looked {
    fn finish(self, view: &View, keys_only: bool) -> io::Result<KeyValue> {
        match self.value_at {
            _ if keys_only => Ok(KeyValue { value: Default::default(), ..self.kv }),
            None => Ok(self.kv),
            Some(id) => Found::InTable(id).read(view, false),
        }
    }
}

impl RevisionBounds {
    fn admit(&self, kv: &KeyValue) -> bool {
        let within = |revision, min, max| revision >= min && (max == 0 || revision <= max);
        within(kv.mod_revision, self.min_mod, self.max_mod)
            && within(kv.create_revision, self.min_create, self.max_create)
    }
}

impl Sort {
    /// The index has its keys in this order already.
    fn is_by_index(self) -> bool {
        self.by == SortBy::Key && !self.descending
    }

    fn sort(self, rows: &mut [Looked]) {
        match self.by {
            SortBy::Key => rows.sort_by(|a, b| a.kv.key.cmp(&b.kv.key)),
            SortBy::Value => rows.sort_by(|a, b| a.kv.value.cmp(&b.kv.value)),
            SortBy::Version => rows.sort_by_key(|row| row.kv.version),
            SortBy::CreateRevision => rows.sort_by_key(|row| row.kv.create_revision),
            SortBy::ModRevision => rows.sort_by_key(|row| row.kv.mod_revision),
        }
        if self.descending {
            rows.reverse();
        }
    }
}
