//! What files take of a disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// The unit that the kernel counts a file's blocks in, whatever the file system's is.
const BLOCK_BYTES: u64 = 512;

/// Of all files below a directory, what is set aside for them and not what is in them.
pub fn allocated_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => bytes += allocated_bytes(&path)?,
            Ok(found) => bytes += found.blocks() * BLOCK_BYTES,
            // A running server may have removed it since.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
            Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_nothing_and_directories_are_walked() {
        let dir = std::env::temp_dir().join(format!("bellwether-bench-disk-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("below")).expect("a directory");
        let hole = std::fs::File::create(dir.join("hole")).expect("a file");
        hole.set_len(1 << 30).expect("a longer file");
        std::fs::write(dir.join("below/full"), vec![1; 1 << 20]).expect("a file");
        let file = std::fs::File::open(dir.join("below/full")).expect("there");
        file.sync_all().expect("the blocks are chosen");
        let found = allocated_bytes(&dir);
        std::fs::remove_dir_all(&dir).expect("removed");
        assert!((1 << 20..1 << 25).contains(&found.expect("readable")));
    }
}
