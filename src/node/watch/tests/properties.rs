//! Random histories and random watchers: each is told exactly what happened to its keys
//! since its start, in order, revisions whole, however slowly it reads, and also when
//! compaction passes it or a snapshot replaces the store.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// One log entry.
    Entry(Vec<Write>),
    /// How far behind the current revision, in per cent of it.
    Compact(u8),
    Flush,
    /// The leader goes on without the member that is watched ...
    CutOff,
    /// ... until the member is given its snapshot.
    Install,
    Feed,
    FeedOnePage,
    Watch {
        stream: Index,
        subject: Subject,
        start: Start,
    },
    Cancel {
        stream: Index,
        watch: Index,
    },
    Bookmark(Index),
    /// The client reads so much.
    Read(Index, u8),
}

#[derive(Clone, Debug)]
enum Write {
    Put(Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
    /// At one revision.
    PutAll(Vec<Bytes>),
}

#[derive(Clone, Debug)]
enum Start {
    Now,
    /// In per cent of the current revision: also in the future.
    At(u8),
}

const STREAMS: usize = 3;

fn key() -> impl Strategy<Value = Bytes> {
    "[a-d]{1,2}".prop_map(Bytes::from)
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => key().prop_map(Write::Put),
        2 => key().prop_map(Write::Delete),
        1 => (key(), key()).prop_map(|(from, to)| Write::DeleteRange(from, to)),
        1 => proptest::collection::btree_set(key(), 1..6)
            .prop_map(|keys| Write::PutAll(keys.into_iter().collect())),
    ]
}

fn watched() -> impl Strategy<Value = Subject> {
    let range = prop_oneof![
        3 => key().prop_map(KeyRange::One),
        2 => (key(), key()).prop_filter("not empty", |(a, b)| a < b).prop_map(|(a, b)| KeyRange::Between(a, b)),
        1 => key().prop_map(KeyRange::From),
        1 => Just(KeyRange::default()),
    ];
    let mostly = || proptest::bool::weighted(0.8);
    (range, mostly(), mostly(), any::<bool>()).prop_map(|(range, puts, deletes, previous)| Subject {
        range,
        puts,
        deletes,
        previous,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let start = prop_oneof![2 => Just(Start::Now), 3 => (0u8..120).prop_map(Start::At)];
    prop_oneof![
        10 => proptest::collection::vec(write(), 1..5).prop_map(Step::Entry),
        1 => (0u8..100).prop_map(Step::Compact),
        2 => Just(Step::Flush),
        1 => Just(Step::CutOff),
        1 => Just(Step::Install),
        4 => Just(Step::Feed),
        2 => Just(Step::FeedOnePage),
        5 => (any::<Index>(), watched(), start)
            .prop_map(|(stream, subject, start)| Step::Watch { stream, subject, start }),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(stream, watch)| Step::Cancel { stream, watch }),
        1 => any::<Index>().prop_map(Step::Bookmark),
        8 => (any::<Index>(), 1u8..6).prop_map(|(stream, count)| Step::Read(stream, count)),
    ]
}

/// What happened to one key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Happened {
    revision: Revision,
    key: Bytes,
    /// `None`: deleted.
    value: Option<Bytes>,
    previous: Option<Bytes>,
}

#[derive(Default)]
struct Model {
    live: BTreeMap<Bytes, Bytes>,
    history: Vec<Happened>,
    revision: Revision,
    compacted: Revision,
}

impl Model {
    fn command(&mut self, write: &Write) -> Command {
        let revision = self.revision + 1;
        let value = Bytes::from(format!("at {revision}"));
        match write {
            Write::Put(key) => {
                self.change(revision, key.clone(), Some(value.clone()));
                put(key.clone(), value)
            }
            Write::PutAll(keys) => {
                keys.iter().for_each(|key| self.change(revision, key.clone(), Some(value.clone())));
                puts(&keys.iter().map(|key| (key.clone(), value.clone())).collect::<Vec<_>>())
            }
            Write::Delete(key) => {
                if self.live.contains_key(key) {
                    self.change(revision, key.clone(), None);
                }
                delete(key.clone(), "")
            }
            Write::DeleteRange(from, to) => {
                let gone: Vec<Bytes> =
                    self.live.keys().filter(|key| *key >= from && *key < to).cloned().collect();
                gone.into_iter().for_each(|key| self.change(revision, key, None));
                delete(from.clone(), to.clone())
            }
        }
    }

