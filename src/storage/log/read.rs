//! Reading entries back: the newest from memory, older ones from their segments.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, ENTRY_HEADER_BYTES};
use super::recover::damaged;
use super::segment::segment_path;
use super::state::State;
use super::{Entry, EntryKind};
use crate::env::File;
use crate::types::{LogId, LogIndex};

/// Neighbours on disk are read together up to this size...
const MAX_RUN_BYTES: u64 = 1 << 20;
/// ... unless more than this lies between them, as after a truncation.
const MAX_GAP_BYTES: u64 = 4096;

/// What to read, decided under the lock and done without it.
#[derive(Default)]
pub(super) struct Plan {
    runs: Vec<Run>,
    /// They follow those of the runs.
    cached: Vec<Entry>,
}

/// Entries that one read of a segment yields.
struct Run {
    segment: u64,
    file: Arc<dyn File>,
    bytes: Range<u64>,
    wanted: Vec<Wanted>,
}

struct Wanted {
    id: LogId,
    kind: EntryKind,
    record: Range<u64>,
}

impl Plan {
    /// Never empty when the log holds the first entry of `range`.
    pub fn new(state: &State, range: Range<LogIndex>, max_bytes: usize) -> io::Result<Self> {
        let contents = &state.contents;
        let range = range.start.max(contents.first())..range.end.min(contents.end());
        let mut plan = Self::default();
        let mut bytes = 0;
        for index in range.clone() {
            let Some(slot) = contents.slot(index) else { break };
            bytes += slot.payload_bytes as usize;
            if bytes > max_bytes && index > range.start {
                break;
            }
            match state.cache.get(index) {
                Some(entry) => plan.cached.push(entry.clone()),
                None => plan.add_from_disk(state, index)?,
            }
        }
        Ok(plan)
    }

    fn add_from_disk(&mut self, state: &State, index: LogIndex) -> io::Result<()> {
        let slot = state.contents.slot(index);
        let place = slot.and_then(|slot| state.frames.get(slot.frame));
        let segment = place.and_then(|place| state.segments.get(&place.segment));
        let (Some(slot), Some(place), Some(segment)) = (slot, place, segment) else {
            // The cache lets go of nothing that is not on disk.
            return Err(io::Error::other(format!("entry {index} is neither in memory nor on disk")));
        };
        let start = place.offset + u64::from(slot.at);
        let record = start..start + ENTRY_HEADER_BYTES as u64 + u64::from(slot.payload_bytes);
        let id = LogId { term: slot.term, index };
        let wanted = Wanted { id, kind: slot.kind, record: record.clone() };
        match self.runs.last_mut() {
            Some(run) if run.segment == place.segment && run.takes(&record) => {
                run.bytes.end = record.end;
                run.wanted.push(wanted);
            }
            _ => self.runs.push(Run {
                segment: place.segment,
                file: segment.file.clone(),
                bytes: record,
                wanted: vec![wanted],
            }),
        }
        Ok(())
    }

    pub fn read(self) -> io::Result<Vec<Entry>> {
        if self.runs.is_empty() {
            return Ok(self.cached);
        }
        let mut entries = Vec::new();
        for run in self.runs {
            run.read(&mut entries)?;
        }
        entries.extend(self.cached);
        Ok(entries)
    }
}

impl Run {
    fn takes(&self, record: &Range<u64>) -> bool {
        record.start >= self.bytes.end
            && record.start - self.bytes.end <= MAX_GAP_BYTES
            && record.end - self.bytes.start <= MAX_RUN_BYTES
    }

    fn read(self, entries: &mut Vec<Entry>) -> io::Result<()> {
        let mut bytes = vec![0; (self.bytes.end - self.bytes.start) as usize];
        self.file.read_at(self.bytes.start, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        for Wanted { id, kind, record } in self.wanted {
            let at = (record.start - self.bytes.start) as usize;
            let end = (record.end - self.bytes.start) as usize;
            let record_bytes = bytes.slice(at..end);
            if !format::entry_is_sound(&record_bytes, id) {
                let why = format!("entry {id} is not what was written");
                return Err(damaged(&segment_path(self.segment), record.start, &why));
            }
            entries.push(Entry { id, kind, payload: record_bytes.slice(ENTRY_HEADER_BYTES..) });
        }
        Ok(())
    }
}
