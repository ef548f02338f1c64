//! What the log promises, on a disk that loses power, lies, fills and rots.

mod crash;
mod damage;
mod fuzz;
mod model;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::flush::QUICK_IN_A_ROW;
use super::*;
use crate::env::fake_disk::FakeDisk;

/// Small enough that a few appends need the next segment.
const SEGMENT_BYTES: u64 = 2048;
const OPTIONS: LogOptions = LogOptions { segment_bytes: SEGMENT_BYTES, cache_bytes: 512, reserve_bytes: 0 };
/// Workers as tasks of the current runtime: the same run every time.
const TASKS: Workers = Workers::Tasks { delay: || Duration::ZERO };

fn open(disk: &FakeDisk) -> io::Result<Log> {
    Log::open(Arc::new(disk.clone()), &TASKS, OPTIONS, Arc::default())
}

fn id(term: Term, index: LogIndex) -> LogId {
    LogId { term, index }
}

fn vote(term: Term) -> Vote {
    Vote { term, voted_for: term * 7, committed: term.is_multiple_of(2) }
}

/// An entry whose payload follows from its id, `bytes` long.
fn entry(id: LogId, bytes: usize) -> Entry {
    let kind = [EntryKind::Blank, EntryKind::Batch, EntryKind::Membership][(id.index % 3) as usize];
    let payload = (0..bytes).map(|i| (i as u64 * 31 + id.index * 7 + id.term) as u8).collect::<Vec<_>>();
    Entry { id, kind, payload: payload.into() }
}

fn entries(term: Term, range: Range<LogIndex>, bytes: usize) -> Vec<Entry> {
    range.map(|index| entry(id(term, index), bytes)).collect()
}

/// Appends, in one way or another, and waits for the callback.
async fn append(log: &Log, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, done) = oneshot::channel();
    let ways = [Log::append_here, Log::append, Log::append_soon];
    ways[entries.len() % ways.len()](log, entries, Box::new(move |result| drop(sender.send(result))))?;
    done.await.expect("the callback is called")
}

/// Lets the time pass after which a committed mark that waits is written by itself.
async fn linger(log: &Log) {
    if log.0.state.lock().end_linger() {
        log.wake().expect("the worker lives");
        while !log.0.state.lock().is_idle() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn everything(log: &Log) -> Vec<Entry> {
    log.read(0..u64::MAX, usize::MAX).expect("readable")
}

/// Runs on one thread with simulated time.
fn simulate<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(run)
}

fn segments(disk: &FakeDisk) -> Vec<String> {
    let names = disk.list(segment::DIRECTORY).expect("list");
    names.into_iter().filter(|name| name.ends_with(".seg")).collect()
}

#[test]
fn entries_are_readable_at_once_and_durable_when_the_callback_says_so() {
    simulate(async {
        let log = open(&FakeDisk::new()).expect("open");
        let flushed = Arc::new(Mutex::new(false));
        let seen = flushed.clone();
        log.append(entries(1, 0..3, 10), Box::new(move |r| *seen.lock() = r.is_ok())).expect("append");
        assert_eq!(everything(&log), entries(1, 0..3, 10));
        assert_eq!((log.last_id(), log.durable_id()), (Some(id(1, 2)), None));
        log.flush().await.expect("flush");
        assert!(*flushed.lock());
        assert_eq!(log.durable_id(), Some(id(1, 2)));
    });
}

/// Whether the last of many appends is on disk when it returns, and whether this thread put
/// it there, then or later.
async fn is_written_here(append: impl Fn(&Log, Vec<Entry>, Flushed) -> io::Result<()>) -> (bool, bool) {
    const LAST: LogIndex = 100;
    let log = Log::open(Arc::new(FakeDisk::new()), &Workers::Threads, OPTIONS, Arc::default()).expect("open");
    for index in 0..LAST {
        log.append(entries(1, index..index + 1, 10), Box::new(|_| ())).expect("append");
        // Whatever waits for the worker is written before.
        log.flush().await.expect("flush");
    }
    let (sender, writer) = oneshot::channel();
    let tell = move |_| sender.send(std::thread::current().id()).expect("somebody asks");
    append(&log, entries(1, LAST..LAST + 1, 10), Box::new(tell)).expect("append");
    let at_once = log.durable_id() == Some(id(1, LAST));
    let here = writer.await.expect("the callback is called") == std::thread::current().id();
    assert_eq!((log.durable_id(), everything(&log).len()), (Some(id(1, LAST)), LAST as usize + 1));
    (at_once, here)
}

/// A thread may always be kept waiting for a processor, and its disk look slow.
async fn some_time(try_it: impl AsyncFn() -> bool) {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        if try_it().await {
            return;
        }
    }
    panic!("never");
}

#[test]
fn a_follower_s_append_is_on_disk_at_once_while_the_disk_is_quick() {
    simulate(some_time(async || is_written_here(Log::append_here).await.0));
}

#[test]
fn a_leader_s_small_append_lets_others_run_before_it_is_on_disk() {
    simulate(some_time(async || {
        let (at_once, here) = is_written_here(Log::append_soon).await;
        !at_once && here
    }));
}

/// Without that a worker has to be waited for.
#[test]
fn on_a_slow_disk_the_worker_writes() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        for index in 0..QUICK_IN_A_ROW.into() {
            log.append_here(entries(1, index..index + 1, 10), Box::new(|_| ())).expect("append");
            assert_ne!(log.durable_id(), Some(id(1, index)));
            log.flush().await.expect("flush");
        }
    });
}

