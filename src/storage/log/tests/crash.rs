//! Power cuts at every point of a script, and disks that fail or lie.

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// How often each crash point is tried: what a crash keeps and tears is random.
const VARIANTS: u64 = 6;

/// Half of the histories have segments and entries so much larger: several blocks, of which
/// each append writes one again. In the small ones a segment is less than a block.
const LARGE: usize = 8;

/// By how much a history is larger than the small ones.
fn scale(seed: u64) -> usize {
    if seed.is_multiple_of(2) { 1 } else { LARGE }
}

fn open_scaled(disk: &FakeDisk, scale: usize) -> io::Result<Log> {
    let LogOptions { segment_bytes, cache_bytes, reserve_bytes } = OPTIONS;
    let options = LogOptions {
        segment_bytes: segment_bytes * scale as u64,
        cache_bytes: cache_bytes * scale,
        reserve_bytes,
    };
    Log::open(Arc::new(disk.clone()), &TASKS, options, Arc::default())
}

/// What a history promised so far, and what it may have left.
struct Promises {
    /// The empty log, and the log after each change that was handed over.
    states: Vec<Held>,
    /// States before this one are over: the change to this one was acknowledged.
    acknowledged: usize,
    /// Committed marks that were saved.
    marks: Vec<Option<LogId>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
}

impl Held {
    fn of(log: &Log) -> Self {
        let ids = everything(log).into_iter().map(|read| {
            assert_eq!(read, entry(read.id, read.payload.len()), "the payload follows from the id");
            read.id
        });
        Self { vote: log.vote(), purged: log.last_purged(), entries: ids.collect() }
    }
}

type SharedPromises = Arc<Mutex<Promises>>;

/// Notes a change that is about to be handed over; the number acknowledges it.
fn hand_over(promises: &SharedPromises, change: impl FnOnce(&mut Held)) -> usize {
    let mut promises = promises.lock();
    let mut held = promises.states.last().expect("it begins with one").clone();
    change(&mut held);
    promises.states.push(held);
    promises.states.len() - 1
}

fn acknowledge(promises: &SharedPromises, number: usize) {
    let mut promises = promises.lock();
    promises.acknowledged = promises.acknowledged.max(number);
}

fn append_noted(log: &Log, promises: &SharedPromises, new: Vec<Entry>) -> io::Result<()> {
    let number = hand_over(promises, |held| held.entries.extend(new.iter().map(|e| e.id)));
    let promises = promises.clone();
    log.append(new, Box::new(move |result| result.iter().for_each(|()| acknowledge(&promises, number))))
}

async fn vote_noted(log: &Log, promises: &SharedPromises, term: Term) -> io::Result<()> {
    let number = hand_over(promises, |held| held.vote = Some(vote(term)));
    log.save_vote(vote(term)).await?;
    acknowledge(promises, number);
    Ok(())
}

async fn truncate_noted(log: &Log, promises: &SharedPromises, last: LogId) -> io::Result<()> {
    let number = hand_over(promises, |held| held.entries.retain(|id| id.index <= last.index));
    log.truncate_after(Some(last)).await?;
    acknowledge(promises, number);
    Ok(())
}

async fn purge_noted(log: &Log, promises: &SharedPromises, upto: LogId) -> io::Result<()> {
    hand_over(promises, |held| {
        held.purged = Some(upto);
        held.entries.retain(|id| id.index > upto.index);
    });
    log.purge(upto).await
}

/// Saves a mark and lets it be written by itself, where the next frame will lie.
async fn mark(log: &Log, promises: &SharedPromises, committed: LogId) -> io::Result<()> {
    promises.lock().marks.push(Some(committed));
    log.flush().await?;
    log.save_committed(Some(committed))?;
    linger(log).await;
    Ok(())
}

