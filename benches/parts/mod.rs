//! What both kinds of benches measure: each part of a node alone, on a disk in memory, in
//! one thread, with a clock that stands still while there is something to do. So a part does
//! the same work every time.

// Each of the two takes what it needs.
#![allow(dead_code)]

pub mod disk;
pub mod encoding;
pub mod log;
pub mod store;
pub mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bellwether::env::{Disk, Workers};
use bellwether::proto::log::{Command, CommandBatch, Put, command::Op};
use bytes::Bytes;
use tokio::runtime::Runtime;

/// The format of command batches that the store takes.
const BATCH_FORMAT: u32 = 2;
/// Bytes in a value, as in `bellwether bench`.
pub const VALUE_BYTES: usize = 256;
/// Commands that are taken together.
pub const MANY: u64 = 64;

/// Workers as tasks of the runtime.
pub const WORKERS: Workers = Workers::Tasks { delay: || Duration::ZERO };

/// What was opened on an empty disk, and the runtime that its workers are tasks of.
pub fn opened<T>(open: impl FnOnce(Arc<dyn Disk>) -> io::Result<T>) -> (Runtime, T) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Time passes only when there is nothing else to do, and then at once.
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let entered = runtime.enter();
    let opened = open(Arc::new(disk::MemoryDisk::default())).expect("an empty disk");
    drop(entered);
    (runtime, opened)
}

pub fn key(number: u64) -> Bytes {
    format!("k{number:09}").into()
}

pub fn value(bytes: usize) -> Bytes {
    let letters = (0..bytes - 2).map(|at| char::from(b'a' + (at % 26) as u8));
    format!("\"{}\"", letters.collect::<String>()).into()
}

pub fn put(key: Bytes, value: Bytes) -> Command {
    Command { op: Some(Op::Put(Put { key, value, ..Put::default() })), precondition: None }
}

/// So many puts of different keys, from this number on.
pub fn puts(from: u64, count: u64) -> CommandBatch {
    let value = value(VALUE_BYTES);
    batch((from..from + count).map(|number| put(key(number), value.clone())).collect())
}

pub fn batch(commands: Vec<Command>) -> CommandBatch {
    CommandBatch { format: BATCH_FORMAT, time_ms: 0, commands, lease_clock_ms: 0 }
}
