//! A log entry as the log carries it: commands, and when they were proposed.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::leases::LeaseClock;
use crate::env::Clock;
use crate::proto::log::{Command, CommandBatch};

/// The format of [`CommandBatch`].
const BATCH_FORMAT: u32 = 2;

/// What a log entry says of time, since apply reads no clock.
#[derive(Clone)]
pub(crate) struct Clocks {
    pub wall: Arc<dyn Clock>,
    pub lease: LeaseClock,
}

/// When a batch is proposed, in milliseconds on both clocks.
#[derive(Clone, Copy)]
pub(crate) struct ProposedAt {
    time_ms: u64,
    lease_clock_ms: u64,
}

impl Clocks {
    pub fn now(&self) -> ProposedAt {
        ProposedAt { time_ms: self.wall.now_ms(), lease_clock_ms: self.lease.now_ms() }
    }
}

/// One log entry's commands as the log carries them.
pub(crate) fn encode(commands: Vec<Command>, at: ProposedAt) -> Bytes {
    let ProposedAt { time_ms, lease_clock_ms } = at;
    CommandBatch { format: BATCH_FORMAT, time_ms, commands, lease_clock_ms }.encode_to_vec().into()
}
