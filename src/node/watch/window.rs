//! In which order the groups' events are forgotten, when all together are too many.

use std::collections::VecDeque;

use slab::Slab;

use super::group::Group;
use super::limits::Limits;
use crate::types::Revision;

#[derive(Default)]
pub struct Window {
    /// Pieces of groups' events, up to a revision, oldest first. Those that are gone
    /// already are passed over.
    pieces: VecDeque<(usize, Revision)>,
    /// What the events of all groups hold in memory. The same event counts for each of
    /// the groups that have it.
    bytes: usize,
}

impl Window {
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A group got events up to a revision, this many bytes.
    pub fn added(&mut self, group: usize, upto: Revision, bytes: usize) {
        self.bytes += bytes;
        self.pieces.push_back((group, upto));
    }

    /// Forgets a group's events up to a revision.
    pub fn forget(&mut self, group: &mut Group, upto: Revision) {
        let before = group.bytes();
        group.forget(upto);
        self.bytes -= before - group.bytes();
    }

    /// Forgets the oldest until the rest is within the limits.
    pub fn fit(&mut self, groups: &mut Slab<Group>, limits: &Limits) {
        while let Some(&(number, upto)) = self.pieces.front() {
            // A group that took a gone one's place begins after everything before it.
            let group = groups.get_mut(number).filter(|group| group.floor < upto);
            let too_much = self.bytes > limits.window_bytes || self.pieces.len() > limits.window_pieces;
            match group {
                Some(_) if !too_much => return,
                Some(group) => self.forget(group, upto),
                None => {}
            }
            self.pieces.pop_front();
        }
    }
}
