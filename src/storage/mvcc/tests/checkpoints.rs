//! Checkpoints of the index: what a start makes of one is what the rows say, whatever
//! happened to the table since, and one that does not fit is left alone.

use super::checkpoint::{CHECKPOINT_FILE, Writing};
use super::compaction::sweep_to_the_end;
use super::index::{Latest, Older};
use super::*;

/// A key, its lease, and its versions.
type Entry = (Vec<u8>, i64, Vec<Older>, Latest);

fn entries(state: &State) -> Vec<Entry> {
    let entry = |(key, history): (&[u8], &index::History)| {
        (key.to_vec(), state.leases.of_key(key), history.older().collect(), history.latest())
    };
    state.index.after(None).map(entry).collect()
}

/// The keys of every lease, too.
fn leased(state: &State) -> Vec<(i64, Lease, Vec<Bytes>)> {
    state.leases.iter().map(|(id, lease)| (id, lease, state.leases.keys(id).cloned().collect())).collect()
}

/// A store that was just opened holds what its table says, row by row. Returns how many rows
/// it had to read for that.
pub fn same_as_all_rows(store: &Store) -> u64 {
    let state = store.inner.shared.state.read();
    let read = State::load(state.view.clone()).expect("loads");
    assert_eq!(entries(&state), entries(&read));
    assert_eq!(leased(&state), leased(&read));
    assert_eq!(state.index.live(), read.index.live());
    assert_eq!(state.index.size(), read.index.size());
    assert_eq!(state.index.size().1, state.view.row_count().expect("counts"));
    state.rows_read
}

fn rows(store: &Store) -> u64 {
    store.inner.shared.state.read().view.row_count().expect("counts")
}

/// Some keys with some versions each, one of them deleted, and a checkpoint.
pub async fn with_checkpoint() -> Bench {
    let mut bench = Bench::new();
    for n in 0..40u32 {
        bench.apply(vec![put(format!("key {}", n % 12), "value"), put(format!("once {n}"), "value")]);
    }
    bench.apply_one(delete("key 3", ""));
    bench.flush_all().await;
    bench.store.checkpoint().await.expect("a checkpoint");
    bench
}

#[tokio::test]
async fn a_start_reads_only_the_rows_after_the_checkpoint() {
    let mut bench = with_checkpoint().await;
    bench.apply(vec![put("key 3", "again"), put("key 4", "more")]);
    bench.flush_all().await;
    let bench = bench.kill();
    assert_eq!(same_as_all_rows(&bench.store), 2);
    // The same after a power cut, for what a checkpoint says is on disk.
    assert_eq!(same_as_all_rows(&bench.crash().store), 2);
}

/// The twin: without one, all of them.
#[tokio::test]
async fn without_a_checkpoint_a_start_reads_every_row() {
    let bench = with_checkpoint().await;
    bench.disk.boot().remove(CHECKPOINT_FILE).expect("removed");
    let bench = bench.kill();
    assert_eq!(same_as_all_rows(&bench.store), rows(&bench.store));
}

#[tokio::test]
async fn what_was_swept_since_is_forgotten() {
    let mut bench = with_checkpoint().await;
    let at = bench.store.revision();
    for upto in [at - 30, at - 7, at] {
        bench.apply(vec![put("key 5", "more"), compact(upto)]);
        bench.flush_all().await;
        sweep_to_the_end(&bench).await;
        bench = bench.kill();
        assert!(same_as_all_rows(&bench.store) < 4, "the checkpoint was of use");
    }
}

/// The same in the middle of a pass, for what was replaced before the checkpoint, after it and
/// not at all.
#[tokio::test]
async fn what_a_pass_has_taken_so_far_is_forgotten() {
    let mut bench = Bench::new();
    for n in 0..600u32 {
        let key = if n % 5 == 0 { format!("once {n}") } else { format!("key {}", n % 70) };
        bench.apply_one(if n % 11 == 0 { delete(key, "") } else { put(key, "value") });
    }
    bench.flush_all().await;
    bench.store.checkpoint().await.expect("a checkpoint");
    let at = bench.store.revision();
    for n in 0..50u32 {
        bench.apply_one(put(format!("key {n}"), "after"));
    }
    bench.flush_all().await;
    let (mut steps, mut removed) = (0, 0);
    for goal in [at - 250, at + 20] {
        bench.apply_one(compact(goal));
        let is_behind = |bench: &Bench| bench.store.inner.shared.state.read().view.meta.needs_sweep();
        bench.flush_all().await;
        while is_behind(&bench) {
            let before = rows(&bench.store);
            bench.store.flush().await.expect("flushes");
            (steps, removed) = (steps + 1, removed + before - rows(&bench.store));
            bench = bench.kill();
            let read = same_as_all_rows(&bench.store);
            let useful =
                bench.store.inner.shared.state.read().view.meta.sweep().reached <= row::RowId::last_of(at);
            assert!(!useful || read < 60, "{read} rows were read after step {steps}");
        }
    }
    assert!(steps > 4 && removed > 200, "{steps} steps, {removed} rows removed");
}

/// A tombstone after the checkpoint may be gone, and then nothing says that its key is.
#[tokio::test]
async fn a_sweep_beyond_the_checkpoint_makes_it_useless() {
    let mut bench = with_checkpoint().await;
    bench.apply_one(delete("key 5", ""));
    bench.apply(vec![put("key 6", "more"), compact(bench.store.revision() + 1)]);
    bench.flush_all().await;
    sweep_to_the_end(&bench).await;
    let bench = bench.kill();
    assert_eq!(same_as_all_rows(&bench.store), rows(&bench.store));
    assert_eq!(bench.store.get(b"key 5", None), Ok(None));
}

