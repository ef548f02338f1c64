//! The connections beyond the cap: a few places that strangers may not keep from peers.
//!
//! Who connects looks like anybody until it speaks. So everybody gets a place; when all
//! are taken, a newcomer gets that of the one who came first and has not spoken as a peer.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::activity::Activity;

/// Who has a place, in the order in which they came.
#[derive(Default)]
pub struct Reserve(VecDeque<(Arc<Activity>, AbortHandle)>);

impl Reserve {
    /// Whether one more may come, of `places` in all; somebody else may have had to go.
    pub fn make_room(&mut self, places: usize) -> bool {
        if self.0.len() < places {
            return true;
        }
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < places {
            return true;
        }
        let stranger = self.0.iter().position(|(activity, _)| !activity.is_peer());
        let Some((_, task)) = stranger.and_then(|place| self.0.remove(place)) else { return false };
        task.abort();
        true
    }

    pub fn add(&mut self, activity: Arc<Activity>, task: AbortHandle) {
        self.0.push_back((activity, task));
    }
}
