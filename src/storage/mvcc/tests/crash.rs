//! Power loss at every single change of the disk, and errors that must not be hidden.

use std::collections::BTreeSet;

use super::*;

/// Entries that put, delete and compact; each run of it is the same.
fn entries() -> Vec<Vec<Command>> {
    let mut entries = Vec::new();
    for n in 0..12u8 {
        let key = format!("key {}", n % 5);
        entries.push(vec![put(key.clone(), vec![n; 2_000]), put("all", vec![n])]);
        if n % 4 == 3 {
            entries.push(vec![delete(key, "")]);
            entries.push(vec![compact(u64::from(n) + 2)]);
        }
    }
    entries
}

/// The state hash after each entry, from a store that never fails.
fn hashes() -> Vec<[u8; 32]> {
    let mut bench = Bench::new();
    let mut hashes = vec![bench.store.state_hash().expect("hashes").1];
    for entry in entries() {
        bench.apply(entry);
        hashes.push(bench.store.state_hash().expect("hashes").1);
    }
    hashes
}

/// How a life of the disk ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The power goes; the seed decides what the disk keeps of what was not synced.
    Power(u64),
    /// `kill -9`: what was written stays.
    Kill,
}

impl End {
    fn of(self, disk: &FakeDisk) {
        match self {
            End::Power(seed) => disk.crash(&mut SmallRng::seed_from_u64(seed)),
            End::Kill => disk.kill(),
        }
    }
}

/// Applies and flushes until the disk fails; says how many entries were flushed for sure.
async fn run_until_failure(disk: &FakeDisk) -> usize {
    match open(disk) {
        Ok(store) => apply_and_flush(&store).await,
        Err(_) => 0,
    }
}

async fn apply_and_flush(store: &Store) -> usize {
    let mut flushed = 0;
    for (index, commands) in entries().into_iter().enumerate() {
        let at = LogId { term: 1, index: index as u64 };
        if store.apply(at, &batch(at.index, commands), true).is_err() {
            break;
        }
        store.log_is_durable_upto(at.index);
        if store.flush().await.is_ok() {
            flushed = index + 1;
        }
    }
    flushed
}

#[tokio::test]
async fn after_a_crash_at_any_change_the_state_is_that_after_some_entry() {
    let hashes = hashes();
    let whole = FakeDisk::new();
    assert_eq!(run_until_failure(&whole).await, entries().len());
    let changes = whole.stats().operations;
    assert!(changes > 200, "the script does little: {changes} operations");
    let mut found = BTreeSet::new();
    for count in 0..=changes {
        let end = if count % 3 == 2 { End::Kill } else { End::Power(count) };
        let disk = FakeDisk::new();
        disk.stop_after(count);
        let flushed = run_until_failure(&disk).await;
        end.of(&disk);
        let store = open(&disk).expect("opens after the crash");
        let applied = store.applied().last.map_or(0, |last| last.index as usize + 1);
        assert!(
            applied >= flushed,
            "flush said {flushed} entries, {applied} were there (change {count}, {end:?})"
        );
        assert_eq!(store.state_hash().expect("hashes").1, hashes[applied], "change {count}, {end:?}");
        found.insert(applied);
    }
    assert_eq!(found.len(), hashes.len(), "every state was found after some crash: {found:?}");
}

/// The twin: the suite notices a disk that does not keep what it was told to.
#[tokio::test]
async fn without_syncs_flushed_entries_are_lost() {
    let disk = FakeDisk::new();
    disk.ignore_syncs(true);
    let flushed = run_until_failure(&disk).await;
    End::Power(1).of(&disk);
    let kept = open(&disk).map_or(0, |store| store.applied().last.map_or(0, |last| last.index as usize + 1));
    assert!(kept < flushed, "{kept} of {flushed} entries");
}

#[tokio::test]
async fn nothing_beyond_the_log_s_durable_index_reaches_the_table() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1")]);
    bench.apply(vec![put("b", "2")]);
    bench.store.flush().await.expect("flushes");
    assert_eq!(bench.store.durable().last, None, "the log said nothing yet");
    bench.store.log_is_durable_upto(0);
    bench.store.flush().await.expect("flushes");
    assert_eq!(bench.store.durable().last.map(|last| last.index), Some(0));
    assert!(bench.store.get(b"b", None).expect("readable").is_some(), "visible all the same");
    let bench = bench.crash();
    assert_eq!(bench.store.get(b"b", None), Ok(None));
}

