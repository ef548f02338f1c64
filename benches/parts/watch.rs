//! From the store to watchers of one key.

use bellwether::node::watch::{Delivery, Hub, Subject, WatchSpec, WatchStream, limits::Limits};
use bellwether::storage::mvcc::KeyRange;
use bellwether::types::LogId;
use std::sync::Arc;
use tokio::sync::watch;

use super::{MANY, VALUE_BYTES, batch, key, put, store::Fed, value};

pub struct Watched {
    fed: Fed,
    applied: watch::Sender<Option<LogId>>,
    streams: Vec<WatchStream>,
}

impl Watched {
    /// By so many watchers, each on a stream of its own.
    pub fn by(watchers: usize) -> Self {
        let fed = Fed::empty();
        let hub = Hub::new(fed.store.clone(), Arc::default(), Limits::default());
        let applied = watch::Sender::new(None);
        let (feed, changes) = (hub.clone(), applied.subscribe());
        fed.runtime.spawn(async move { feed.feed(changes, || true).await });
        let open = |_| {
            let mut stream = hub.open().expect("within the limits");
            let range = KeyRange::One(key(0));
            let subject = Subject { range, puts: true, deletes: true, previous: false };
            let spec = WatchSpec { id: None, subject, start: None, progress: false };
            stream.create(spec).expect("within the limits");
            stream
        };
        let streams = (0..watchers).map(open).collect();
        let mut watched = Self { fed, applied, streams };
        // What is done but once is done before it is measured.
        watched.change();
        watched.hand_out();
        watched
    }

    /// The key changes [`MANY`] times; nobody is told.
    pub fn change(&mut self) {
        let value = value(VALUE_BYTES);
        let puts = (0..MANY).map(|_| put(key(0), value.clone()));
        self.fed.apply(&batch(puts.collect()));
        self.fed.flush();
    }

    /// All watchers are told all changes; says how many events that were.
    pub fn hand_out(&mut self) -> u64 {
        let Self { fed, applied, streams } = self;
        applied.send_replace(fed.last());
        fed.runtime.block_on(async {
            let mut events = 0;
            for stream in streams {
                events += told(stream).await;
            }
            events
        })
    }
}

async fn told(stream: &mut WatchStream) -> u64 {
    let mut told = 0;
    while told < MANY {
        match stream.next().await.expect("not ended") {
            Delivery::Events { events, .. } => told += events.len() as u64,
            other => panic!("not an event: {other:?}"),
        }
    }
    told
}
