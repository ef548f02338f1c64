//! The small files of the data directory: `identity` and `peers`.
//!
//! Each is one protobuf message behind a header with a magic number, a format version
//! and a CRC32C (docs/format.md). A file is replaced as a whole: written under another
//! name, synced, renamed, the directory synced; so a crash leaves the old one or the
//! new one. What the messages mean is the business of `node`.

use std::io;

use prost::Message;

use crate::env::Disk;
use crate::env::planted::{Bug, is_planted};
use crate::proto::data::{Identity, Peers};

/// The newest format of these files that this version reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// Magic, format, length and CRC32C of the message.
const HEADER_BYTES: usize = 20;
const MAGIC_BYTES: usize = 8;

/// One kind of file.
struct Kind {
    path: &'static str,
    /// The name under which the next version is written.
    next: &'static str,
    magic: [u8; MAGIC_BYTES],
}

const IDENTITY: Kind = Kind { path: "identity", next: "identity.next", magic: *b"BWIDENT\n" };
const PEERS: Kind = Kind { path: "peers", next: "peers.next", magic: *b"BWPEERS\n" };

/// `None` when this directory never held a node.
pub fn load_identity(disk: &dyn Disk) -> io::Result<Option<Identity>> {
    let Some(identity) = load::<Identity>(disk, &IDENTITY)? else { return Ok(None) };
    refuse_newer(&IDENTITY, identity.format)?;
    Ok(Some(identity))
}

/// Durable when it returns.
pub fn store_identity(disk: &dyn Disk, identity: &Identity) -> io::Result<()> {
    store(disk, &IDENTITY, &Identity { format: FORMAT, ..identity.clone() })
}

/// `None` when no peer was ever recorded.
pub fn load_peers(disk: &dyn Disk) -> io::Result<Option<Peers>> {
    let Some(peers) = load::<Peers>(disk, &PEERS)? else { return Ok(None) };
    refuse_newer(&PEERS, peers.format)?;
    Ok(Some(peers))
}

/// Durable when it returns.
pub fn store_peers(disk: &dyn Disk, peers: &Peers) -> io::Result<()> {
    store(disk, &PEERS, &Peers { format: FORMAT, ..peers.clone() })
}

fn load<M: Message + Default>(disk: &dyn Disk, kind: &Kind) -> io::Result<Option<M>> {
    let file = match disk.open(kind.path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    let message = M::decode(check(kind, &bytes)?);
    message.map(Some).map_err(|error| damaged(kind, &error.to_string()))
}

/// The message's bytes, once the header vouches for them.
fn check<'a>(kind: &Kind, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(kind, "it ends inside its header"));
    };
    if header[..MAGIC_BYTES] != kind.magic {
        return Err(damaged(kind, "it does not begin with its magic number"));
    }
    refuse_newer(kind, number(header, MAGIC_BYTES))?;
    if number(header, 12) as usize != body.len() {
        return Err(damaged(kind, "its length is not the one recorded"));
    }
    if number(header, 16) != checksum(&header[..16], body) {
        return Err(damaged(kind, "its checksum does not match"));
    }
    Ok(body)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), body)
}

fn store(disk: &dyn Disk, kind: &Kind, message: &impl Message) -> io::Result<()> {
    let body = message.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = checksum(&bytes, &body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&body);

    // What an earlier crash left under this name may be longer than what follows.
    disk.remove(kind.next)?;
    let file = disk.open(kind.next, true)?;
    file.write_at(0, &bytes)?;
    file.sync()?;
    disk.rename(kind.next, kind.path)?;
    if is_planted(Bug::DirectoryNotSynced) {
        return Ok(());
    }
    disk.sync_dir("")
}

fn refuse_newer(kind: &Kind, format: u32) -> io::Result<()> {
    if format <= FORMAT {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "DATA_DIR/{} has format {format} and this version reads up to {FORMAT}: start the newer \
             version that wrote it",
            kind.path
        ),
    ))
}

