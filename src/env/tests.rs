//! What a disk promises while nothing fails, of each one that there is: the real one, the
//! fake one, and the one that can be made to fail. What they do when the power goes only
//! the fake one can be asked.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::blocks::{BLOCK_BYTES, Blocks};
use super::disk::RealDisk;
use super::failing_disk::{DiskFaults, FailingDisk};
use super::fake_disk::FakeDisk;
use super::{Disk, Workers};

/// Runs one promise over all disks, each empty.
fn over_all(promise: fn(&dyn Disk)) {
    let dir = tempfile::tempdir().expect("a directory");
    promise(&RealDisk::open(dir.path()).expect("a real disk"));
    promise(&FakeDisk::new());
    promise(&FakeDisk::new().boot());
    promise(&FailingDisk::new(Arc::new(FakeDisk::new()), DiskFaults::default()));
}

fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open(path, false).expect("the file is there");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read_at(0, &mut bytes).expect("readable");
    bytes
}

#[test]
fn what_is_written_is_read_by_every_handle() {
    over_all(|disk| {
        let file = disk.open("d/a", true).expect("made, with its directory");
        file.write_at(3, b"abc").expect("beyond the end: zeros before it");
        file.write_at(4, b"x").expect("in the middle");
        assert_eq!(read(disk, "d/a"), b"\0\0\0axc");
        file.set_len(4).expect("shorter");
        file.set_len(6).expect("longer: zeros behind it");
        assert_eq!(read(disk, "d/a"), b"\0\0\0a\0\0");
        file.sync().expect("sync");
        disk.open("d/a", true).expect("opened, not made anew");
        assert_eq!(read(disk, "d/a").len(), 6);
    });
}

/// Whole blocks, which may take another way to the disk, parts of blocks, and what the
/// kernel holds back: whoever reads sees the last of them.
#[test]
fn synced_writes_and_others_are_read_in_their_order() {
    over_all(|disk| {
        let file = disk.open("d/filling", true).expect("made");
        let mut blocks = Blocks::zeros(3 * BLOCK_BYTES);
        file.write_synced(0, blocks.as_slice()).expect("the file grows");
        disk.rename("d/filling", "d/a").expect("renamed while it is open");
        file.write_at(10, b"held back").expect("written");
        let mut expected = blocks.as_slice().to_vec();
        expected[10..19].copy_from_slice(b"held back");
        assert_eq!(read(disk, "d/a"), expected);
        blocks.as_mut_slice().fill(b'b');
        let two = 2 * BLOCK_BYTES;
        file.write_synced(BLOCK_BYTES as u64, &blocks.as_slice()[..two]).expect("whole blocks");
        expected[BLOCK_BYTES..].fill(b'b');
        assert_eq!(read(disk, "d/a"), expected);
        file.write_synced(5, b"part of a block, over what is held back").expect("a part");
        expected[5..44].copy_from_slice(b"part of a block, over what is held back");
        file.write_at(two as u64, b"c").expect("written");
        expected[two] = b'c';
        assert_eq!(read(disk, "d/a"), expected);
        file.write_synced(0, &blocks.as_slice()[..BLOCK_BYTES]).expect("whole blocks");
        expected[..BLOCK_BYTES].fill(b'b');
        assert_eq!(read(disk, "d/a"), expected);
    });
}

#[test]
fn a_read_beyond_the_end_fails() {
    over_all(|disk| {
        let file = disk.open("a", true).expect("made");
        file.write_at(0, b"abc").expect("written");
        for offset in [1, 3, 100] {
            let read = file.read_at(offset, &mut [0; 3]);
            assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::UnexpectedEof));
        }
    });
}

#[test]
fn what_is_missing_is_not_found_and_may_be_removed() {
    over_all(|disk| {
        let missing = disk.open("a", false).map(drop).map_err(|error| error.kind());
        assert_eq!(missing, Err(ErrorKind::NotFound));
        assert_eq!(disk.rename("a", "b").map_err(|error| error.kind()), Err(ErrorKind::NotFound));
        disk.remove("a").expect("no error");
        assert!(disk.list("nowhere").expect("no error").is_empty());
    });
}

#[test]
fn a_list_names_the_files_of_one_directory_in_order() {
    over_all(|disk| {
        for path in ["b", "a", "d/z", "d/y"] {
            disk.open(path, true).expect("made");
        }
        disk.remove("d/y").expect("removed");
        let own = |dir| disk.list(dir).expect("listed").into_iter().filter(|name| name != "LOCK");
        assert_eq!(own("").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(own("d").collect::<Vec<_>>(), ["z"]);
        disk.sync_dir("d").expect("synced");
        disk.sync_dir("").expect("synced");
    });
}

#[test]
fn a_rename_replaces_and_open_handles_go_with_their_file() {
    over_all(|disk| {
        let (old, new) = (disk.open("a", true).expect("made"), disk.open("a.next", true).expect("made"));
        old.write_at(0, b"old").expect("written");
        new.write_at(0, b"new").expect("written");
        disk.rename("a.next", "a").expect("renamed");
        assert_eq!(read(disk, "a"), b"new");
        new.write_at(3, b"er").expect("written");
        assert_eq!(read(disk, "a"), b"newer");
        old.write_at(0, b"lost").expect("its name is gone, it is not");
        assert_eq!(read(disk, "a"), b"newer");
        assert!(disk.open("a.next", false).is_err());
    });
}

#[test]
fn two_things_are_done_and_waited_for_by_threads_or_without() {
    for workers in [Workers::Threads, Workers::Tasks { delay: || Duration::ZERO }] {
        let text = String::from("lent");
        let (first, second) = workers.both("first", || text.len(), || text.as_str()).expect("both");
        assert_eq!((first, second), (4, "lent"));
    }
}
