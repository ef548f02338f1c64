//! How long the hot parts take: `cargo bench --bench hot`. On a machine that does other
//! things, too, times differ from run to run; what must hold there is in `instructions.rs`.

mod parts;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use parts::log::Appending;
use parts::store::Fed;
use parts::watch::Watched;
use parts::{MANY, encoding, puts};

/// Large enough that nothing of it stays in a processor's nearest cache.
const KEYS: u64 = 10_000;
const VERSIONS: u64 = 2 * KEYS;
/// Applied batches after which the tail is flushed, so that a long run needs no more memory
/// than a short one.
const FLUSH_EVERY: u64 = 64;

fn log(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(MANY));
    let mut appending = Appending::new();
    group.bench_function("append/64 together", |b| b.iter(|| appending.together()));
    group.bench_function("append/64 one by one", |b| b.iter(|| appending.one_by_one()));
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(MANY));
    let batch = puts(0, MANY);
    let mut fed = Fed::empty();
    group.bench_function("a batch of 64", |b| {
        b.iter_custom(|rounds| apply_rounds(&mut fed, rounds, |fed| drop(black_box(fed.apply(&batch)))));
    });
    let single: Vec<_> = (0..MANY).map(|number| puts(number, 1)).collect();
    let each = |fed: &mut Fed| single.iter().for_each(|batch| drop(black_box(fed.apply(batch))));
    group.bench_function("64 batches of one", |b| {
        b.iter_custom(|rounds| apply_rounds(&mut fed, rounds, each));
    });
}

/// Without the flushes between.
fn apply_rounds(fed: &mut Fed, rounds: u64, work: impl Fn(&mut Fed)) -> Duration {
    let mut took = Duration::ZERO;
    for round in 0..rounds {
        let began = Instant::now();
        work(fed);
        took += began.elapsed();
        if round % FLUSH_EVERY == 0 {
            fed.flush();
        }
    }
    took
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    let mut fed = Fed::filled(KEYS, VERSIONS);
    group.bench_function("one key", |b| b.iter(|| black_box(fed.get(None))));
    // In the first of two rounds of all keys.
    group.bench_function("one key, an old version", |b| b.iter(|| black_box(fed.get(Some(KEYS)))));
    group.throughput(Throughput::Elements(100));
    group.bench_function("a range of 100", |b| b.iter(|| black_box(fed.range(100))));
    fed.apply(&puts(KEYS / 2, 1));
    group.throughput(Throughput::Elements(1));
    group.bench_function("one key, not in the table yet", |b| b.iter(|| black_box(fed.get(None))));
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encoding");
    let (batch, encoded) = (puts(0, MANY), encoding::encoded_batch(MANY));
    group.throughput(Throughput::Elements(MANY));
    group.bench_function("batch of 64/encode", |b| b.iter(|| encoding::encode_batch(black_box(&batch))));
    group.bench_function("batch of 64/decode", |b| {
        b.iter_batched(|| encoded.clone(), encoding::decode_batch, BatchSize::SmallInput);
    });
    group.bench_function("batch of 64/to a follower", |b| {
        b.iter_batched(|| encoded.clone(), encoding::through_the_wire, BatchSize::SmallInput);
    });
    group.throughput(Throughput::Elements(1));
    let value = encoding::json_value();
    group.bench_function("JSON/check", |b| b.iter(|| encoding::check_json(black_box(&value))));
    group.bench_function("JSON/show", |b| b.iter(|| encoding::show_json(black_box(&value))));
    let put = encoding::etcd_put();
    group.bench_function("etcd/decode a put", |b| {
        b.iter_batched(|| put.clone(), encoding::decode_etcd_put, BatchSize::SmallInput);
    });
    let reply = encoding::etcd_range(100);
    group.throughput(Throughput::Elements(100));
    group.bench_function("etcd/encode a range of 100", |b| {
        b.iter(|| encoding::encode_etcd_range(black_box(&reply)));
    });
}

fn watch(c: &mut Criterion) {
    let mut group = c.benchmark_group("watch");
    for watchers in [1, 100] {
        let mut watched = Watched::by(watchers);
        group.throughput(Throughput::Elements(MANY * watchers as u64));
        group.bench_function(format!("64 changes to {watchers} watchers"), |b| {
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    watched.change();
                    let began = Instant::now();
                    black_box(watched.hand_out());
                    took += began.elapsed();
                }
                took
            });
        });
    }
}

criterion_group! {
    name = hot;
    config = Criterion::default().without_plots();
    targets = log, apply, read, encode, watch
}
criterion_main!(hot);
