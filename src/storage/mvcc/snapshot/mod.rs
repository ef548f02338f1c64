//! Snapshots: the whole state as one stream of bytes.
//!
//! A stream is a magic word and frames: one header (the table's meta record), any
//! number of parts with rows in order of their ids, zstd-compressed, and one footer that
//! counts and hashes what came before. Every frame carries a CRC32C. So a flipped bit is
//! caught where it is, and a stream that was cut, even between frames, lacks its footer.
//!
//! [`image`] makes the stream, from one read transaction while writes go on; [`receive`]
//! writes what arrives to `snapshot.incoming`, checks it and hands out its rows. How
//! chunks travel is the caller's affair: the receiver takes the bytes cut anyhow.
//! `docs/format.md` has the layout.

mod image;
mod receive;

pub use image::SnapshotImage;
pub(super) use receive::INCOMING_FILE;
pub use receive::{ReceivedSnapshot, SnapshotWriter};
