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
use super::types::{KeyRange, KeyValue, Lease, Refusal, Reply};
use crate::proto::log::command::Op;
use crate::proto::log::precondition::Is;
use crate::proto::log::{Command, CommandBatch, Delete, LeaseExpire, LeaseGrant, Precondition, Put, Txn};
use crate::types::{MemberId, Revision};

/// The newest `CommandBatch` format that this version understands.
pub(super) const BATCH_FORMAT: u32 = 2;

impl State {
    pub fn apply_batch(&mut self, batch: &CommandBatch) -> io::Result<Vec<Reply>> {
        if batch.format > BATCH_FORMAT {
            let found = batch.format;
            return Err(invalid(format!(
                "a log entry has format {found}, this version reads {BATCH_FORMAT}: upgrade this node"
            )));
        }
        self.leases.advance_clock(batch.lease_clock_ms);
        self.tail.begin_entry(batch.commands.len());
        batch.commands.iter().map(|command| self.apply_command(command)).collect()
    }

    fn apply_command(&mut self, command: &Command) -> io::Result<Reply> {
        let condition = command.precondition.as_ref();
        let making = &mut Making::after(self.revision);
        match &command.op {
            Some(Op::Put(put)) => self.put_alone(put, condition, making),
            Some(Op::Delete(delete)) if delete.range_end.is_empty() => {
                self.delete_key(delete, condition, making)
            }
            Some(_) if condition.is_some() => Ok(senseless("a precondition needs a command on one key")),
            Some(Op::Delete(delete)) => self.delete_range(delete, making),
            Some(Op::Compact(compact)) => Ok(self.compact(compact.revision)),
            Some(Op::Txn(txn)) => self.txn(txn, making),
            Some(Op::LeaseGrant(grant)) => Ok(self.grant(grant)),
            Some(Op::LeaseRenew(renew)) => Ok(self.renew(renew.id)),
            Some(Op::LeaseRevoke(revoke)) => self.revoke(revoke.id),
            Some(Op::LeaseExpire(expire)) => self.expire(expire),
            Some(Op::LeaseTick(_)) => Ok(Reply::Ticked { revision: self.revision }),
            Some(Op::StateCheck(check)) => {
                self.tail.mark(MemberId(check.leader));
                Ok(Reply::Marked { revision: self.revision })
            }
            None => Ok(senseless("the command says not what to do")),
        }
    }

    /// A put that is a command of its own: it may be refused.
    fn put_alone(
        &mut self,
        put: &Put,
        condition: Option<&Precondition>,
        making: &mut Making,
    ) -> io::Result<Reply> {
        match self.lacks_lease(put).or_else(|| self.lacks_kept_key(put)) {
            Some(why) => Ok(Reply::Refused { why }),
            None => self.put(put, condition, making),
        }
    }

    pub fn lacks_lease(&self, put: &Put) -> Option<Refusal> {
        let lacks = put.lease != 0 && self.leases.get(put.lease).is_none();
        lacks.then_some(Refusal::LeaseNotFound)
    }

    pub fn lacks_kept_key(&self, put: &Put) -> Option<Refusal> {
        let keeps = put.ignore_value || put.ignore_lease;
        (keeps && self.index.latest(&put.key).is_none()).then_some(Refusal::KeyNotFound)
    }

    pub fn put(
        &mut self,
        put: &Put,
        condition: Option<&Precondition>,
        making: &mut Making,
    ) -> io::Result<Reply> {
        let (before, id) = (self.revision, making.next_row()?);
        // One walk through the index looks the key up and changes it.
        let updated = self.index.update(&put.key, |latest| {
            check_precondition(before, latest, condition)?;
            let create_revision = latest.map_or(id.revision, |latest| latest.create_revision);
            let version = latest.map_or(1, |latest| latest.version + 1);
            Ok(Latest { id, create_revision, version })
        });
        let (latest, next) = match updated {
            Ok(updated) => updated,
            Err(reply) => return Ok(reply),
        };
        let needs_old = put.ignore_value || (put.prev_kv && self.answering);
        let old = latest.filter(|_| needs_old).map(|latest| self.key_value(latest.id)).transpose()?;
        let lease = if put.ignore_lease { self.leases.of_key(&put.key) } else { put.lease };
        let value = match &old {
            Some(old) if put.ignore_value => old.value.clone(),
            _ => put.value.clone(),
        };
        let row = Row {
            previous: latest.map(|latest| latest.id),
            key: put.key.clone(),
            create_revision: next.create_revision,
            version: next.version,
            lease,
            value,
        };
        self.tail.push(id, row);
        self.leases.attach(&put.key, lease);
        self.revision = id.revision;
        let Latest { create_revision, version, .. } = next;
        let previous = old.filter(|_| put.prev_kv);
        Ok(Reply::Put { revision: self.revision, create_revision, version, previous })
    }

