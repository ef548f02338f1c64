//! Bits that flip, files that are missing, formats from the future.

use super::*;

/// Offset of the first frame, which is the checkpoint's.
const CHECKPOINT_AT: u64 = format::SEGMENT_HEADER_BYTES as u64;

/// A log of several segments, and where each frame after the checkpoints lies.
pub(super) async fn written(disk: &FakeDisk) -> Vec<(u64, Range<u64>)> {
    let log = open(disk).expect("open");
    for index in 0..12 {
        append(&log, entries(1, index..index + 1, 500)).await.expect("append");
    }
    let state = log.0.state.lock();
    let frame = |index| {
        let slot = state.contents.slot(index).expect("held");
        let place = state.frames.get(slot.frame).expect("durable");
        let bytes = u64::from(slot.at) + (format::ENTRY_HEADER_BYTES + 500) as u64;
        (place.segment, place.offset..place.offset + bytes)
    };
    (0..12).map(frame).collect()
}

fn refused(disk: &FakeDisk) -> io::Error {
    open(disk).map(|_| ()).expect_err("the log does not open")
}

fn flip(disk: &FakeDisk, segment: u64, offset: u64) {
    disk.flip(&segment::segment_path(segment), offset, 0x10).expect("flip");
}

#[test]
fn a_flipped_bit_before_the_last_frame_is_refused_with_its_place() {
    simulate(async {
        let disk = FakeDisk::new();
        let frames = written(&disk).await;
        assert!(frames.last().expect("frames").0 > frames[0].0 + 2, "several segments");
        for (segment, bytes) in &frames[..frames.len() - 1] {
            for offset in bytes.clone().step_by(13) {
                flip(&disk, *segment, offset);
                let error = refused(&disk);
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let place = format!("{} at byte {}", segment::segment_path(*segment), bytes.start);
                assert!(error.to_string().contains(&place), "{error} should name {place}");
                flip(&disk, *segment, offset);
            }
        }
        assert_eq!(everything(&open(&disk).expect("mended")), entries(1, 0..12, 500));
    });
}

#[test]
fn a_flipped_bit_in_a_header_or_checkpoint_is_refused() {
    simulate(async {
        let disk = FakeDisk::new();
        let last = written(&disk).await.last().expect("frames").0;
        for segment in 1..=last {
            // Its last bytes are padding, which nobody reads.
            for offset in (0..CHECKPOINT_AT + format::checkpoint_frame_bytes() as u64 - 4).step_by(3) {
                flip(&disk, segment, offset);
                refused(&disk);
                flip(&disk, segment, offset);
            }
        }
        open(&disk).expect("mended");
    });
}

#[test]
fn a_torn_last_frame_is_cut_and_leaves_no_remains() {
    for position in 0..40 {
        simulate(async {
            let disk = FakeDisk::new();
            let frames = written(&disk).await;
            let (segment, bytes) = frames.last().expect("frames");
            let offset = bytes.start + position * 13 % (bytes.end - bytes.start);
            flip(&disk, *segment, offset);
            let log = open(&disk).expect("a torn end is no damage");
            assert_eq!(everything(&log), entries(1, 0..11, 500));
            let file = disk.contents(&segment::segment_path(*segment)).expect("the segment");
            assert!(file[bytes.start as usize..].iter().all(|byte| *byte == 0));
            append(&log, entries(2, 11..12, 20)).await.expect("append");
            drop(log);
            assert_eq!(everything(&open(&disk).expect("open"))[11..], entries(2, 11..12, 20));
        });
    }
}