/// Appends, votes, truncations, purges, over several segments; ends at the first error.
async fn script(disk: &FakeDisk, promises: &SharedPromises, scale: usize) -> io::Result<()> {
    let log = open_scaled(disk, scale)?;
    vote_noted(&log, promises, 1).await?;
    append_noted(&log, promises, entries(1, 0..3, scale * 30))?;
    append_noted(&log, promises, entries(1, 3..4, scale * 700))?;
    mark(&log, promises, id(1, 2)).await?;
    append_noted(&log, promises, entries(1, 4..8, scale * 200))?;
    vote_noted(&log, promises, 2).await?;
    truncate_noted(&log, promises, id(1, 5)).await?;
    append_noted(&log, promises, entries(2, 6..9, scale * 300))?;
    log.flush().await?;
    mark(&log, promises, id(1, 3)).await?;
    mark(&log, promises, id(1, 4)).await?;
    purge_noted(&log, promises, id(1, 3)).await?;
    append_noted(&log, promises, entries(2, 9..12, scale * 400))?;
    vote_noted(&log, promises, 3).await?;
    mark(&log, promises, id(2, 9)).await?;
    append_noted(&log, promises, entries(3, 12..13, scale * 3 * SEGMENT_BYTES as usize))?;
    purge_noted(&log, promises, id(2, 10)).await?;
    log.flush().await?;
    truncate_noted(&log, promises, id(2, 11)).await?;
    append_noted(&log, promises, entries(4, 12..20, scale * 150))?;
    log.flush().await?;
    vote_noted(&log, promises, 4).await
}

/// Changes in a random order, most of them handed over while the ones before are still on
/// their way: a vote between an append and its truncation, a purge behind both.
async fn random_script(
    disk: &FakeDisk,
    promises: &SharedPromises,
    seed: u64,
    scale: usize,
) -> io::Result<()> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let log = open_scaled(disk, scale)?;
    let mut term = 1;
    let mut waiting = FuturesUnordered::new();
    for _ in 0..30 {
        let last = log.last_id().map_or(0, |id| id.index + 1);
        let held = promises.lock().states.last().expect("it begins with one").clone();
        let middle = held.entries.get(held.entries.len() / 2).copied();
        match (rng.random_range(0..8), middle) {
            (0, _) => {
                term += 1;
                waiting.push(vote_noted(&log, promises, term).boxed_local());
            }
            (1, Some(middle)) => waiting.push(truncate_noted(&log, promises, middle).boxed_local()),
            (2, Some(middle)) => purge_noted(&log, promises, middle).await?,
            (3, _) => {
                while let Some(done) = waiting.next().await {
                    done?
                }
            }
            _ => {
                let bytes = scale * rng.random_range(1..600);
                append_noted(&log, promises, entries(term, last..last + rng.random_range(1..4), bytes))?;
            }
        }
        // Handed over now, in this order; durable whenever the worker gets to it.
        while let Some(Some(done)) = waiting.next().now_or_never() {
            done?;
        }
    }
    while let Some(done) = waiting.next().await {
        done?;
    }
    log.flush().await
}

/// The log after the crash is one of the states from the last acknowledged one on.
fn check_promises(promises: &SharedPromises, log: &Log) -> Result<(), String> {
    let promises = promises.lock();
    let allowed = &promises.states[promises.acknowledged..];
    if !promises.marks.contains(&log.committed()) {
        return Err(format!("committed is {:?}, which was never saved", log.committed()));
    }
    let held = Held::of(log);
    if allowed.contains(&held) { Ok(()) } else { Err(format!("{held:?} is none of {allowed:?}")) }
}

/// The log works after the crash, and what it acknowledges then is there, too.
async fn check_rest(log: Log, disk: &FakeDisk, scale: usize) -> Result<(), String> {
    let next = log.last_id().map_or(0, |id| id.index + 1);
    append(&log, entries(9, next..next + 5, scale * 300)).await.map_err(|error| error.to_string())?;
    let before = Held::of(&log);
    drop(log);
    let after = Held::of(&open_scaled(disk, scale).map_err(|error| error.to_string())?);
    if before == after { Ok(()) } else { Err(format!("after one more restart {before:?} is {after:?}")) }
}

