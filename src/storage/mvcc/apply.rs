//! Applying commands: what each one means.
//!
//! Deterministic: a function of the state and the entry, so every replica that applied
//! the same entries has the same rows. No clock, no randomness, and nothing that
//! depends on how far this replica has flushed or removed compacted rows.

use std::io;

use bytes::Bytes;

use super::index::Latest;
use super::row::{Row, RowId};
use super::state::State;
use super::table::invalid;
use super::types::{KeyRange, KeyValue, Reply};
use crate::proto::log::command::Op;
use crate::proto::log::precondition::Is;
use crate::proto::log::{Command, CommandBatch, Delete, Precondition, Put};
use crate::types::{MemberId, Revision};

/// The newest `CommandBatch` format that this version understands.
const BATCH_FORMAT: u32 = 1;

impl State {
    pub fn apply_batch(&mut self, batch: &CommandBatch) -> io::Result<Vec<Reply>> {
        if batch.format > BATCH_FORMAT {
            let found = batch.format;
            return Err(invalid(format!(
                "a log entry has format {found}, this version reads {BATCH_FORMAT}: upgrade this node"
            )));
        }
        self.tail.begin_entry(batch.commands.len());
        batch.commands.iter().map(|command| self.apply_command(command)).collect()
    }

    fn apply_command(&mut self, command: &Command) -> io::Result<Reply> {
        let condition = command.precondition.as_ref();
        match &command.op {
            Some(Op::Put(put)) => self.put(put, condition),
            Some(Op::Delete(delete)) if delete.range_end.is_empty() => self.delete_key(delete, condition),
            Some(Op::Delete(_) | Op::Compact(_) | Op::StateCheck(_)) if condition.is_some() => {
                Ok(refused("a precondition needs a command on one key"))
            }
            Some(Op::Delete(delete)) => self.delete_range(delete),
            Some(Op::Compact(compact)) => Ok(self.compact(compact.revision)),
            Some(Op::StateCheck(check)) => {
                self.tail.mark(MemberId(check.leader));
                Ok(Reply::Marked { revision: self.revision })
            }
            None => Ok(refused("the command says not what to do")),
        }
    }

    fn put(&mut self, put: &Put, condition: Option<&Precondition>) -> io::Result<Reply> {
        let (before, revision) = (self.revision, self.revision + 1);
        let id = RowId::first_of(revision);
        // One walk through the index looks the key up and changes it.
        let updated = self.index.update(&put.key, |latest| {
            check_precondition(before, latest, condition)?;
            let create_revision = latest.map_or(revision, |latest| latest.create_revision);
            let version = latest.map_or(1, |latest| latest.version + 1);
            Ok(Latest { id, create_revision, version })
        });
        let (latest, next) = match updated {
            Ok(updated) => updated,
            Err(reply) => return Ok(reply),
        };
        let asked = latest.filter(|_| put.prev_kv);
        let previous = asked.map(|latest| self.key_value(latest.id)).transpose()?;
        let row = Row {
            previous: latest.map(|latest| latest.id),
            key: put.key.clone(),
            create_revision: next.create_revision,
            version: next.version,
            lease: put.lease,
            value: put.value.clone(),
        };
        self.tail.push(id, row);
        self.revision = revision;
        Ok(Reply::Put { revision, create_revision: next.create_revision, version: next.version, previous })
    }

    fn delete_key(&mut self, delete: &Delete, condition: Option<&Precondition>) -> io::Result<Reply> {
        let latest = self.index.latest(&delete.key);
        if let Err(reply) = check_precondition(self.revision, latest, condition) {
            return Ok(reply);
        }
        let row = latest.map(|latest| (delete.key.clone(), latest.id));
        self.delete_rows(row.into_iter().collect(), delete.prev_kv)
    }

    fn delete_range(&mut self, delete: &Delete) -> io::Result<Reply> {
        let range = KeyRange::of_request(&delete.key, &delete.range_end);
        let rows = self.index.range(&range);
        let live = rows.filter_map(|(key, history)| Some((Bytes::copy_from_slice(key), history.find(None)?)));
        let live = live.collect();
        self.delete_rows(live, delete.prev_kv)
    }

    /// Writes tombstones over live rows: one revision, a sub-number for each.
    fn delete_rows(&mut self, rows: Vec<(Bytes, RowId)>, prev_kv: bool) -> io::Result<Reply> {
        let asked = rows.iter().filter(|_| prev_kv);
        let previous = asked.map(|(_, id)| self.key_value(*id)).collect::<io::Result<Vec<KeyValue>>>()?;
        let deleted = rows.len() as u64;
        if rows.is_empty() {
            return Ok(Reply::Deleted { revision: self.revision, deleted, previous });
        }
        self.revision += 1;
        for (sub, (key, old_id)) in rows.into_iter().enumerate() {
            let sub = u32::try_from(sub).map_err(|_| invalid("one delete of more than 2^32 keys"))?;
            let id = RowId { revision: self.revision, sub };
            self.index.record(&key, Latest { id, create_revision: 0, version: 0 });
            self.tail.push(id, Row::tombstone(key, old_id));
        }
        Ok(Reply::Deleted { revision: self.revision, deleted, previous })
    }

    /// Compacts logically: from now on older revisions cannot be read. The worker removes
    /// the rows later.
    fn compact(&mut self, upto: Revision) -> Reply {
        let revision = self.revision;
        if upto > revision {
            return refused(&format!("revision {upto} is in the future; the store is at {revision}"));
        }
        if upto <= self.compacted {
            return refused(&format!(
                "revision {upto} has been compacted; the store is at {}",
                self.compacted
            ));
        }
        self.compacted = upto;
        Reply::Compacted { revision }
    }
}

/// The reply when the precondition does not hold.
fn check_precondition(
    revision: Revision,
    latest: Option<Latest>,
    condition: Option<&Precondition>,
) -> Result<(), Reply> {
    let Some(is) = condition.and_then(|condition| condition.is) else { return Ok(()) };
    let current = latest.map(|latest| latest.id.revision);
    let holds = match is {
        Is::ModRevision(revision) => current == Some(revision),
        Is::Exists(exists) => current.is_some() == exists,
    };
    if holds { Ok(()) } else { Err(Reply::PreconditionFailed { current, revision }) }
}

fn refused(why: &str) -> Reply {
    Reply::Refused { why: why.to_owned() }
}

impl KeyRange {
    /// etcd's convention: no end means one key, an end of one zero byte means all keys
    /// from `key` on.
    pub fn of_request(key: &Bytes, range_end: &Bytes) -> Self {
        match &range_end[..] {
            [] => KeyRange::One(key.clone()),
            [0] => KeyRange::From(key.clone()),
            _ => KeyRange::Between(key.clone(), range_end.clone()),
        }
    }
}
