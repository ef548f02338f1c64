//! From the store to the groups: each change is read once.

use hashbrown::HashMap;
use tokio::sync::watch;

use super::event::Encoded;
use super::state::State;
use super::{Ended, Hub};
use crate::storage::mvcc::{Change, HistoryPage, HistoryRow, KeyValue, ReadError};
use crate::types::LogId;

impl Hub {
    /// Follows what is applied until the node ends, or `sound` says that its state can't be
    /// trusted.
    pub async fn feed(&self, mut applied: watch::Receiver<Option<LogId>>, sound: impl Fn() -> bool) {
        loop {
            applied.mark_unchanged();
            while sound() && self.feed_page() {
                tokio::task::yield_now().await;
            }
            if !sound() {
                return self.end(Ended::Unsound);
            }
            if applied.changed().await.is_err() {
                return self.end(Ended::Stopping);
            }
        }
    }

    /// Hands out one page of what is new; true when there may be more.
    pub(super) fn feed_page(&self) -> bool {
        let store = &self.inner.store;
        let after = {
            let mut state = self.inner.state.lock();
            if state.is_idle() {
                state.reached(store.revision());
                return false;
            }
            state.revision()
        };
        match store.history(after, self.inner.limits.feed_page) {
            Ok(page) if page.upto <= after => false,
            Ok(page) => {
                let previous = self.previous_of(&page);
                Handing::new(page, previous).hand_out(&mut self.inner.state.lock());
                true
            }
            // The store was replaced by a newer one, or compacted before we came: who has
            // not seen what is gone will hear it from the store.
            Err(ReadError::Compacted { .. }) => {
                let mut state = self.inner.state.lock();
                let revision = store.revision();
                state.leave_all_to_store(revision);
                state.reached(revision);
                true
            }
            Err(error) => {
                tracing::error!(%error, "watchers cannot be served");
                self.end(Ended::Stopping);
                false
            }
        }
    }

    /// What the page's changes replaced, for those where somebody wants to see it.
    fn previous_of(&self, page: &HistoryPage) -> HashMap<usize, Option<KeyValue>> {
        let wanted: Vec<(usize, &HistoryRow)> = {
            let state = self.inner.state.lock();
            if !state.subjects().any_with_previous() {
                return HashMap::new();
            }
            let rows = page.rows.iter().enumerate();
            rows.filter(|(_, row)| state.wants_previous(&row.change)).collect()
        };
        let rows: Vec<&HistoryRow> = wanted.iter().map(|(_, row)| *row).collect();
        match self.inner.store.replaced(&rows) {
            Ok(previous) => wanted.iter().map(|(place, _)| *place).zip(previous).collect(),
            // Whoever wants it is sent to the store, which will say what is wrong.
            Err(_) => HashMap::new(),
        }
    }
}

impl State {
    fn wants_previous(&self, change: &Change) -> bool {
        let mut found = Vec::new();
        self.subjects().find(change.key(), &mut found);
        found.into_iter().any(|group| self.subject(group).previous)
    }
}

/// One page on its way to the groups.
struct Handing {
    page: HistoryPage,
    /// By place in the page.
    previous: HashMap<usize, Option<KeyValue>>,
}

/// What the page has for one group.
#[derive(Default)]
struct Share {
    events: Vec<Encoded>,
    /// It lacks something that only the store has: the group came after we looked.
    lacks: bool,
}

impl Handing {
    fn new(page: HistoryPage, previous: HashMap<usize, Option<KeyValue>>) -> Self {
        Self { page, previous }
    }

    fn hand_out(&self, state: &mut State) {
        // In the order in which they were first touched, the same in every run.
        let mut touched = Vec::new();
        let mut shares: HashMap<usize, Share> = HashMap::new();
        let mut found = Vec::new();
        for (place, row) in self.page.rows.iter().enumerate() {
            if row.change.revision() <= state.revision() {
                continue;
            }
            found.clear();
            state.subjects().find(row.change.key(), &mut found);
            let mut encodings = Encodings::new(&row.change, self.previous.get(&place));
            for group in found.iter().copied() {
                let subject = state.subject(group);
                if !subject.wants(&row.change) {
                    continue;
                }
                let share = shares.entry(group).or_insert_with(|| {
                    touched.push(group);
                    Share::default()
                });
                match encodings.of(subject.previous) {
                    Some(event) => share.events.push(event),
                    None => share.lacks = true,
                }
            }
        }
        for group in touched {
            match shares.remove(&group) {
                Some(share) if !share.lacks => state.hand_to(group, share.events),
                _ => state.leave_to_store(group, self.page.upto),
            }
        }
        state.reached(self.page.upto);
    }
}

/// The two ways in which one change is told, each made when first needed.
struct Encodings<'a> {
    change: &'a Change,
    previous: Option<&'a Option<KeyValue>>,
    plain: Option<Encoded>,
    full: Option<Encoded>,
}

impl<'a> Encodings<'a> {
    fn new(change: &'a Change, previous: Option<&'a Option<KeyValue>>) -> Self {
        Self { change, previous, plain: None, full: None }
    }

    fn of(&mut self, with_previous: bool) -> Option<Encoded> {
        let change = self.change;
        match (with_previous, self.previous) {
            (false, _) => Some(self.plain.get_or_insert_with(|| Encoded::new(change, None)).clone()),
            (true, None) => None,
            (true, Some(previous)) => {
                Some(self.full.get_or_insert_with(|| Encoded::new(change, previous.clone())).clone())
            }
        }
    }
}