#[derive(Clone, Copy, Debug)]
enum Script {
    Written,
    Random(u64),
}

/// Runs a script up to a power cut, and starts again: the first start is cut off, too.
/// `None` when the script ended before its cut.
fn crash_at(disk: &FakeDisk, operations: u64, seed: u64, which: Script) -> Option<Result<(), String>> {
    crate::env::random::seed(Some(seed));
    let mut rng = SmallRng::seed_from_u64(seed);
    let scale = scale(seed);
    simulate(async {
        let promises = Promises { states: vec![Held::default()], acknowledged: 0, marks: vec![None] };
        let promises = Arc::new(Mutex::new(promises));
        disk.stop_after(operations);
        let ended = match which {
            Script::Written => script(disk, &promises, scale).await,
            Script::Random(seed) => random_script(disk, &promises, seed, scale).await,
        };
        if !disk.stopped() {
            ended.expect("nothing fails before the cut");
            return None;
        }
        disk.crash(&mut rng);
        disk.stop_after(seed % 5);
        drop(open_scaled(disk, scale));
        disk.crash(&mut rng);
        let log = match open_scaled(disk, scale) {
            Ok(log) => log,
            Err(error) => return Some(Err(error.to_string())),
        };
        if let Err(why) = check_promises(&promises, &log) {
            return Some(Err(why));
        }
        Some(check_rest(log, disk, scale).await)
    })
}

/// Every crash point that breaks a promise, with what it takes to see it again.
fn broken_promises(disk: impl Fn() -> FakeDisk) -> Vec<String> {
    let mut broken = Vec::new();
    for operations in 0.. {
        for variant in 0..VARIANTS {
            let seed = operations * VARIANTS + variant;
            match crash_at(&disk(), operations, seed, Script::Written) {
                Some(Ok(())) => {}
                Some(Err(why)) => broken.push(format!("crash_at(_, {operations}, {seed}): {why}")),
                None => {
                    assert!(operations > 60, "the script does little: {operations} operations");
                    return broken;
                }
            }
        }
    }
    broken
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    let broken = broken_promises(FakeDisk::new);
    assert!(broken.is_empty(), "{} broken promises, such as\n{}", broken.len(), broken[0]);
}

/// How many random scripts, and cuts in each.
const RANDOM_SCRIPTS: u64 = 40;
const CUTS: u64 = 25;

#[test]
fn no_order_of_changes_loses_what_was_acknowledged() {
    let mut struck = 0;
    for seed in 0..RANDOM_SCRIPTS {
        for cut in 0..CUTS {
            // Few operations at first, when files are made; then any.
            let operations = cut * cut / 4;
            match crash_at(&FakeDisk::new(), operations, seed * CUTS + cut, Script::Random(seed)) {
                Some(Ok(())) => struck += 1,
                Some(Err(why)) => {
                    panic!("crash_at(_, {operations}, {}, Random({seed})): {why}", seed * CUTS + cut)
                }
                None => {}
            }
        }
    }
    assert!(struck > RANDOM_SCRIPTS * CUTS / 3, "{struck} cuts struck");
}

/// The twin of the tests above: they would notice if nothing were synced.
#[test]
fn without_syncs_acknowledged_entries_are_lost() {
    let broken = broken_promises(|| {
        let disk = FakeDisk::new();
        disk.ignore_syncs(true);
        disk
    });
    assert!(!broken.is_empty());
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_is_final() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        append(&log, entries(1, 0..3, 10)).await.expect("append");
        log.flush().await.expect("flush");
        disk.fail_syncs(true);
        assert!(append(&log, entries(1, 3..6, 10)).await.is_err());
        disk.fail_syncs(false);
        let syncs = disk.stats().syncs;
        assert!(append(&log, entries(1, 6..7, 10)).await.is_err());
        assert!(log.save_vote(vote(5)).await.is_err());
        assert!(log.save_committed(Some(id(1, 0))).is_err());
        assert!(log.truncate_after(Some(id(1, 0))).await.is_err());
        assert!(log.purge(id(1, 0)).await.is_err());
        let error = log.flush().await.expect_err("final").to_string();
        assert!(error.contains("failed to sync"), "{error}");
        assert_eq!(log.durable_id(), Some(id(1, 2)));
        assert_eq!(disk.stats().syncs, syncs, "nothing is tried again");
    });
}

