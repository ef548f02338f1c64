//! Bytes in memory that a disk can take without the kernel copying them first: whole
//! blocks, at an address that is a multiple of a block.
//!
//! Without `unsafe` an allocation cannot be asked for an alignment, so there is one block
//! more than needed, and the bytes begin where a block does.

/// What disks read and write in one piece, or a multiple of it; also the size of the
/// kernel's pages, so nothing is gained below.
pub const BLOCK_BYTES: usize = 4096;

/// A growing run of bytes that begins at a multiple of [`BLOCK_BYTES`].
#[derive(Debug, Default)]
pub struct Blocks {
    memory: Vec<u8>,
    /// Where in `memory` the bytes begin.
    start: usize,
    len: usize,
}

impl Blocks {
    /// Zeros, as many as whole blocks hold at least `bytes`.
    pub fn zeros(bytes: usize) -> Self {
        let mut blocks = Self::default();
        blocks.reserve(bytes);
        blocks.len = bytes;
        blocks.pad();
        blocks
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(self.len + bytes.len());
        let end = self.start + self.len;
        self.memory[end..end + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds zeros up to the end of the last block.
    pub fn pad(&mut self) {
        let len = self.len.next_multiple_of(BLOCK_BYTES);
        self.reserve(len);
        self.memory[self.start + self.len..self.start + len].fill(0);
        self.len = len;
    }

    /// Keeps the bytes of `range` alone, as the first ones.
    pub fn keep(&mut self, range: std::ops::Range<usize>) {
        self.len = range.len();
        let from = self.start + range.start..self.start + range.end;
        self.memory.copy_within(from, self.start);
    }

    /// Gives memory back that is more than `bytes` need. Only what was kept stays.
    pub fn shrink(&mut self, bytes: usize) {
        if self.memory.len() > bytes.max(self.len) + 2 * BLOCK_BYTES {
            self.rebuild(bytes.max(self.len));
        }
    }

    fn reserve(&mut self, bytes: usize) {
        if self.start + bytes > self.memory.len() {
            self.rebuild(bytes.next_power_of_two());
        }
    }

    fn rebuild(&mut self, bytes: usize) {
        let mut memory = vec![0; bytes.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        memory[start..start + self.len].copy_from_slice(self.as_slice());
        (self.memory, self.start) = (memory, start);
    }
}

/// Whether a disk may take `bytes` for the place `offset` without a copy.
pub fn are_blocks(offset: u64, bytes: &[u8]) -> bool {
    offset.is_multiple_of(BLOCK_BYTES as u64)
        && bytes.len().is_multiple_of(BLOCK_BYTES)
        && bytes.as_ptr().align_offset(BLOCK_BYTES) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_place_and_in_line_while_they_grow() {
        let mut blocks = Blocks::default();
        let mut expected = Vec::new();
        for round in 0..40_u8 {
            let piece = vec![round; usize::from(round) * 97];
            blocks.extend(&piece);
            expected.extend(piece);
            assert_eq!(blocks.as_slice(), expected);
        }
        blocks.pad();
        assert!(are_blocks(0, blocks.as_slice()));
        assert_eq!(blocks.as_slice()[..expected.len()], expected);
        assert!(blocks.as_slice()[expected.len()..].iter().all(|byte| *byte == 0));
        blocks.keep(5000..7000);
        assert_eq!(blocks.as_slice(), &expected[5000..7000]);
        blocks.shrink(0);
        assert_eq!(blocks.as_slice(), &expected[5000..7000]);
        assert!(blocks.memory.len() < 5 * BLOCK_BYTES);
        blocks.pad();
        assert!(are_blocks(4096, blocks.as_slice()) && !are_blocks(8, blocks.as_slice()));
    }

    #[test]
    fn what_was_there_before_does_not_show_in_the_padding() {
        let mut blocks = Blocks::default();
        blocks.extend(&[7; 3 * BLOCK_BYTES]);
        blocks.keep(0..10);
        blocks.pad();
        assert_eq!(blocks.as_slice().len(), BLOCK_BYTES);
        assert!(blocks.as_slice()[10..].iter().all(|byte| *byte == 0));
        assert!(are_blocks(0, Blocks::zeros(1).as_slice()));
    }
}
