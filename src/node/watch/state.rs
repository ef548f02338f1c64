//! The hub's books: streams, watchers and groups, under one lock.
//!
//! A watcher is a place in history: the next revision that it has not been given. It is
//! *behind* when its group has got events since; then it waits in its stream's queue until
//! the stream comes to take them. Whether it is given them from the group or must read
//! the store is decided at that moment, by its place alone; so a watcher falls out of the
//! live set, and returns, without a gap and without a duplicate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::Notify;

use super::event::Encoded;
use super::group::Group;
use super::limits::{Limits, MAX_BOOKMARKS};
use super::subject::{Subject, Subjects};
use super::window::Window;
use super::{Delivery, Ended, RefusedWatch, WatchSpec};
use crate::metrics::Metrics;
use crate::types::Revision;

pub struct State {
    limits: Limits,
    metrics: Arc<Metrics>,
    /// Everything up to here has been handed to the groups.
    revision: Revision,
    subjects: Subjects,
    groups: Slab<Group>,
    watchers: Slab<Watcher>,
    streams: Slab<Stream>,
    window: Window,
    /// Bytes in the keys of all watches.
    key_bytes: usize,
    /// Streams with bookmarks for a revision that the hub has not reached.
    expecting: Vec<usize>,
    ended: Option<Ended>,
}

struct Watcher {
    id: i64,
    stream: usize,
    group: usize,
    /// The lowest revision that it has not been given.
    next: Revision,
    behind: bool,
    /// It reads the store.
    slow: bool,
    /// It wants to know the revision while nothing happens.
    progress: bool,
    /// Nothing was given to it since the last look.
    quiet: bool,
}

struct Stream {
    by_id: BTreeMap<i64, usize>,
    next_id: i64,
    ready: VecDeque<Ready>,
    /// Bookmarks that were asked for and wait, in `ready` or for the hub's revision.
    bookmarks: usize,
    expected: Vec<Revision>,
    wake: Arc<Notify>,
}

/// What a stream has to look at.
#[derive(PartialEq)]
enum Ready {
    Watcher(usize),
    /// To be told when everything up to a revision was given to all.
    Bookmark(Revision),
    /// A watcher that nothing happened to wants to know the revision.
    Progress(usize),
}

/// What a stream does next.
pub enum Next {
    Deliver(Delivery),
    CatchUp(CatchUp),
    Wait,
}

/// A page to be read from the store for a slow watcher.
pub struct CatchUp {
    pub watcher: usize,
    pub subject: Subject,
    pub after: Revision,
}