/// The kernel reports an error once, and has dropped the data: a second attempt would
/// succeed and carry nothing of the first.
#[test]
fn what_a_failed_sync_dropped_is_never_called_durable() {
    for seed in 0..20 {
        simulate(async {
            let disk = FakeDisk::new();
            let log = open(&disk).expect("open");
            append(&log, entries(1, 0..3, 10)).await.expect("append");
            disk.fail_next_sync();
            assert!(append(&log, entries(1, 3..6, 10)).await.is_err());
            assert!(append(&log, entries(1, 3..6, 10)).await.is_err(), "not even anew");
            assert_eq!(log.durable_id(), Some(id(1, 2)));
            drop(log);
            disk.crash(&mut SmallRng::seed_from_u64(seed));
            assert_eq!(everything(&open(&disk).expect("open")), entries(1, 0..3, 10));
        });
    }
}

/// A process killed between a write and its sync leaves bytes that the next one can read
/// and that a power cut would still take.
#[test]
fn what_a_start_calls_durable_outlives_the_power() {
    for seed in 0..20 {
        simulate(async {
            let disk = FakeDisk::new();
            let log = open(&disk).expect("open");
            append(&log, entries(1, 0..3, 10)).await.expect("append");
            disk.fail_syncs(true);
            assert!(append(&log, entries(1, 3..6, 10)).await.is_err());
            disk.fail_syncs(false);
            drop(log);
            let durable = open(&disk).expect("open").durable_id();
            disk.crash(&mut SmallRng::seed_from_u64(seed));
            assert_eq!(open(&disk).expect("open").last_id(), durable);
        });
    }
}

#[test]
fn a_full_disk_fails_the_append_and_loses_nothing_before_it() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        disk.set_capacity(Some(4 * SEGMENT_BYTES));
        let mut held = 0;
        while append(&log, entries(1, held..held + 1, 200)).await.is_ok() {
            held += 1;
        }
        assert!(held > 20);
        drop(log);
        disk.set_capacity(None);
        let log = open(&disk).expect("open");
        assert_eq!(everything(&log), entries(1, 0..held, 200));
        append(&log, entries(1, held..held + 20, 200)).await.expect("there is room again");
    });
}

/// Deletes and votes need what a segment made ahead would take.
#[test]
fn the_reserve_is_not_spent_on_a_segment_ahead() {
    for (reserve_bytes, spares) in [(4 * SEGMENT_BYTES, 0), (0, 1)] {
        simulate(async {
            let disk = FakeDisk::new();
            disk.set_capacity(Some(5 * SEGMENT_BYTES));
            let options = LogOptions { reserve_bytes, ..OPTIONS };
            let log = Log::open(Arc::new(disk.clone()), &TASKS, options, Arc::default()).expect("open");
            tokio::time::sleep(Duration::from_millis(1)).await;
            let names = disk.list(segment::DIRECTORY).expect("list");
            let made = names.iter().filter(|name| name.ends_with(".spare")).count();
            assert_eq!(made, spares, "with {reserve_bytes} bytes in reserve: {names:?}");
            // Into the next segment, made when it is needed and no sooner.
            append(&log, entries(1, 0..12, 200)).await.expect("append");
            append(&log, entries(1, 12..14, 200)).await.expect("append");
        });
    }
}
