//! Tests of watching on one store: by example, and random histories against a model.

mod examples;
mod properties;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::limits::Limits;
use super::stream::Step;
use super::*;
use crate::env::Workers;
use crate::env::fake_disk::FakeDisk;
use crate::proto::log::{Command, CommandBatch, Compact, Delete, Put, Txn, TxnOp, command::Op, txn_op};
use crate::proto::mvccpb::{Event, event::EventType};
use crate::storage::mvcc::KeyRange;
use crate::types::LogId;

/// A store that is fed by hand, as a log would.
struct Bench {
    store: Store,
    next: u64,
    /// Everything it lives on.
    _disk: FakeDisk,
}

impl Bench {
    fn new() -> Self {
        let disk = FakeDisk::new();
        let workers = Workers::Tasks { delay: || Duration::ZERO };
        let store = Store::open(Arc::new(disk.boot()), &workers, 0, Arc::default()).expect("opens");
        Self { store, next: 0, _disk: disk }
    }

    fn apply(&mut self, commands: Vec<Command>) {
        let at = LogId { term: 1, index: self.next };
        self.next += 1;
        let batch = CommandBatch { format: 2, time_ms: 0, commands, lease_clock_ms: 0 };
        self.store.apply(at, &batch, false).expect("applies");
    }

    async fn flush(&self) {
        self.store.log_is_durable_upto(self.next);
        self.store.flush().await.expect("flushes");
    }

    /// Becomes what another store is.
    async fn install(&mut self, from: &Bench) {
        from.flush().await;
        let mut image = from.store.image().expect("an image");
        let mut writer = self.store.receive().expect("receives");
        while let Some(chunk) = image.next_chunk().expect("reads") {
            writer.write(&chunk).expect("writes");
        }
        self.store.install(writer.finish().expect("whole")).await.expect("installs");
        self.next = from.next;
    }
}

fn hub(bench: &Bench, limits: Limits) -> (Hub, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    (Hub::new(bench.store.clone(), metrics.clone(), limits), metrics)
}

fn feed_all(hub: &Hub) {
    while hub.feed_page() {}
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    let put = Put { key: key.into(), value: value.into(), ..Put::default() };
    Command { op: Some(Op::Put(put)), precondition: None }
}

fn delete(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Command {
    let delete = Delete { key: key.into(), range_end: range_end.into(), prev_kv: false };
    Command { op: Some(Op::Delete(delete)), precondition: None }
}

/// Puts them all at one revision.
fn puts(pairs: &[(Bytes, Bytes)]) -> Command {
    let op = |(key, value): &(Bytes, Bytes)| {
        let put = Put { key: key.clone(), value: value.clone(), ..Put::default() };
        TxnOp { op: Some(txn_op::Op::Put(put)) }
    };
    let txn = Txn { success: pairs.iter().map(op).collect(), ..Txn::default() };
    Command { op: Some(Op::Txn(txn)), precondition: None }
}

fn compact(revision: Revision) -> Command {
    Command { op: Some(Op::Compact(Compact { revision })), precondition: None }
}

fn subject(range: KeyRange) -> Subject {
    Subject { range, puts: true, deletes: true, previous: false }
}

fn one(key: &'static str) -> Subject {
    subject(KeyRange::One(key.into()))
}

fn everything() -> Subject {
    subject(KeyRange::default())
}

fn spec(subject: Subject, start: Option<Revision>) -> WatchSpec {
    WatchSpec { id: None, subject, start, progress: false }
}

/// What is there to take now.
fn take(stream: &WatchStream) -> Option<Delivery> {
    loop {
        match stream.step().expect("not ended") {
            Step::Deliver(delivery) => return Some(delivery),
            Step::Again => {}
            Step::Wait => return None,
        }
    }
}

fn take_all(stream: &WatchStream) -> Vec<Delivery> {
    std::iter::from_fn(|| take(stream)).collect()
}

fn decode(events: &[Bytes]) -> Vec<Event> {
    events.iter().map(|event| Event::decode(event.clone()).expect("an event")).collect()
}

/// The values of what was put, `-` for what was deleted, one string a delivery.
fn told(deliveries: &[Delivery]) -> Vec<String> {
    let word = |event: Event| match event.r#type() {
        EventType::Put => String::from_utf8_lossy(&event.kv.unwrap_or_default().value).into_owned(),
        EventType::Delete => "-".to_owned(),
    };
    let told = deliveries.iter().map(|delivery| match delivery {
        Delivery::Events { events, .. } => decode(events).into_iter().map(word).collect::<Vec<_>>().join(" "),
        Delivery::Progress { id, revision } => format!("progress {id:?} {revision}"),
        Delivery::Compacted { oldest, .. } => format!("compacted {oldest}"),
    });
    told.collect()
}
