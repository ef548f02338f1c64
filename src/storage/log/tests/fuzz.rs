//! Recovery of arbitrary bytes: it never panics, and never accepts damage silently.

use std::sync::OnceLock;

use super::damage::written;
use super::*;
use crate::fuzz::{explore, mutate};

/// A log of several segments as it lies on disk.
struct Sample {
    /// By number.
    segments: Vec<(u64, Vec<u8>)>,
    entries: Vec<Entry>,
    /// Where each entry's frame lies.
    frames: Vec<(u64, Range<u64>)>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        simulate(async {
            let disk = FakeDisk::new();
            let frames = written(&disk).await;
            let last = frames.last().expect("frames").0;
            let read = |number| (number, disk.contents(&segment::segment_path(number)).expect("a segment"));
            Sample {
                segments: (1..=last).map(read).collect(),
                entries: everything(&open(&disk).expect("opens")),
                frames,
            }
        })
    })
}

fn disk_with(segments: &[(u64, Vec<u8>)]) -> FakeDisk {
    let disk = FakeDisk::new();
    for (number, bytes) in segments {
        let file = disk.open(&segment::segment_path(*number), true).expect("a file");
        file.write_at(0, bytes).expect("written");
    }
    disk
}

/// Makes the frame at `at` valid again by its checksum, whatever is in it.
fn reseal(segment: &mut [u8], at: usize) {
    let Some(length) = segment.get(at + 4..at + 8) else { return };
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let end = at.saturating_add(format::FRAME_HEADER_BYTES).saturating_add(length);
    if let Some(bytes) = segment.get(at + 4..end) {
        let crc = crc32c::crc32c(bytes).to_le_bytes();
        segment[at..at + 4].copy_from_slice(&crc);
    }
}

/// The first byte picks a segment, the second whether the damage gets a valid checksum;
/// the rest is the damage.
fn recover_damaged(input: &[u8]) {
    let [which, sealed, script @ ..] = input else { return };
    let sample = sample();
    let mut segments = sample.segments.clone();
    let which = usize::from(*which) % segments.len();
    let (number, bytes) = &mut segments[which];
    mutate(bytes, script);
    let frames = sample.frames.iter().filter(|(segment, _)| segment == number);
    if sealed % 2 == 1 {
        let starts = frames.map(|(_, place)| place.start as usize);
        starts.chain([format::SEGMENT_HEADER_BYTES]).for_each(|at| reseal(bytes, at));
    }
    let damaged = bytes.clone();
    simulate(async {
        let Ok(log) = open(&disk_with(&segments)) else { return };
        let Ok(found) = log.read(0..u64::MAX, usize::MAX) else { return };
        if sealed % 2 == 0 {
            judge(sample, which, &damaged, &found);
        }
    });
}

/// What opens holds a beginning of what was written, up to the last frame that is whole.
fn judge(sample: &Sample, which: usize, damaged: &[u8], found: &[Entry]) {
    assert!(found.len() <= sample.entries.len(), "entries nobody wrote: {found:?}");
    assert_eq!(found, &sample.entries[..found.len()], "entries changed");
    let (number, original) = &sample.segments[which];
    let whole = |(segment, place): &(u64, Range<u64>)| {
        let place = place.start as usize..place.end as usize;
        segment != number || damaged.get(place.clone()) == original.get(place)
    };
    let kept = sample.frames.iter().rposition(whole).map_or(0, |last| last + 1);
    assert!(found.len() >= kept, "{} entries, though the frame of number {kept} is whole", found.len());
}

#[test]
fn recovery_of_damage_refuses_it_or_loses_only_a_torn_end() {
    explore("recovery_of_damage", 64, recover_damaged);
}

#[test]
fn recovery_of_random_bytes_never_panics() {
    explore("recovery_of_random_bytes", 4096, |input| {
        simulate(async { drop(open(&disk_with(&[(1, input.to_vec())]))) });
    });
}