impl State {
    pub fn new(limits: Limits, metrics: Arc<Metrics>, revision: Revision) -> Self {
        Self {
            limits,
            metrics,
            revision,
            subjects: Subjects::default(),
            groups: Slab::new(),
            watchers: Slab::new(),
            streams: Slab::new(),
            window: Window::default(),
            key_bytes: 0,
            expecting: Vec::new(),
            ended: None,
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn is_idle(&self) -> bool {
        self.watchers.is_empty()
    }

    #[cfg(test)]
    pub fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    pub fn subject(&self, group: usize) -> &Subject {
        &self.groups[group].subject
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Ends all streams; there will be no others.
    pub fn end(&mut self, why: Ended) {
        self.ended.get_or_insert(why);
        self.streams.iter().for_each(|(_, stream)| stream.wake.notify_one());
    }

    pub fn open(&mut self) -> Result<(usize, Arc<Notify>), RefusedWatch> {
        if self.streams.len() >= self.limits.streams {
            return Err(RefusedWatch::TooManyStreams(self.limits.streams));
        }
        let wake = Arc::new(Notify::new());
        let number = self.streams.insert(Stream {
            by_id: BTreeMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            bookmarks: 0,
            expected: Vec::new(),
            wake: wake.clone(),
        });
        self.metrics.watch_streams.inc();
        Ok((number, wake))
    }

    pub fn close(&mut self, stream: usize) {
        let gone = self.streams.remove(stream);
        gone.by_id.into_values().for_each(|watcher| self.remove_watcher(watcher));
        self.expecting.retain(|other| *other != stream);
        self.metrics.watch_streams.dec();
    }

    /// `current` is the store's revision: a watch without a start begins after it.
    pub fn create(&mut self, stream: usize, spec: WatchSpec, current: Revision) -> Result<i64, RefusedWatch> {
        let WatchSpec { id, subject, start, progress } = spec;
        self.check_room(stream, &subject)?;
        if self.is_idle() {
            // Nobody watched until now, so nobody missed what was left out.
            self.revision = self.revision.max(current);
        }
        let id = self.streams[stream].choose_id(id)?;
        let next = start.map_or(current + 1, |start| start.max(1));
        self.key_bytes += subject.bytes();
        let group = self.group(subject);
        let (behind, slow) = (false, false);
        let watcher = Watcher { id, stream, group, next, behind, slow, progress, quiet: true };
        let number = self.watchers.insert(watcher);
        self.groups[group].watchers.insert(number);
        self.streams[stream].by_id.insert(id, number);
        self.metrics.watchers.inc();
        if next <= self.revision {
            self.fall_behind(number);
        }
        Ok(id)
    }

    fn check_room(&self, stream: usize, subject: &Subject) -> Result<(), RefusedWatch> {
        let Limits { watches, watches_per_stream, key_bytes, .. } = self.limits;
        if self.streams[stream].by_id.len() >= watches_per_stream {
            return Err(RefusedWatch::TooManyOnStream(watches_per_stream));
        }
        if self.watchers.len() >= watches {
            return Err(RefusedWatch::TooMany(watches));
        }
        if self.key_bytes + subject.bytes() > key_bytes {
            return Err(RefusedWatch::TooManyKeyBytes(key_bytes));
        }
        Ok(())
    }

    fn group(&mut self, subject: Subject) -> usize {
        if let Some(group) = self.subjects.group(&subject) {
            return group;
        }
        let group = self.groups.insert(Group::new(subject.clone(), self.revision));
        self.subjects.insert(&subject, group);
        group
    }

    /// False when the stream has no such watch.
    pub fn cancel(&mut self, stream: usize, id: i64) -> bool {
        let Some(watcher) = self.streams[stream].by_id.remove(&id) else { return false };
        let gone = [Ready::Watcher(watcher), Ready::Progress(watcher)];
        self.streams[stream].ready.retain(|ready| !gone.contains(ready));
        self.remove_watcher(watcher);
        true
    }

    fn remove_watcher(&mut self, number: usize) {
        self.set_slow(number, false);
        let watcher = self.watchers.remove(number);
        self.metrics.watchers.dec();
        let group = &mut self.groups[watcher.group];
        self.key_bytes -= group.subject.bytes();
        group.watchers.remove(&number);
        if watcher.behind {
            self.one_less_behind(watcher.group);
        }
        let group = &self.groups[watcher.group];
        if group.watchers.is_empty() {
            self.subjects.remove(&group.subject);
            self.groups.remove(watcher.group);
        }
    }

    /// When nobody is behind, nobody needs the group's events.
    fn one_less_behind(&mut self, number: usize) {
        let group = &mut self.groups[number];
        group.behind -= 1;
        if group.behind == 0 {
            self.window.forget(group, self.revision);
        }
    }

    fn set_slow(&mut self, number: usize, slow: bool) {
        let watcher = &mut self.watchers[number];
        if watcher.slow != slow {
            watcher.slow = slow;
            let gauge = &self.metrics.slow_watchers;
            if slow {
                gauge.inc()
            } else {
                gauge.dec()
            };
        }
    }

    /// A watcher has something to take.
    fn fall_behind(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        watcher.behind = true;
        self.groups[watcher.group].behind += 1;
        let stream = &mut self.streams[watcher.stream];
        stream.ready.push_back(Ready::Watcher(number));
        stream.wake.notify_one();
    }

    /// Events of a group, in order, all above the hub's revision. It reaches theirs only
    /// with [`State::reached`].
    pub fn hand_to(&mut self, number: usize, events: Vec<Encoded>) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        let (first, last) = (first.revision, last.revision);
        self.all_fall_behind(number, first);
        let group = &mut self.groups[number];
        let before = group.bytes();
        events.into_iter().for_each(|event| group.push(event));
        self.window.added(number, last, group.bytes() - before);
    }

    /// A group's watchers read the store for what is after the hub's revision and up to
    /// this one.
    pub fn leave_to_store(&mut self, number: usize, upto: Revision) {
        self.all_fall_behind(number, self.revision + 1);
        self.window.forget(&mut self.groups[number], upto);
    }

    /// Everything up to this revision must be read from the store, by all.
    pub fn leave_all_to_store(&mut self, upto: Revision) {
        let groups: Vec<usize> = self.groups.iter().map(|(number, _)| number).collect();
        groups.into_iter().for_each(|group| self.leave_to_store(group, upto));
    }

    /// Those that were behind already keep their place; the others have seen all there was
    /// for them before `first`.
    fn all_fall_behind(&mut self, group: usize, first: Revision) {
        let members = std::mem::take(&mut self.groups[group].watchers);
        for number in &members {
            let watcher = &mut self.watchers[*number];
            if !watcher.behind {
                watcher.next = watcher.next.max(first);
                self.fall_behind(*number);
            }
        }
        self.groups[group].watchers = members;
    }

    /// All groups have their events up to this revision.
    pub fn reached(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.window.fit(&mut self.groups, &self.limits);
        for number in std::mem::take(&mut self.expecting) {
            let stream = &mut self.streams[number];
            let expected = std::mem::take(&mut stream.expected);
            stream.ready.extend(expected.into_iter().map(Ready::Bookmark));
            stream.wake.notify_one();
        }
    }

    /// Asks for a bookmark: word that everything up to `revision` was given to all watchers
    /// of the stream.
    pub fn ask_bookmark(&mut self, number: usize, revision: Revision) {
        let stream = &mut self.streams[number];
        if stream.bookmarks < MAX_BOOKMARKS {
            stream.bookmarks += 1;
            stream.ready.push_back(Ready::Bookmark(revision));
        }
    }

    /// Time has passed: watchers that want it, and that nothing was given to, hear the
    /// revision.
    pub fn tick(&mut self, number: usize) {
        let stream = &mut self.streams[number];
        for watcher_number in stream.by_id.values() {
            let watcher = &mut self.watchers[*watcher_number];
            if watcher.progress && std::mem::replace(&mut watcher.quiet, true) {
                stream.ready.push_back(Ready::Progress(*watcher_number));
            }
        }
    }

    pub fn next(&mut self, stream: usize) -> Next {
        while let Some(ready) = self.streams[stream].ready.pop_front() {
            let next = match ready {
                Ready::Watcher(watcher) => self.take(watcher),
                Ready::Bookmark(revision) => self.bookmark(stream, revision),
                Ready::Progress(watcher) => self.progress(watcher),
            };
            if let Some(next) = next {
                return next;
            }
        }
        Next::Wait
    }

    fn take(&mut self, number: usize) -> Option<Next> {
        let Watcher { group, next, .. } = self.watchers[number];
        let group = &self.groups[group];
        if next <= group.floor {
            let catch_up = CatchUp { watcher: number, subject: group.subject.clone(), after: next - 1 };
            self.set_slow(number, true);
            return Some(Next::CatchUp(catch_up));
        }
        let (events, cut) = group.take(next, self.limits.response_bytes);
        self.given(number, events, cut.unwrap_or(self.revision)).map(Next::Deliver)
    }

    /// What a slow watcher's page had for it, and up to where it is complete.
    pub fn caught_up(&mut self, number: usize, events: Vec<Bytes>, upto: Revision) -> Option<Delivery> {
        self.given(number, events, upto)
    }

    /// The watcher has everything up to this revision; it waits again if there is more.
    fn given(&mut self, number: usize, events: Vec<Bytes>, upto: Revision) -> Option<Delivery> {
        let watcher = &mut self.watchers[number];
        watcher.next = watcher.next.max(upto + 1);
        let (id, group, next) = (watcher.id, watcher.group, watcher.next);
        watcher.quiet &= events.is_empty();
        if next <= self.revision {
            self.streams[watcher.stream].ready.push_back(Ready::Watcher(number));
        } else {
            watcher.behind = false;
        }
        let behind = watcher.behind;
        if next > self.groups[group].floor {
            self.set_slow(number, false);
        }
        if !behind {
            self.one_less_behind(group);
        }
        self.metrics.watch_events.inc_by(events.len() as u64);
        (!events.is_empty()).then_some(Delivery::Events { id, events, revision: upto })
    }

    fn bookmark(&mut self, number: usize, revision: Revision) -> Option<Next> {
        let stream = &mut self.streams[number];
        if self.revision < revision {
            stream.expected.push(revision);
            self.expecting.push(number);
            return None;
        }
        // What is complete for all: the hub's revision, unless somebody has yet to take some.
        let complete = stream.ready.iter().fold(self.revision, |complete, ready| match ready {
            Ready::Watcher(watcher) => complete.min(self.watchers[*watcher].next - 1),
            Ready::Bookmark(_) | Ready::Progress(_) => complete,
        });
        if complete < revision {
            stream.ready.push_back(Ready::Bookmark(revision));
            return None;
        }
        stream.bookmarks -= 1;
        Some(Next::Deliver(Delivery::Progress { id: None, revision: complete }))
    }

    fn progress(&mut self, number: usize) -> Option<Next> {
        let watcher = &self.watchers[number];
        let progress = Delivery::Progress { id: Some(watcher.id), revision: self.revision };
        (!watcher.behind).then_some(Next::Deliver(progress))
    }

    /// A watcher asks for what the store has no more: it is cancelled.
    pub fn compacted(&mut self, number: usize, oldest: Revision) -> Delivery {
        let Watcher { id, stream, .. } = self.watchers[number];
        self.cancel(stream, id);
        Delivery::Compacted { id, oldest }
    }
}

impl Stream {
    /// The one asked for, or the next that is free.
    fn choose_id(&mut self, asked: Option<i64>) -> Result<i64, RefusedWatch> {
        match asked {
            Some(id) if self.by_id.contains_key(&id) => Err(RefusedWatch::DuplicateId),
            Some(id) => Ok(id),
            None => {
                while self.by_id.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                Ok(self.next_id - 1)
            }
        }
    }
}