fn damaged(kind: &Kind, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "DATA_DIR/{} is damaged: {why}. Restore the directory from a backup, or empty it and let \
             the node come back as a new member; do not delete this file alone",
            kind.path
        ),
    )
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::env::fake_disk::FakeDisk;
    use crate::proto::data::PeerRun;

    fn identity(starts: u64) -> Identity {
        Identity { format: FORMAT, name: "node-1".to_owned(), starts, ..Identity::default() }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let disk = FakeDisk::new();
        assert_eq!(load_identity(&disk).expect("an empty directory"), None);
        assert_eq!(load_peers(&disk).expect("an empty directory"), None);
        store_identity(&disk, &identity(7)).expect("store");
        store_peers(&disk, &Peers::default()).expect("store");
        assert_eq!(load_identity(&disk).expect("load"), Some(identity(7)));
        assert_eq!(load_peers(&disk).expect("load").map(|p| p.format), Some(FORMAT));
    }

    fn runs(starts: u64) -> Peers {
        Peers { format: FORMAT, runs: vec![PeerRun { member: 1, starts, nonce: 5 }] }
    }

    /// Stores one and then two, with the power cut at every operation of the second time
    /// and of a third; what `load` says must be one of those that it may be.
    fn crash_at_any_point(store: fn(&FakeDisk, u64) -> io::Result<()>, load: fn(&FakeDisk) -> Option<u64>) {
        for operations in 0.. {
            let mut cut = false;
            for seed in 0..20 {
                let mut rng = SmallRng::seed_from_u64(seed);
                let disk = FakeDisk::new();
                store(&disk, 1).expect("store");
                disk.stop_after(operations);
                let stored = store(&disk, 2).is_ok();
                cut |= disk.stopped();
                disk.crash(&mut rng);
                let first = load(&disk);
                assert!(first == Some(2) || (!stored && first == Some(1)), "{operations} {seed}: {first:?}");
                // What the first crash left must not harm a second attempt, nor its crash.
                disk.stop_after(seed % 6);
                let stored = store(&disk, 3).is_ok();
                disk.crash(&mut rng);
                let second = load(&disk);
                assert!(second == Some(3) || (!stored && second == first), "{operations} {seed}: {second:?}");
                store(&disk, 4).expect("store after a crash");
                assert_eq!(load(&disk), Some(4));
            }
            if !cut {
                assert!(
                    operations >= 5,
                    "a store takes {operations} operations: remove, write, sync, rename ..."
                );
                return;
            }
        }
    }

    #[test]
    fn a_crash_at_any_point_leaves_the_old_file_or_the_new_one() {
        crash_at_any_point(
            |disk, starts| store_identity(disk, &identity(starts)),
            |disk| load_identity(disk).expect("load").map(|identity| identity.starts),
        );
        crash_at_any_point(
            |disk, starts| store_peers(disk, &runs(starts)),
            |disk| load_peers(disk).expect("load").map(|peers| peers.runs[0].starts),
        );
    }

    /// The twin: a disk that lies about its syncs shows in the walk above.
    #[test]
    fn without_syncs_a_stored_file_may_be_lost() {
        let lost = (0..50).filter(|seed| {
            let disk = FakeDisk::new();
            disk.ignore_syncs(true);
            store_identity(&disk, &identity(1)).expect("store");
            disk.crash(&mut SmallRng::seed_from_u64(*seed));
            !matches!(load_identity(&disk), Ok(Some(found)) if found.starts == 1)
        });
        assert!(lost.count() > 0);
    }

    #[test]
    fn a_full_or_failing_disk_leaves_the_old_file() {
        let disk = FakeDisk::new();
        store_identity(&disk, &identity(1)).expect("store");
        let length = disk.contents("identity").expect("the file").len() as u64;
        for room in 0..length {
            disk.set_capacity(Some(length + room));
            let error = store_identity(&disk, &identity(2)).expect_err("no room");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(load_identity(&disk).expect("load"), Some(identity(1)));
        }
        disk.set_capacity(None);
        disk.fail_next_sync();
        store_identity(&disk, &identity(2)).expect_err("a failed sync");
        assert_eq!(load_identity(&disk).expect("load"), Some(identity(1)));
        // The next attempt is a new file, which owes nothing to what was lost.
        store_identity(&disk, &identity(3)).expect("store");
        disk.crash(&mut SmallRng::seed_from_u64(1));
        assert_eq!(load_identity(&disk).expect("load"), Some(identity(3)));
    }

    #[test]
    fn any_flipped_bit_or_cut_is_refused_with_the_mend() {
        let disk = FakeDisk::new();
        store_identity(&disk, &identity(1)).expect("store");
        store_peers(&disk, &runs(1)).expect("store");
        let refused = |path: &str| {
            let error = match path {
                "identity" => load_identity(&disk).map(drop),
                _ => load_peers(&disk).map(drop),
            };
            let error = error.expect_err("damage").to_string();
            assert!(error.contains(&format!("DATA_DIR/{path}")) && error.contains(": "), "{error}");
        };
        for path in ["identity", "peers"] {
            let bytes = disk.contents(path).expect("the file");
            for bit in 0..bytes.len() as u64 * 8 {
                disk.flip(path, bit / 8, 1 << (bit % 8)).expect("flip");
                refused(path);
                disk.flip(path, bit / 8, 1 << (bit % 8)).expect("flip back");
            }
            let file = disk.open(path, false).expect("open");
            for length in 0..bytes.len() as u64 {
                file.set_len(length).expect("cut");
                refused(path);
            }
            file.write_at(0, &bytes).expect("whole again");
        }
        load_identity(&disk).expect("undamaged again");
        load_peers(&disk).expect("undamaged again");
    }

    #[test]
    fn a_newer_format_is_refused_as_such() {
        let disk = FakeDisk::new();
        store_identity(&disk, &identity(1)).expect("store");
        disk.flip("identity", MAGIC_BYTES as u64, 3).expect("flip");
        let error = load_identity(&disk).expect_err("newer");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("start the newer version"), "{error}");
    }
}
