//! Deliberate faults in one side's replies: a comparison that never finds a difference
//! proves nothing until it has been seen to find one.

use super::op::{Outcome, Reply};
use super::proto::*;

/// What is altered wherever it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Alteration {
    /// A range counts one key too many
    Count,
    /// A key's version is one too high
    Version,
    /// The header's revision is one too low
    Revision,
    /// An error's text lacks its first word
    ErrorText,
    /// An error has another code
    ErrorCode,
    /// A transaction says the opposite
    Succeeded,
    /// The last event of a watch is lost
    LostEvent,
    /// Two events of a watch change places
    SwappedEvents,
    /// A watch tells what it was not asked for
    PreviousValue,
    /// A lease's keys are not told
    LeaseKeys,
    /// A lease lives a second longer than granted
    LeaseTtl,
}

impl Alteration {
    /// Whether there was something to alter is told by comparing with the original.
    pub fn alter(self, outcome: &mut Outcome) {
        match (self, outcome) {
            (Self::Count, Ok(Reply::Range(reply))) => reply.count += 1,
            (Self::Version, Ok(Reply::Range(reply))) => {
                reply.kvs.iter_mut().for_each(|kv| kv.version += 1);
            }
            (Self::Revision, Ok(Reply::Put(PutResponse { header: Some(header), .. }))) => {
                header.revision -= 1
            }
            (Self::ErrorText, Err(refusal)) => {
                refusal.message =
                    refusal.message.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            }
            (Self::ErrorCode, Err(refusal)) => refusal.code = tonic::Code::Internal,
            (Self::Succeeded, Ok(Reply::Txn(reply))) => reply.succeeded = !reply.succeeded,
            (Self::LeaseKeys, Ok(Reply::TimeToLive(reply))) => reply.keys.clear(),
            (Self::LeaseTtl, Ok(Reply::Grant(reply))) => reply.ttl += 1,
            (_, Ok(Reply::Settled(watched))) => {
                watched.iter_mut().for_each(|watched| self.alter_events(&mut watched.events));
            }
            _ => {}
        }
    }

    fn alter_events(self, events: &mut Vec<Event>) {
        match self {
            Self::LostEvent => drop(events.pop()),
            Self::SwappedEvents if events.len() > 1 => events.swap(0, 1),
            Self::PreviousValue => {
                events.iter_mut().for_each(|event| event.prev_kv = Some(KeyValue::default()));
            }
            _ => {}
        }
    }
}