    fn delete_key(
        &mut self,
        delete: &Delete,
        condition: Option<&Precondition>,
        making: &mut Making,
    ) -> io::Result<Reply> {
        let latest = self.index.latest(&delete.key);
        if let Err(reply) = check_precondition(self.revision, latest, condition) {
            return Ok(reply);
        }
        let row = latest.map(|latest| (delete.key.clone(), latest.id));
        self.delete_rows(row.into_iter().collect(), delete.prev_kv, making)
    }

    pub fn delete_range(&mut self, delete: &Delete, making: &mut Making) -> io::Result<Reply> {
        let range = KeyRange::of_request(&delete.key, &delete.range_end);
        let live = self.index.live_keys(&range);
        let rows = live.filter_map(|key| Some((Bytes::copy_from_slice(key), self.index.find(key, None)?)));
        let rows = rows.collect();
        self.delete_rows(rows, delete.prev_kv, making)
    }

    /// Writes tombstones over live rows: one revision, a sub-number for each.
    fn delete_rows(
        &mut self,
        rows: Vec<(Bytes, RowId)>,
        prev_kv: bool,
        making: &mut Making,
    ) -> io::Result<Reply> {
        let asked = rows.iter().filter(|_| prev_kv && self.answering);
        let previous = asked.map(|(_, id)| self.key_value(*id)).collect::<io::Result<Vec<KeyValue>>>()?;
        let deleted = rows.len() as u64;
        for (key, old_id) in rows {
            let id = making.next_row()?;
            self.index.record(&key, Latest { id, create_revision: 0, version: 0 });
            self.leases.attach(&key, 0);
            self.tail.push(id, Row::tombstone(key, old_id));
            self.revision = id.revision;
        }
        Ok(Reply::Deleted { revision: self.revision, deleted, previous })
    }

    fn txn(&mut self, txn: &Txn, making: &mut Making) -> io::Result<Reply> {
        let plan = match self.plan(txn)? {
            Ok(plan) => plan,
            Err(why) => return Ok(Reply::Refused { why }),
        };
        match self.refusal(&plan) {
            Some(why) => Ok(Reply::Refused { why }),
            None => self.carry_out(&plan, making),
        }
    }

    fn grant(&mut self, grant: &LeaseGrant) -> Reply {
        if grant.id == 0 || self.leases.get(grant.id).is_some() {
            return Reply::Refused { why: Refusal::LeaseExists };
        }
        self.leases.put(grant.id, grant.ttl_s);
        Reply::Lease { revision: self.revision, ttl_s: grant.ttl_s }
    }

    fn renew(&mut self, id: i64) -> Reply {
        let Some(Lease { ttl_s, .. }) = self.leases.get(id) else {
            return Reply::Refused { why: Refusal::LeaseNotFound };
        };
        self.leases.put(id, ttl_s);
        Reply::Lease { revision: self.revision, ttl_s }
    }

    fn revoke(&mut self, id: i64) -> io::Result<Reply> {
        if self.leases.get(id).is_none() {
            return Ok(Reply::Refused { why: Refusal::LeaseNotFound });
        }
        self.end_lease(id)?;
        Ok(Reply::LeasesEnded { revision: self.revision })
    }

    fn expire(&mut self, expire: &LeaseExpire) -> io::Result<Reply> {
        for id in expire.ids.iter().copied() {
            let over = |lease: Lease| lease.deadline_ms <= expire.until_ms;
            if self.leases.get(id).is_some_and(over) {
                self.end_lease(id)?;
            }
        }
        Ok(Reply::LeasesEnded { revision: self.revision })
    }

    /// Its keys go at one revision, in order.
    fn end_lease(&mut self, id: i64) -> io::Result<()> {
        let keys = self.leases.keys(id);
        let rows = keys.filter_map(|key| Some((key.clone(), self.index.find(key, None)?))).collect();
        let making = &mut Making::after(self.revision);
        self.delete_rows(rows, false, making)?;
        self.leases.remove(id);
        Ok(())
    }

    /// Compacts logically: from now on older revisions cannot be read. The worker removes
    /// the rows later.
    fn compact(&mut self, upto: Revision) -> Reply {
        let current = self.revision;
        if upto > current {
            return Reply::Refused { why: Refusal::FutureRevision { asked: upto, current } };
        }
        if upto <= self.compacted {
            return Reply::Refused { why: Refusal::Compacted { asked: upto, oldest: self.compacted } };
        }
        self.compacted = upto;
        Reply::Compacted { revision: current }
    }
}

/// The rows that one command makes: all at the next revision, numbered within it.
pub(super) struct Making {
    revision: Revision,
    subs: u32,
}

impl Making {
    fn after(revision: Revision) -> Self {
        Self { revision: revision + 1, subs: 0 }
    }

    fn next_row(&mut self) -> io::Result<RowId> {
        let id = RowId { revision: self.revision, sub: self.subs };
        let next = self.subs.checked_add(1);
        self.subs = next.ok_or_else(|| invalid("one command changes more than 2^32 keys"))?;
        Ok(id)
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

fn senseless(why: &'static str) -> Reply {
    Reply::Refused { why: Refusal::Senseless(why.into()) }
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