#[tokio::test]
async fn the_timer_flushes_by_itself() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1")]);
    // The log is late: a flush finds nothing to do, and the timer must come back for it.
    bench.store.flush().await.expect("flushes");
    assert_eq!(bench.store.stats().tail_rows, 1);
    bench.store.log_is_durable_upto(0);
    eventually(|| bench.store.stats().tail_rows == 0).await;
    assert_eq!(bench.store.stats().tail_bytes, 0);
    assert!(bench.store.stats().disk_bytes > 0);
}

#[tokio::test]
async fn a_failed_flush_is_final() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1")]);
    bench.store.log_is_durable_upto(0);
    bench.disk.fail_next_sync();
    assert!(bench.store.flush().await.is_err());
    let batch = batch(1, vec![put("b", "2")]);
    assert!(bench.store.apply(LogId { term: 1, index: 1 }, &batch, true).is_err());
    // The disk works again, but what failed stays failed until a restart.
    assert!(bench.store.flush().await.is_err());
    assert_eq!(bench.store.durable().last, None);
    let bench = bench.crash();
    assert_eq!(bench.store.applied().last, None);
}

#[tokio::test]
async fn a_full_disk_fails_the_flush_and_loses_nothing_before_it() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1")]);
    bench.flush_all().await;
    let before = bench.store.state_hash().expect("hashes");
    bench.disk.set_capacity(Some(bench.store.stats().disk_bytes));
    for n in 0..40u8 {
        bench.apply(vec![put(format!("key {n}"), vec![n; 100_000])]);
    }
    bench.store.log_is_durable_upto(bench.next);
    let error = bench.store.flush().await.expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(bench.store.flush().await.is_err(), "final");
    let disk = bench.disk.clone();
    let bench = bench.crash();
    assert_eq!(bench.store.state_hash().expect("opens on a full disk"), before);
    disk.set_capacity(None);
    let mut bench = bench.kill();
    bench.apply(vec![put("b", "2")]);
    bench.flush_all().await;
}

#[tokio::test]
async fn entries_come_in_order_and_in_a_known_format() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1")]);
    let batch = batch(1, vec![put("a", "2")]);
    assert!(bench.store.apply(LogId { term: 1, index: 0 }, &batch, true).is_err(), "applied twice");
    let bench = Bench::new();
    let newer = CommandBatch { format: BATCH_FORMAT + 1, ..batch };
    assert!(bench.store.apply(LogId { term: 1, index: 0 }, &newer, true).is_err(), "a newer format");
}

/// In a row's value, where nothing but a page's checksum can tell.
#[tokio::test]
async fn a_flipped_bit_in_any_value_is_refused() {
    let mut bench = Bench::new();
    let value = |n: u32| format!("the value of key {n:04}, ").repeat(30);
    for n in 0..200 {
        bench.apply_one(put(format!("key {n}"), value(n)));
    }
    bench.flush_all().await;
    let Bench { disk, store, .. } = bench;
    drop(store);
    disk.kill();
    for n in (0..200).step_by(9) {
        let table = disk.contents(table::STATE_FILE).expect("a table");
        let value = value(n);
        // Its last place: pages that are no longer in use may have the value, too.
        let place = table.windows(value.len()).rposition(|bytes| bytes == value.as_bytes());
        let place = place.expect("the value as it is") as u64;
        disk.flip(table::STATE_FILE, place + 7, 0x10).expect("flips");
        let refused = open(&disk).err().expect("it opened").to_string();
        assert!(refused.starts_with("state.redb is damaged"), "{refused}");
        disk.flip(table::STATE_FILE, place + 7, 0x10).expect("flips back");
    }
    let store = open(&disk).expect("opens, whole again");
    let found = store.get(b"key 199", None).expect("reads").expect("a key");
    assert_eq!(found.value, value(199).as_bytes());
}
