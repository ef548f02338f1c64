//! Files that are damaged while their node is down: it starts with everything it
//! acknowledged, or says what is damaged and does not start.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Cluster, PATIENCE, Request, eventually};

/// Keys written; with their values enough for several log segments.
const KEYS: usize = 150;
const VALUE_BYTES: usize = 1000;
/// Places in each file at which it is damaged: evenly spread over what is written in it,
/// the last byte included.
const PLACES: usize = 7;
/// What a crash may leave besides the files of a node, with nothing of worth in them.
const LEFTOVERS: [&str; 6] = [
    "identity.next",
    "peers.next",
    "snapshot.incoming",
    "state.redb.new",
    "state.index.new",
    "log/0123456789abcdef.filling",
];

#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedBit,
    Truncated,
}

impl Damage {
    /// False when the file has nothing there.
    fn inflict(self, file: &Path, place: usize) -> bool {
        let mut bytes = fs::read(file).expect("a readable file");
        // The log's files end in zeros, of which one is like another.
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
        let at = last * place / (PLACES - 1);
        match self {
            Damage::FlippedBit if at < bytes.len() => bytes[at] ^= 0x10,
            Damage::Truncated if at < bytes.len() => bytes.truncate(at),
            _ => return false,
        }
        fs::write(file, bytes).expect("a writable file");
        true
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_none_or(|extension| extension != "lock"))
        .collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let copied = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &copied),
            false => drop(fs::copy(&path, &copied).expect("copied")),
        }
    }
}

fn value(key: usize) -> String {
    format!("{key}-{}", "v".repeat(VALUE_BYTES))
}

/// A stopped node with data, and a copy of its directory.
async fn stopped_node() -> (Cluster, tempfile::TempDir) {
    let cluster = Cluster::started(1, &[("LOG_SEGMENT_BYTES", "65536")]).await;
    for key in 0..KEYS {
        cluster.put(0, &format!("/key/{key}"), &json!(value(key)).to_string()).await.expect(200);
    }
    cluster.term(0);
    assert_eq!(cluster.wait_exit(0).await, Some(0));
    let kept = tempfile::tempdir().expect("a directory");
    copy(&cluster.data_dir(0), kept.path());
    (cluster, kept)
}

async fn expect_everything(cluster: &Cluster, told: &str) {
    eventually(PATIENCE, || async {
        let ready = cluster.send(0, Request::get("/readyz")).await.map_err(|error| error.to_string())?;
        if ready.status == 200 { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    for key in 0..KEYS {
        let read = cluster.get(0, &format!("/key/{key}?consistency=linearizable")).await;
        assert_eq!(read.json()["value"], json!(value(key)), "{told}: key {key}");
    }
}

async fn damaged_everywhere(damage: Damage) {
    let (cluster, kept) = stopped_node().await;
    let dir = cluster.data_dir(0);
    let (mut refused, mut unharmed) = (Vec::new(), 0);
    for file in files(kept.path()) {
        let name = file.strip_prefix(kept.path()).expect("inside");
        for place in 0..PLACES {
            fs::remove_dir_all(&dir).expect("removed");
            copy(kept.path(), &dir);
            if !damage.inflict(&dir.join(name), place) {
                continue;
            }
            let told = format!("{} {damage:?} at {place}/{PLACES}", name.display());
            let _ = fs::remove_file(cluster.log_path(cluster.name(0)));
            match cluster.try_start(0).await {
                Ok(()) => {
                    expect_everything(&cluster, &told).await;
                    cluster.kill9(0);
                    unharmed += 1;
                }
                Err(code) => {
                    let log = fs::read_to_string(cluster.log_path(cluster.name(0))).unwrap_or_default();
                    assert_eq!(code, Some(1), "{told}:\n{log}");
                    // redb panics on damage when built for debugging, and reports it otherwise.
                    let redb = cfg!(debug_assertions) && log.contains("tree_store");
                    assert!(!log.contains("panicked") || redb, "{told}:\n{log}");
                    refused.push(told);
                }
            }
        }
    }
    println!("refused: {refused:#?}\nunharmed: {unharmed}");
    for kind in ["log/", "state.redb"] {
        assert!(
            refused.iter().any(|told| told.starts_with(kind)),
            "no damage of {kind} was noticed: {refused:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_harmless_or_refused() {
    damaged_everywhere(Damage::FlippedBit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_short_anywhere_is_harmless_or_refused() {
    damaged_everywhere(Damage::Truncated).await;
}

/// Whatever lies in the files that a crash leaves behind, the next start removes them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_behind_is_cleared() {
    let (cluster, kept) = stopped_node().await;
    let dir = cluster.data_dir(0);
    let table = fs::read(kept.path().join("state.redb")).expect("the table");
    for bytes in [&b""[..], &b"no file of ours"[..], &table[..table.len() / 2]] {
        for name in LEFTOVERS {
            fs::write(dir.join(name), bytes).expect("written");
        }
        cluster.start(0).await;
        expect_everything(&cluster, &format!("{} bytes left behind", bytes.len())).await;
        cluster.kill9(0);
        let left = LEFTOVERS.into_iter().filter(|name| dir.join(name).exists());
        // The names of the small files are cleared when they are written next.
        let left: Vec<_> = left.filter(|name| *name != "peers.next").collect();
        assert!(left.is_empty(), "still there: {left:?}");
    }
}
