//! How many instructions the hot parts take, counted by valgrind's callgrind: the same on a
//! busy machine. `bench/instructions` runs them and checks the ratios between them.

mod parts;

use std::hint::black_box;

use bellwether::proto::etcdserverpb::RangeResponse;
use bellwether::proto::log::CommandBatch;
use bytes::Bytes;
use gungraun::prelude::*;

use parts::log::Appending;
use parts::store::Fed;
use parts::watch::Watched;
use parts::{MANY, encoding, puts};

/// What is done for the first time, buffers and the like, is not what is counted.
fn appending() -> Appending {
    let mut appending = Appending::new();
    appending.one_by_one();
    appending.together();
    appending
}

#[library_benchmark]
#[bench::of_64(appending())]
fn append_together(mut appending: Appending) -> Appending {
    appending.together();
    appending
}

#[library_benchmark]
#[bench::of_64(appending())]
fn append_one_by_one(mut appending: Appending) -> Appending {
    appending.one_by_one();
    appending
}

/// A store and so many batches of so many commands that are applied to it. Their keys are
/// there: what a new one costs is not what is compared.
fn applying(batches: u64, commands: u64) -> (Fed, Vec<CommandBatch>) {
    let mut fed = Fed::empty();
    for _ in 0..4 {
        fed.apply(&puts(0, MANY));
    }
    fed.flush();
    fed.apply(&puts(0, MANY));
    (fed, (0..batches).map(|batch| puts(batch * commands, commands)).collect())
}

#[library_benchmark]
#[bench::one_of_64(applying(1, MANY))]
#[bench::of_one_64_times(applying(MANY, 1))]
fn apply((mut fed, batches): (Fed, Vec<CommandBatch>)) -> (Fed, Vec<CommandBatch>) {
    for batch in &batches {
        black_box(fed.apply(batch));
    }
    (fed, batches)
}

const SMALL: u64 = 10_000;
const LARGE: u64 = 100_000;

/// A store with as many keys, of two versions each, that was read before.
fn filled(keys: u64) -> Fed {
    let fed = Fed::filled(keys, keys);
    black_box((fed.get(None), fed.range(10)));
    fed
}

#[library_benchmark]
#[bench::of_10_thousand(filled(SMALL))]
#[bench::of_100_thousand(filled(LARGE))]
fn get(fed: Fed) -> Fed {
    black_box(fed.get(None));
    fed
}

#[library_benchmark]
#[bench::of_100(filled(SMALL))]
fn range(fed: Fed) -> Fed {
    black_box(fed.range(100));
    fed
}

fn watched(watchers: usize) -> Watched {
    let mut watched = Watched::by(watchers);
    watched.change();
    watched
}

#[library_benchmark]
#[bench::to_1(watched(1))]
#[bench::to_100(watched(100))]
fn hand_out(mut watched: Watched) -> Watched {
    black_box(watched.hand_out());
    watched
}

#[library_benchmark]
#[bench::of_1(puts(0, 1))]
#[bench::of_64(puts(0, MANY))]
fn encode_batch(batch: CommandBatch) -> (CommandBatch, Vec<u8>) {
    let encoded = encoding::encode_batch(&batch);
    (batch, encoded)
}

#[library_benchmark]
#[bench::of_1(encoding::encoded_batch(1))]
#[bench::of_64(encoding::encoded_batch(MANY))]
fn decode_batch(encoded: Bytes) -> CommandBatch {
    encoding::decode_batch(encoded)
}

#[library_benchmark]
#[bench::batch_of_64(encoding::encoded_batch(MANY))]
fn to_a_follower(encoded: Bytes) -> bellwether::proto::peer::Entry {
    encoding::through_the_wire(encoded)
}

#[library_benchmark]
#[bench::of_256_bytes(encoding::json_value())]
fn check_json(value: Bytes) -> (usize, Bytes) {
    (encoding::check_json(&value), value)
}

#[library_benchmark]
#[bench::of_256_bytes(encoding::json_value())]
fn show_json(value: Bytes) -> (Vec<u8>, Bytes) {
    (encoding::show_json(&value), value)
}

#[library_benchmark]
#[bench::of_256_bytes(encoding::etcd_put())]
fn decode_etcd_put(put: Bytes) -> bellwether::proto::etcdserverpb::PutRequest {
    encoding::decode_etcd_put(put)
}

#[library_benchmark]
#[bench::of_1(encoding::etcd_range(1))]
#[bench::of_100(encoding::etcd_range(100))]
fn encode_etcd_range(reply: RangeResponse) -> (Vec<u8>, RangeResponse) {
    (encoding::encode_etcd_range(&reply), reply)
}

library_benchmark_group!(name = log, benchmarks = [append_together, append_one_by_one]);
library_benchmark_group!(name = store, benchmarks = [apply, get, range]);
library_benchmark_group!(name = watches, benchmarks = [hand_out]);
library_benchmark_group!(
    name = encodings,
    benchmarks = [
        encode_batch,
        decode_batch,
        to_a_follower,
        check_json,
        show_json,
        decode_etcd_put,
        encode_etcd_range,
    ]
);
main!(library_benchmark_groups = [log, store, watches, encodings]);