#[test]
fn a_read_stops_at_its_bytes_but_not_before_one_entry() {
    simulate(async {
        let log = open(&FakeDisk::new()).expect("open");
        append(&log, entries(1, 0..10, 100)).await.expect("append");
        assert_eq!(log.read(2..9, 250).expect("read"), entries(1, 2..4, 100));
        assert_eq!(log.read(2..9, 0).expect("read"), entries(1, 2..3, 100));
        assert_eq!(log.read(8..20, usize::MAX).expect("read"), entries(1, 8..10, 100));
        assert!(log.read(20..30, usize::MAX).expect("read").is_empty());
    });
}

#[test]
fn everything_handed_over_during_a_sync_shares_the_next_one() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        log.flush().await.expect("flush");
        let before = disk.stats();
        for index in 0..10 {
            log.append(vec![entry(id(1, index), 8)], Box::new(|_| ())).expect("append");
        }
        log.save_vote(vote(1)).await.expect("vote");
        let after = disk.stats();
        assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
    });
}

#[test]
fn a_batch_larger_than_a_segment_fits() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        append(&log, entries(1, 0..3, 10)).await.expect("append");
        append(&log, entries(1, 3..6, 5000)).await.expect("append");
        append(&log, entries(1, 6..9, 10)).await.expect("append");
        let held = everything(&log);
        drop(log);
        assert_eq!(everything(&open(&disk).expect("open")), held);
    });
}

#[test]
fn appends_change_no_file_size_and_purge_gives_segments_back() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        log.save_vote(vote(4)).await.expect("vote");
        for index in 0..200 {
            append(&log, vec![entry(id(1, index), 100)]).await.expect("append");
        }
        assert!(segments(&disk).len() > 5);
        for name in segments(&disk) {
            let bytes = disk.contents(&segment::path(&name)).expect("a segment").len();
            assert_eq!(bytes as u64, SEGMENT_BYTES, "{name}");
        }
        log.save_committed(Some(id(1, 197))).expect("committed");
        log.purge(id(1, 198)).await.expect("purge");
        log.flush().await.expect("flush");
        assert!(segments(&disk).len() <= 2, "{:?}", segments(&disk));
        assert!(log.disk_bytes() <= 3 * SEGMENT_BYTES);
        let state = (log.vote(), log.committed(), log.last_purged(), log.last_id(), everything(&log));
        drop(log);
        let log = open(&disk).expect("open");
        assert_eq!(state, (log.vote(), log.committed(), log.last_purged(), log.last_id(), everything(&log)));
        assert_eq!(log.vote(), Some(vote(4)));
    });
}

#[test]
fn a_committed_mark_alone_costs_no_sync_and_survives_the_process() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        append(&log, entries(1, 0..5, 8)).await.expect("append");
        let before = disk.stats();
        for index in 0..4 {
            log.save_committed(Some(id(1, index))).expect("committed");
        }
        assert_eq!(disk.stats().writes, before.writes);
        linger(&log).await;
        let after = disk.stats();
        assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 0));
        drop(log);
        let log = open(&disk).expect("open");
        assert_eq!(log.committed(), Some(id(1, 3)));
        append(&log, entries(1, 5..6, 8)).await.expect("append");
        assert_eq!(everything(&open(&disk).expect("open")), entries(1, 0..6, 8));
    });
}

#[test]
fn committed_is_never_beyond_the_last_entry_nor_another_entry() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        append(&log, entries(2, 0..5, 8)).await.expect("append");
        log.save_committed(Some(id(2, 3))).expect("committed");
        log.save_committed(Some(id(2, 9))).expect("committed");
        log.save_committed(Some(id(3, 4))).expect("committed");
        assert_eq!(log.committed(), Some(id(2, 3)));
        log.truncate_after(Some(id(2, 1))).await.expect("truncate");
        assert_eq!(log.committed(), Some(id(2, 1)));
        drop(log);
        assert_eq!(open(&disk).expect("open").committed(), Some(id(2, 1)));
    });
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    simulate(async {
        let log = open(&FakeDisk::new()).expect("open");
        append(&log, entries(2, 0..3, 8)).await.expect("append");
        for wrong in [entries(2, 4..5, 8), entries(2, 2..4, 8), entries(1, 3..4, 8)] {
            let (sender, mut told) = oneshot::channel();
            let refused =
                log.append(wrong, Box::new(move |result| sender.send(result.is_err()).expect("waited for")));
            assert!(refused.is_err() && told.try_recv() == Ok(true));
        }
        log.purge(id(2, 1)).await.expect("purge");
        assert!(log.truncate_after(Some(id(2, 0))).await.is_err());
        assert_eq!(everything(&log), entries(2, 2..3, 8));
        append(&log, entries(2, 3..4, 8)).await.expect("append");
    });
}

#[test]
fn it_works_with_threads_on_real_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = crate::env::World::real(dir.path()).expect("a world");
    let open = || Log::open(world.disk.clone(), &world.workers, OPTIONS, Arc::default()).expect("open");
    simulate(async {
        let log = open();
        let mut waiting = Vec::new();
        for index in 0..500 {
            let (sender, done) = oneshot::channel();
            log.append(vec![entry(id(1, index), 50)], Box::new(move |r| drop(sender.send(r))))
                .expect("append");
            waiting.push(done);
        }
        for done in waiting {
            done.await.expect("called").expect("durable");
        }
        log.save_vote(vote(9)).await.expect("vote");
        assert_eq!(everything(&log), entries(1, 0..500, 50));
        drop(log);
        let log = open();
        assert_eq!((log.vote(), everything(&log)), (Some(vote(9)), entries(1, 0..500, 50)));
    });
}