    fn change(&mut self, revision: Revision, key: Bytes, value: Option<Bytes>) {
        let previous = match &value {
            Some(value) => self.live.insert(key.clone(), value.clone()),
            None => self.live.remove(&key),
        };
        self.history.push(Happened { revision, key, value, previous });
        self.revision = revision;
    }

    /// What a watcher must be told of the revisions from `from` up to `upto`.
    fn events(&self, subject: &Subject, from: Revision, upto: Revision) -> Vec<Happened> {
        let of_interest = |happened: &&Happened| {
            let kind = if happened.value.is_some() { subject.puts } else { subject.deletes };
            kind && subject.range.contains(&happened.key) && (from..=upto).contains(&happened.revision)
        };
        let found = self.history.iter().filter(of_interest).cloned();
        found
            .map(|event| Happened { previous: event.previous.filter(|_| subject.previous), ..event })
            .collect()
    }
}

/// One watch, and everything it was told.
struct Watched {
    stream: usize,
    id: i64,
    subject: Subject,
    start: Revision,
    told: Vec<Happened>,
    /// Of the last response.
    last: Revision,
    end: Option<End>,
}

enum End {
    Cancelled,
    Compacted(Revision),
}

struct World {
    leader: Bench,
    member: Bench,
    cut_off: bool,
    model: Model,
    hub: Hub,
    streams: Vec<WatchStream>,
    watched: Vec<Watched>,
}

impl World {
    fn new() -> Self {
        let (leader, member) = (Bench::new(), Bench::new());
        let page = |rows| crate::storage::mvcc::PageLimit { rows, bytes: 200 };
        let limits = Limits {
            window_bytes: 700,
            response_bytes: 60,
            feed_page: page(4),
            catch_up_page: page(3),
            ..Limits::default()
        };
        let (hub, _) = hub(&member, limits);
        let streams = (0..STREAMS).map(|_| hub.open().expect("room")).collect();
        let model = Model { revision: 1, ..Model::default() };
        Self { leader, member, cut_off: false, model, hub, streams, watched: Vec::new() }
    }

