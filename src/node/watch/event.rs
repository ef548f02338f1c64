//! Events as they go over the wire: encoded once, whoever reads them.

use bytes::Bytes;
use prost::Message;

use crate::proto::mvccpb::{Event, KeyValue, event::EventType};
use crate::storage::mvcc::{self, Change};
use crate::types::Revision;

/// One change of one key, as an encoded `mvccpb.Event`.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub revision: Revision,
    pub bytes: Bytes,
}

impl Encoded {
    pub fn new(change: &Change, previous: Option<mvcc::KeyValue>) -> Self {
        let (kind, kv) = match change {
            Change::Put(kv) => (EventType::Put, kv.clone().into()),
            Change::Delete { key, revision } => {
                let mod_revision = revision.cast_signed();
                (EventType::Delete, KeyValue { key: key.clone(), mod_revision, ..KeyValue::default() })
            }
        };
        let event = Event { r#type: kind.into(), kv: Some(kv), prev_kv: previous.map(KeyValue::from) };
        Self { revision: change.revision(), bytes: event.encode_to_vec().into() }
    }

    /// What it holds in memory, roughly.
    pub fn cost(&self) -> usize {
        self.bytes.len() + 2 * size_of::<Self>()
    }
}

impl From<mvcc::KeyValue> for KeyValue {
    fn from(kv: mvcc::KeyValue) -> Self {
        Self {
            key: kv.key,
            create_revision: kv.create_revision.cast_signed(),
            mod_revision: kv.mod_revision.cast_signed(),
            version: kv.version.cast_signed(),
            value: kv.value,
            lease: kv.lease,
        }
    }
}
