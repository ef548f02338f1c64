//! Watches: created, cancelled, asked how far they are.

use super::*;

/// Ids that clients choose; small ones meet those that the server hands out. Not -1: that is
/// what etcd calls a watch that it refused, and then it tells the one of that name no more.
const WATCH_IDS: [i64; 4] = [1, 2, 7, -3];

impl Generator {
    pub(super) fn watch(&mut self) -> WatchRequest {
        let request_union = match self.rng.random_range(0..20) {
            0 => None,
            1..3 => Some(WatchUnion::ProgressRequest(WatchProgressRequest {})),
            3..7 => {
                let watch_id = self.rng.random_range(0..3);
                Some(WatchUnion::CancelRequest(WatchCancelRequest { watch_id }))
            }
            _ => Some(WatchUnion::CreateRequest(self.create())),
        };
        WatchRequest { request_union }
    }

    fn start_revision(&mut self) -> i64 {
        let start = self.revision_once_in(2);
        if self.compacted.contains(&start) { start + 1 } else { start }
    }

    fn create(&mut self) -> WatchCreateRequest {
        let filters = match self.rng.random_range(0..8) {
            0 => vec![FilterType::Noput as i32],
            1 => vec![FilterType::Nodelete as i32],
            2 => vec![FilterType::Noput as i32, FilterType::Nodelete as i32],
            3 => vec![2],
            _ => vec![],
        };
        // Nobody could wait for the end of one that is too old and shows nothing.
        let shows_nothing = filters.len() == 2;
        WatchCreateRequest {
            key: self.key(),
            range_end: self.range_end(),
            start_revision: if shows_nothing { 0 } else { self.start_revision() },
            progress_notify: self.once_in(5),
            filters,
            prev_kv: self.once_in(2),
            watch_id: if self.once_in(4) { self.one_of(&WATCH_IDS) } else { 0 },
            fragment: self.once_in(6),
        }
    }
}
