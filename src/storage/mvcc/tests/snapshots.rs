//! Snapshots: whole, cut, damaged, and interrupted.

use super::*;

/// Brings `to` to the state that `from` has flushed, in odd pieces.
pub async fn copy(from: &Store, to: &Store) {
    let bytes = dump(from);
    let mut writer = to.receive().expect("receives");
    for piece in bytes.chunks(1_000) {
        writer.write(piece).expect("writes");
    }
    let received = writer.finish().expect("is whole");
    assert_eq!(received.applied, from.durable());
    to.install(received).await.expect("installs");
    assert_eq!(to.applied(), from.durable());
    assert_eq!(to.durable(), from.durable());
}

fn dump(store: &Store) -> Vec<u8> {
    let mut image = store.image().expect("an image");
    assert_eq!(*image.applied(), store.durable());
    let mut bytes = Vec::new();
    while let Some(chunk) = image.next_chunk().expect("reads") {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

fn offer(store: &Store, bytes: &[u8]) -> io::Result<ReceivedSnapshot> {
    let mut writer = store.receive()?;
    writer.write(bytes)?;
    writer.finish()
}

/// A store with enough in it for several parts.
async fn filled() -> Bench {
    let mut bench = Bench::new();
    for n in 0..60u32 {
        let value: Vec<u8> = (0..9_000u32).map(|i| (i.wrapping_mul(n + 7) >> 3) as u8).collect();
        bench.apply(vec![put(format!("key {}", n % 40), value), delete(format!("key {}", n % 7), "")]);
    }
    bench.flush_all().await;
    bench
}

#[test]
fn an_image_may_be_sent_from_any_thread() {
    fn sendable<T: Send + 'static>() {}
    sendable::<SnapshotImage>();
    sendable::<SnapshotWriter>();
    sendable::<ReceivedSnapshot>();
}

#[tokio::test]
async fn an_image_is_of_one_moment_while_writes_go_on() {
    let mut bench = filled().await;
    let before = bench.store.state_hash().expect("hashes");
    let mut image = bench.store.image().expect("an image");
    let mut bytes = image.next_chunk().expect("reads").expect("a header").to_vec();
    for n in 0..40 {
        bench.apply(vec![put(format!("key {n}"), "overwritten"), compact(bench.store.revision())]);
        bench.flush_all().await;
    }
    compaction::sweep_to_the_end(&bench).await;
    while let Some(chunk) = image.next_chunk().expect("reads") {
        bytes.extend_from_slice(&chunk);
    }
    let other = Bench::new();
    other.store.install(offer(&other.store, &bytes).expect("whole")).await.expect("installs");
    assert_eq!(other.store.state_hash().expect("hashes"), before);
}

#[tokio::test]
async fn a_cut_or_damaged_snapshot_is_refused() {
    let bench = filled().await;
    let bytes = dump(&bench.store);
    let other = Bench::new();
    let before = other.store.state_hash().expect("hashes");
    for len in (0..bytes.len()).step_by(bytes.len() / 50).chain(bytes.len() - 3..bytes.len()) {
        assert!(offer(&other.store, &bytes[..len]).is_err(), "cut at {len}");
    }
    for place in (0..bytes.len()).step_by(bytes.len() / 200).chain(0..60).chain(bytes.len() - 60..bytes.len())
    {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        assert!(offer(&other.store, &flipped).is_err(), "a bit flipped at {place}");
    }
    assert!(offer(&other.store, &[&bytes[..], b"x"].concat()).is_err(), "more than a snapshot");
    assert_eq!(other.store.state_hash().expect("hashes"), before);
    // The twin: what was not touched is taken.
    assert!(offer(&other.store, &bytes).is_ok());
}

#[tokio::test]
async fn a_part_left_out_is_noticed() {
    let bench = filled().await;
    let mut image = bench.store.image().expect("an image");
    let mut chunks = Vec::new();
    while let Some(chunk) = image.next_chunk().expect("reads") {
        chunks.push(chunk);
    }
    assert!(chunks.len() >= 4, "a header, several parts, a footer; got {}", chunks.len());
    chunks.remove(1);
    assert!(offer(&bench.store, &chunks.concat()).is_err());
}

#[tokio::test]
async fn an_install_that_crashes_leaves_the_old_or_the_new_state() {
    let source = filled().await;
    let bytes = dump(&source.store);
    let new = source.store.state_hash().expect("hashes");
    // Power loss and kill -9 in turn, at every change while it arrives and is installed.
    let mut seen = [0, 0];
    for count in 0.. {
        let mut bench = Bench::new();
        bench.apply(vec![put("old", "state")]);
        bench.flush_all().await;
        let old = bench.store.state_hash().expect("hashes");
        bench.disk.stop_after(count);
        let done = match offer(&bench.store, &bytes) {
            Ok(received) => bench.store.install(received).await.is_ok(),
            Err(_) => false,
        };
        let bench = if count % 3 == 2 { bench.kill() } else { bench.crash_with(count) };
        let found = bench.store.state_hash().expect("hashes");
        assert!(found == old || found == new, "a third state after a crash at change {count}");
        assert!(!done || found == new, "install returned before it was durable (change {count})");
        assert_eq!(bench.disk.list("").expect("lists"), ["state.redb"], "what was left over is removed");
        seen[usize::from(found == new)] += 1;
        if done {
            break;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[tokio::test]
async fn a_snapshot_without_room_leaves_the_old_state_and_comes_again() {
    let source = filled().await;
    let bytes = dump(&source.store);
    let mut bench = Bench::new();
    bench.apply(vec![put("old", "state")]);
    bench.flush_all().await;
    let old = bench.store.state_hash().expect("hashes");
    bench.disk.set_capacity(Some(bench.store.stats().disk_bytes + bytes.len() as u64 / 2));
    let error = offer(&bench.store, &bytes).map(drop).expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert_eq!(bench.store.state_hash().expect("hashes"), old);
    // What arrives is nobody's memory: unlike the log and the table it may be tried again.
    bench.disk.set_capacity(None);
    bench.store.install(offer(&bench.store, &bytes).expect("whole")).await.expect("installs");
    assert_eq!(bench.store.state_hash().expect("hashes"), source.store.state_hash().expect("hashes"));
}

#[tokio::test]
async fn readers_during_an_install_see_the_old_state_or_the_new_one() {
    // Real threads here: a reader on another thread must never see a mix.
    let mut source = Bench::new();
    for round in ["1", "2"] {
        source.apply((0..300).map(|n| put(format!("key {n:03}"), round)).collect());
    }
    source.flush_all().await;
    let bytes = dump(&source.store);
    let mut bench = Bench::new();
    bench.apply((0..300).map(|n| put(format!("key {n:03}"), "old")).collect());
    bench.flush_all().await;
    let reader = bench.store.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            let all = reader.range(&everything(None)).expect("readable");
            assert!(all.kvs.windows(2).all(|pair| pair[0].value == pair[1].value), "a mix");
            assert_eq!(all.kvs.len(), 300);
        }
    });
    let received = offer(&bench.store, &bytes).expect("whole");
    bench.store.install(received).await.expect("installs");
    stop.store(true, Ordering::SeqCst);
    thread.join().expect("the reader saw no mix");
    assert_eq!(bench.store.get(b"key 000", None).expect("readable").expect("there").value, "2");
}