/// A crash leaves the file as long as it was; a shorter one has lost frames that were
/// acknowledged, not one that was not.
#[test]
fn a_last_segment_that_ends_inside_a_frame_is_refused() {
    simulate(async {
        let probe = FakeDisk::new();
        let frames = written(&probe).await;
        let last = frames.last().expect("frames").0;
        let path = segment::segment_path(last);
        for (_, bytes) in frames.iter().filter(|(segment, _)| *segment == last) {
            for length in bytes.start + 1..bytes.end {
                let disk = FakeDisk::new();
                written(&disk).await;
                disk.open(&path, false).expect("the segment").set_len(length).expect("cut");
                let contents = disk.contents(&path).expect("the segment");
                let left = &contents[bytes.start as usize..];
                if left.len() < size_of::<u32>() && left.iter().all(|byte| *byte == 0) {
                    // A checksum that begins with zeros: nothing of the frame is left to be seen.
                    continue;
                }
                let error = refused(&disk).to_string();
                assert!(error.contains("cut short") && error.contains(&path), "{length}: {error}");
            }
        }
    });
}

/// Somebody stores a copy of the log in the log: it must not count as frames of it.
#[test]
fn a_copy_of_a_segment_inside_a_torn_value_is_no_frame() {
    simulate(async {
        let disk = FakeDisk::new();
        let log = open(&disk).expect("open");
        append(&log, entries(1, 0..2, 100)).await.expect("append");
        let copy = disk.contents(&segment::segment_path(1)).expect("the segment");
        let copy = Bytes::from(copy[..400].to_vec());
        let entry = Entry { id: id(1, 2), kind: EntryKind::Batch, payload: copy };
        let state = log.0.state.lock().contents.checkpoint();
        append(&log, vec![entry]).await.expect("append");
        let frame = log.0.state.lock().contents.slot(2).expect("the copy").frame;
        let place = log.0.state.lock().frames.get(frame).expect("durable");
        drop(log);
        flip(&disk, place.segment, place.offset + 1);
        let log = open(&disk).expect("a torn end is no damage");
        assert_eq!(log.last_id(), state.last);
    });
}

#[test]
fn entries_read_back_are_checked() {
    simulate(async {
        let disk = FakeDisk::new();
        let frames = written(&disk).await;
        let log = open(&disk).expect("open");
        flip(&disk, frames[3].0, frames[3].1.end - 5);
        assert_eq!(log.read(0..3, usize::MAX).expect("undamaged"), entries(1, 0..3, 500));
        let error = log.read(0..9, usize::MAX).expect_err("damaged").to_string();
        assert!(error.contains(&segment::segment_path(frames[3].0)) && error.contains("1.3"), "{error}");
    });
}

#[test]
fn a_missing_segment_is_refused() {
    simulate(async {
        let probe = FakeDisk::new();
        let last = written(&probe).await.last().expect("frames").0;
        for missing in 1..last {
            let disk = FakeDisk::new();
            written(&disk).await;
            disk.remove(&segment::segment_path(missing)).expect("remove");
            let error = refused(&disk).to_string();
            assert!(error.contains(if missing == 1 { "are gone" } else { "is missing" }), "{error}");
        }
    });
}

#[test]
fn a_newer_format_is_refused_as_such() {
    simulate(async {
        let disk = FakeDisk::new();
        written(&disk).await;
        disk.flip(&segment::segment_path(1), 8, 3).expect("flip");
        let error = refused(&disk);
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
    });
}

#[test]
fn files_of_an_earlier_run_are_cleared_or_taken_over() {
    simulate(async {
        let disk = FakeDisk::new();
        drop(open(&disk).expect("open"));
        for name in ["log/1.filling", "log/2.spare", "log/3.spare"] {
            let bytes = if name == "log/3.spare" { SEGMENT_BYTES } else { 7 };
            disk.open(name, true).expect("create").set_len(bytes).expect("set_len");
        }
        drop(open(&disk).expect("open"));
        let names = disk.list(segment::DIRECTORY).expect("list");
        assert!(names.contains(&"3.spare".to_owned()), "{names:?}");
        assert!(!names.contains(&"1.filling".to_owned()) && !names.contains(&"2.spare".to_owned()));
    });
}