#[tokio::test]
async fn a_checkpoint_of_another_table_is_left_alone() {
    let (one, other) = (with_checkpoint().await, with_checkpoint().await);
    let foreign = one.disk.contents(CHECKPOINT_FILE).expect("a checkpoint");
    let file = other.disk.boot().open(CHECKPOINT_FILE, true).expect("opens");
    file.set_len(0).and_then(|()| file.write_synced(0, &foreign)).expect("writes");
    let other = other.kill();
    assert_eq!(same_as_all_rows(&other.store), rows(&other.store));
}

#[tokio::test]
async fn a_checkpoint_ahead_of_the_table_is_left_alone() {
    let mut bench = with_checkpoint().await;
    let table = bench.disk.contents(table::STATE_FILE).expect("a table");
    bench.apply(vec![put("key 1", "later")]);
    bench.flush_all().await;
    bench.store.checkpoint().await.expect("a checkpoint");
    bench.disk.kill();
    // The table comes back from a backup, the checkpoint does not.
    let file = bench.disk.boot().open(table::STATE_FILE, true).expect("opens");
    file.set_len(0).and_then(|()| file.write_synced(0, &table)).expect("writes");
    let bench = Bench::on(bench.disk);
    assert_eq!(same_as_all_rows(&bench.store), rows(&bench.store));
}

#[tokio::test]
async fn a_snapshot_takes_the_checkpoint_with_it() {
    let (one, other) = (with_checkpoint().await, with_checkpoint().await);
    snapshots::copy(&one.store, &other.store).await;
    assert_eq!(other.disk.contents(CHECKPOINT_FILE), None);
    let other = other.kill();
    assert_eq!(same_as_all_rows(&other.store), rows(&other.store));
    other.store.checkpoint().await.expect("a checkpoint");
    assert_eq!(same_as_all_rows(&other.kill().store), 0);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_left_alone() {
    let bench = with_checkpoint().await.kill();
    assert_eq!(same_as_all_rows(&bench.store), 0, "whole, it is of use");
    let len = bench.disk.contents(CHECKPOINT_FILE).expect("a checkpoint").len() as u64;
    let mut bench = bench;
    for offset in (0..len).step_by(11) {
        bench.disk.flip(CHECKPOINT_FILE, offset, 0x10).expect("flips");
        bench = bench.kill();
        assert_eq!(same_as_all_rows(&bench.store), rows(&bench.store), "a bit flipped at {offset}");
        bench.disk.flip(CHECKPOINT_FILE, offset, 0x10).expect("flips");
    }
    let whole = bench.disk.contents(CHECKPOINT_FILE).expect("a checkpoint");
    let file = |bench: &Bench| bench.disk.boot().open(CHECKPOINT_FILE, false).expect("opens");
    for cut in (0..len).step_by(7) {
        file(&bench).set_len(cut).expect("cuts");
        bench = bench.kill();
        assert_eq!(same_as_all_rows(&bench.store), rows(&bench.store), "cut at {cut}");
    }
    file(&bench).write_synced(0, &whole).expect("writes");
    assert_eq!(same_as_all_rows(&bench.kill().store), 0, "whole again, it is of use again");
}

/// Steps that take their time, while everything goes on around them.
#[tokio::test]
async fn a_checkpoint_is_of_one_moment_while_writes_go_on() {
    let mut bench = Bench::new();
    let key = |n: u32| format!("{n:05} {}", "long ".repeat(20));
    bench.apply_one(Command {
        op: Some(Op::LeaseGrant(LeaseGrant { id: 1, ttl_s: 900 })),
        precondition: None,
    });
    for first in (0..9_000).step_by(1_000) {
        bench.apply((first..first + 1_000).map(|n| put(key(n * 2), "1")).collect());
    }
    bench.apply((0..4_500).map(|n| delete(key(n * 4), "")).collect());
    bench.flush_all().await;
    let shared = bench.store.inner.shared.clone();
    let view = shared.state.read().view.clone();
    let mut writing = Writing::begin(&shared.disk, &view).expect("begins").expect("there are rows");
    let mut steps = 0;
    while !writing.step(&shared).expect("a step") {
        // Changed, deleted, made again and new keys, some of them flushed, before and behind.
        let some = |by: u32| (0..9_000).filter(move |n| n % 10 == by);
        bench.apply(some(steps).map(|n| leased_put(key(n * 2))).collect());
        bench.apply(some(steps + 1).map(|n| delete(key(n * 2), "")).collect());
        bench.apply(some(steps + 2).map(|n| put(key(n * 2 + 1), "3")).collect());
        if steps % 2 == 0 {
            bench.flush_all().await;
        }
        steps += 1;
    }
    assert!(steps >= 3, "{steps} steps");
    bench.flush_all().await;
    let later = rows(&bench.store) - view.row_count().expect("counts");
    drop((view, writing));
    let bench = bench.kill();
    assert_eq!(same_as_all_rows(&bench.store), later);
}

fn leased_put(key: String) -> Command {
    let put = Put { key: key.into(), value: Bytes::from_static(b"2"), lease: 1, ..Put::default() };
    Command { op: Some(Op::Put(put)), precondition: None }
}

/// A full disk is bad enough: what is left goes to the log and the table.
#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_is_given_up() {
    let mut bench = with_checkpoint().await;
    bench.apply(vec![put("key 1", "later")]);
    bench.flush_all().await;
    bench.disk.fail_syncs(true);
    bench.store.checkpoint().await.expect("no error of the store");
    bench.disk.fail_syncs(false);
    bench.apply(vec![put("key 1", "later still")]);
    bench.flush_all().await;
    let bench = bench.kill();
    assert_eq!(same_as_all_rows(&bench.store), 2, "the one before is still there");
}
