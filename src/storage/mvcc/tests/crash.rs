//! Power loss at every single change of the disk, and errors that must not be hidden.

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

/// Applies and flushes until the disk fails; says how many entries were flushed for sure.
async fn run_until_failure(disk: &Arc<MemoryDisk>, stop: fn(&MemoryDisk)) -> usize {
    let flushed = match open(disk) {
        Ok(store) => apply_and_flush(&store).await,
        Err(_) => 0,
    };
    stop(disk);
    flushed
}

async fn apply_and_flush(store: &Store) -> usize {
    let mut flushed = 0;
    for (index, commands) in entries().into_iter().enumerate() {
        let at = LogId { term: 1, index: index as u64 };
        if store.apply(at, &CommandBatch { format: 1, time_ms: 0, commands }).is_err() {
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
    let whole = Arc::new(MemoryDisk::default());
    assert_eq!(run_until_failure(&whole, MemoryDisk::crash).await, entries().len());
    let stops = [MemoryDisk::crash, MemoryDisk::kill];
    for (count, stop) in (0..whole.changes()).step_by(3).zip(stops.into_iter().cycle()) {
        let disk = Arc::new(MemoryDisk::default());
        disk.fail_after(count);
        let flushed = run_until_failure(&disk, stop).await;
        let store = open(&disk).expect("opens after the crash");
        let applied = store.applied().last.map_or(0, |last| last.index as usize + 1);
        assert!(applied >= flushed, "flush said {flushed} entries, {applied} were there (change {count})");
        assert_eq!(store.state_hash().expect("hashes").1, hashes[applied], "change {count}");
    }
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
    bench.disk.fail_after(0);
    assert!(bench.store.flush().await.is_err());
    let batch = CommandBatch { format: 1, time_ms: 0, commands: vec![put("b", "2")] };
    assert!(bench.store.apply(LogId { term: 1, index: 1 }, &batch).is_err());
    // The disk works again, but what failed stays failed until a restart.
    bench.disk.fail_after(u64::MAX);
    assert!(bench.store.flush().await.is_err());
    assert_eq!(bench.store.durable().last, None);
    let bench = bench.crash();
    assert_eq!(bench.store.applied().last, None);
}

#[tokio::test]
async fn entries_come_in_order_and_in_a_known_format() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1")]);
    let batch = CommandBatch { format: 1, time_ms: 0, commands: vec![put("a", "2")] };
    assert!(bench.store.apply(LogId { term: 1, index: 0 }, &batch).is_err(), "applied twice");
    let bench = Bench::new();
    let newer = CommandBatch { format: 2, ..batch };
    assert!(bench.store.apply(LogId { term: 1, index: 0 }, &newer).is_err(), "a newer format");
}