    fn apply(&mut self, commands: Vec<Command>) {
        if !self.cut_off {
            self.member.apply(commands.clone());
        }
        self.leader.apply(commands);
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Entry(writes) => {
                let commands = writes.iter().map(|write| self.model.command(write)).collect();
                self.apply(commands);
            }
            Step::Compact(percent) => {
                let upto = self.model.revision * u64::from(*percent) / 100;
                if upto > self.model.compacted {
                    self.model.compacted = upto;
                    self.apply(vec![compact(upto)]);
                }
            }
            Step::Flush => self.member.flush().await,
            Step::CutOff => self.cut_off = true,
            Step::Install => {
                self.member.install(&self.leader).await;
                self.cut_off = false;
            }
            Step::Feed => feed_all(&self.hub),
            Step::FeedOnePage => drop(self.hub.feed_page()),
            Step::Watch { stream, subject, start } => self.watch(stream.index(STREAMS), subject, start),
            Step::Cancel { stream, watch } => self.cancel(stream.index(STREAMS), watch),
            Step::Bookmark(stream) => self.streams[stream.index(STREAMS)].ask_progress(),
            Step::Read(stream, count) => {
                let stream = stream.index(STREAMS);
                for _ in 0..*count {
                    let Some(delivery) = take(&self.streams[stream]) else { break };
                    self.hear(stream, delivery);
                }
            }
        }
    }

    fn watch(&mut self, stream: usize, subject: &Subject, start: &Start) {
        let current = self.member.store.revision();
        let asked = match start {
            Start::Now => None,
            Start::At(percent) => Some((current * u64::from(*percent) / 100).max(1)),
        };
        let id = self.streams[stream].create(spec(subject.clone(), asked)).expect("room");
        let start = asked.unwrap_or(current + 1);
        let (subject, told) = (subject.clone(), Vec::new());
        self.watched.push(Watched { stream, id, subject, start, told, last: 0, end: None });
    }

    fn cancel(&mut self, stream: usize, watch: &Index) {
        let live =
            self.watched.iter_mut().filter(|watched| watched.stream == stream && watched.end.is_none());
        let mut live: Vec<&mut Watched> = live.collect();
        if live.is_empty() {
            return;
        }
        let chosen = watch.index(live.len());
        assert!(self.streams[stream].cancel(live[chosen].id));
        live[chosen].end = Some(End::Cancelled);
    }

    fn hear(&mut self, stream: usize, delivery: Delivery) {
        let mut live: Vec<&mut Watched> = self
            .watched
            .iter_mut()
            .filter(|watched| watched.stream == stream && watched.end.is_none())
            .collect();
        let place = |id: i64| live.iter().position(|watched| watched.id == id).expect("a live watch");
        match delivery {
            Delivery::Events { id, events, revision } => {
                let place = place(id);
                let watched = &mut live[place];
                let told = happened(&events);
                let first = told.first().expect("events").revision;
                assert!(first > watched.last, "a revision in two responses");
                watched.last = told.last().expect("events").revision;
                watched.told.extend(told);
                watched.check_upto(&self.model, revision);
            }
            Delivery::Progress { id: None, revision } => {
                live.iter().for_each(|watched| watched.check_upto(&self.model, revision));
            }
            Delivery::Progress { id: Some(_), .. } => panic!("nobody asked for it"),
            Delivery::Compacted { id, oldest } => {
                let place = place(id);
                live[place].end = Some(End::Compacted(oldest));
            }
        }
    }

    /// Everybody reads to the end; then all must have been told all.
    fn check(&mut self) {
        feed_all(&self.hub);
        for stream in 0..STREAMS {
            while let Some(delivery) = take(&self.streams[stream]) {
                self.hear(stream, delivery);
            }
        }
        let revision = self.member.store.revision();
        for watched in &self.watched {
            match watched.end {
                None => watched.check_upto(&self.model, revision),
                Some(End::Cancelled) => watched.check_prefix(&self.model, revision),
                Some(End::Compacted(oldest)) => {
                    watched.check_prefix(&self.model, revision);
                    assert!(oldest <= self.model.compacted + 1);
                    // It could not have been told the rest.
                    let missing = self.model.events(&watched.subject, watched.start, revision);
                    assert!(missing.len() > watched.told.len() || watched.start < oldest);
                }
            }
        }
        assert_eq!(self.hub.inner.state.lock().window_bytes(), 0, "nobody is behind");
    }
}

impl Watched {
    fn check_upto(&self, model: &Model, revision: Revision) {
        // It may have been told more by now.
        let expected = model.events(&self.subject, self.start, revision.max(self.last));
        self.compare(model, &expected);
    }

    fn check_prefix(&self, model: &Model, revision: Revision) {
        let expected = model.events(&self.subject, self.start, revision);
        let whole = expected.get(self.told.len()).is_none_or(|next| next.revision > self.last);
        assert!(whole, "a revision was cut");
        self.compare(model, &expected[..self.told.len()]);
    }

    fn compare(&self, model: &Model, expected: &[Happened]) {
        let bare = |event: &Happened| Happened { previous: None, ..event.clone() };
        let all_bare = |events: &[Happened]| events.iter().map(bare).collect::<Vec<_>>();
        assert_eq!(all_bare(&self.told), all_bare(expected), "watch of {:?}", self.subject);
        for (told, expected) in self.told.iter().zip(expected) {
            // What was replaced may have been compacted before it could be told.
            let gone = told.previous.is_none() && told.revision <= model.compacted;
            assert!(gone || told.previous == expected.previous, "{told:?} instead of {expected:?}");
        }
    }
}

fn happened(events: &[Bytes]) -> Vec<Happened> {
    let happened = decode(events).into_iter().map(|event| {
        let is_put = event.r#type() == EventType::Put;
        let kv = event.kv.expect("a key");
        Happened {
            revision: kv.mod_revision.cast_unsigned(),
            key: kv.key,
            value: is_put.then_some(kv.value),
            previous: event.prev_kv.map(|kv| kv.value),
        }
    });
    happened.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_watcher_is_told_exactly_what_happened(steps in proptest::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new();
            for step in &steps {
                world.step(step).await;
            }
            world.check();
        });
    }
}
