//! Between bytes and what they mean: log entries, JSON values, etcd's messages.

use bellwether::api::http::{parse_json, show};
use bellwether::proto::etcdserverpb::{PutRequest, RangeResponse};
use bellwether::proto::log::CommandBatch;
use bellwether::proto::mvccpb::KeyValue;
use bellwether::proto::peer;
use bytes::Bytes;
use prost::Message;

use super::{VALUE_BYTES, key, puts, value};

/// A batch of so many commands as the log and the wire carry it.
pub fn encoded_batch(commands: u64) -> Bytes {
    puts(0, commands).encode_to_vec().into()
}

pub fn encode_batch(batch: &CommandBatch) -> Vec<u8> {
    batch.encode_to_vec()
}

pub fn decode_batch(encoded: Bytes) -> CommandBatch {
    CommandBatch::decode(encoded).expect("a batch")
}

/// One entry on its way to a follower and in its hands again.
pub fn through_the_wire(batch: Bytes) -> peer::Entry {
    let id = Some(peer::LogId { term: 1, index: 1 });
    let entry = peer::Entry { id, payload: Some(peer::entry::Payload::Batch(batch)) };
    peer::Entry::decode(Bytes::from(entry.encode_to_vec())).expect("an entry")
}

pub fn json_value() -> Bytes {
    value(VALUE_BYTES)
}

/// As a PUT's body is checked; says how long it is.
pub fn check_json(body: &Bytes) -> usize {
    parse_json(body).map_or(0, |raw| raw.get().len())
}

/// As a GET shows it.
pub fn show_json(value: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&show(value).0).expect("JSON")
}

pub fn etcd_put() -> Bytes {
    let put = PutRequest { key: key(1), value: value(VALUE_BYTES), ..PutRequest::default() };
    put.encode_to_vec().into()
}

pub fn decode_etcd_put(encoded: Bytes) -> PutRequest {
    PutRequest::decode(encoded).expect("a request")
}

/// A reply with so many keys.
pub fn etcd_range(keys: u64) -> RangeResponse {
    let kv = |number| KeyValue { key: key(number), value: value(VALUE_BYTES), ..KeyValue::default() };
    RangeResponse { kvs: (0..keys).map(kv).collect(), ..RangeResponse::default() }
}

pub fn encode_etcd_range(reply: &RangeResponse) -> Vec<u8> {
    reply.encode_to_vec()
}
