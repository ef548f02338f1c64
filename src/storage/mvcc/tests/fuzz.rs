//! Snapshots and checkpoints of arbitrary bytes: nobody who reads one panics, and a snapshot is
//! taken only as it was sent.

use super::checkpoint::CHECKPOINT_FILE;
use super::snapshots::{dump, offer};
use super::*;
use crate::fuzz::{explore, mutate};

/// The magic word before the first frame, and a frame's head: kind, two lengths, checksum.
const MAGIC_BYTES: usize = 8;
const HEAD_BYTES: usize = 13;

/// Makes every frame valid again by its checksum, as far as frames can be found.
fn reseal(bytes: &mut [u8]) {
    let mut at = MAGIC_BYTES;
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let stored = u32::from_le_bytes([head[5], head[6], head[7], head[8]]) as usize;
        let end = at.saturating_add(HEAD_BYTES).saturating_add(stored);
        let Some(stored) = bytes.get(at + HEAD_BYTES..end) else { return };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..9]), stored).to_le_bytes();
        bytes[at + 9..at + HEAD_BYTES].copy_from_slice(&crc);
        at = end;
    }
}

fn explore_snapshots(
    target: &str,
    max_bytes: usize,
    resealed: bool,
    image: impl Fn(&[u8], &[u8]) -> Vec<u8>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut bench = Bench::new();
        for n in 0..20u8 {
            bench.apply(vec![
                put(format!("key {}", n % 13), vec![n; 300]),
                delete(format!("key {}", n % 7), ""),
            ]);
        }
        bench.flush_all().await;
        let (original, receiver) = (dump(&bench.store), Bench::new());
        offer(&receiver.store, &original).expect("what was sent is taken");
        explore(target, max_bytes, |input| {
            let sent = image(&original, input);
            // The same rows may be compressed in more than one way: zstd ignores some bits, which
            // only the checksums notice. What the rows and the header say is hashed.
            let taken = offer(&receiver.store, &sent).ok().map(|taken| taken.applied);
            let same = if resealed { taken == Some(bench.store.durable()) } else { sent == original };
            assert!(taken.is_none() || same, "a damaged snapshot was taken");
        });
    });
}

#[test]
fn a_snapshot_of_damage_is_refused() {
    explore_snapshots("a_snapshot_of_damage", 64, false, |original, script| {
        let mut bytes = original.to_vec();
        mutate(&mut bytes, script);
        bytes
    });
}

/// With valid checksums the damage reaches zstd, protobuf and the rows; the hash over all
/// of it is in the footer.
#[test]
fn a_snapshot_of_damage_with_valid_checksums_is_refused() {
    explore_snapshots("a_snapshot_of_damage_with_valid", 64, true, |original, script| {
        let mut bytes = original.to_vec();
        mutate(&mut bytes, script);
        reseal(&mut bytes);
        bytes
    });
}

#[test]
fn a_snapshot_of_random_bytes_is_refused() {
    explore_snapshots("a_snapshot_of_random_bytes", 4096, false, |original, input| {
        [&original[..MAGIC_BYTES], input].concat()
    });
}

/// What valid checksums hide may be taken for the truth, but never for a reason to panic.
#[test]
fn a_checkpoint_of_damage_is_read_or_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let bench = checkpoints::with_checkpoint().await;
        let original = bench.disk.contents(CHECKPOINT_FILE).expect("a checkpoint");
        let (disk, view) = (bench.disk.boot(), bench.store.inner.shared.state.read().view.clone());
        let file = disk.open(CHECKPOINT_FILE, false).expect("opens");
        explore("a_checkpoint_of_damage", 64, |script| {
            let mut bytes = original.clone();
            mutate(&mut bytes, script);
            reseal(&mut bytes);
            file.set_len(0).and_then(|()| file.write_at(0, &bytes)).expect("writes");
            let state = State::open(view.clone(), checkpoint::read(&disk)).expect("the table is sound");
            assert_eq!(state.applied, bench.store.durable());
        });
    });
}
