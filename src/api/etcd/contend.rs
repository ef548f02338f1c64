//! What locks and elections have in common: standing in line under a name.
//!
//! Each contender has one key, `name/lease`, that goes with its lease. The line is the order
//! of their create revisions; whoever's key is the oldest is at its head. A contender waits
//! for the one before it, so a key that goes wakes one of them.

use std::time::Duration;

use bytes::Bytes;

use super::error::mixed_up;
use super::long_calls::Caller;
use super::{Api, Refused, Result};
use crate::proto::etcdserverpb::ResponseHeader;
use crate::proto::log::{self, Comparison, command::Op, compare::With, sort::By, txn_op};
use crate::storage::mvcc::{
    KeyRange, KeyValue, RangeQuery, RangeResult, ReadError, Reply, RevisionBounds, Sort, SortBy, Store,
};
use crate::types::{Consistency, Revision};

/// Of the lease that a contender without one gets: etcd's number.
const OWN_LEASE_TTL_S: i64 = 60;
/// It is kept alive while the contender waits: twice missed, it still lives.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// All keys under a name.
pub struct Line {
    prefix: Vec<u8>,
}

/// One contender's key, from when it was created.
#[derive(Clone, Debug)]
pub struct Place {
    pub key: Bytes,
    pub created: Revision,
    pub lease: i64,
    /// The lease was made for it.
    own_lease: bool,
}

/// A place that was taken, or was there.
pub struct LinedUp {
    pub place: Place,
    /// Nobody is before it.
    pub first: bool,
    /// What the key holds, if it was there.
    pub found: Option<KeyValue>,
    pub header: Option<ResponseHeader>,
}

impl Line {
    pub fn of(name: &[u8]) -> Self {
        Self { prefix: [name, b"/"].concat() }
    }

    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        [&self.prefix[..], format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
    }

    /// There is one: the prefix ends with a slash, which has a successor.
    fn end(&self) -> Bytes {
        KeyRange::end_of_prefix(&self.prefix).unwrap_or_default()
    }

    fn range(&self) -> KeyRange {
        KeyRange::Between(self.prefix.clone().into(), self.end())
    }

    /// Whoever is at its head.
    pub fn head(&self, store: &Store) -> Result<RangeResult, ReadError> {
        self.one(store, RevisionBounds::default(), false)
    }

    /// The last of those that came before a create revision.
    fn before(&self, store: &Store, created: Revision) -> Result<Option<KeyValue>, ReadError> {
        let bounds = RevisionBounds { max_create: created - 1, ..RevisionBounds::default() };
        Ok(self.one(store, bounds, true)?.kvs.pop())
    }

    fn one(&self, store: &Store, bounds: RevisionBounds, last: bool) -> Result<RangeResult, ReadError> {
        let sort = Some(Sort { by: SortBy::CreateRevision, descending: last, after_limit: false });
        let range = self.range();
        store.range(&RangeQuery { range, limit: 1, bounds, sort, ..RangeQuery::default() })
    }

    /// Takes the place of a lease, with this value, or finds it; and looks who is first.
    fn line_up(&self, key: &Bytes, lease: i64, value: Bytes) -> log::Txn {
        let put = log::Put { key: key.clone(), value, lease, ..log::Put::default() };
        let found = log::Range { key: key.clone(), ..log::Range::default() };
        let sort = Some(log::Sort { by: By::CreateRevision.into(), ..log::Sort::default() });
        let (start, range_end) = (self.prefix.clone().into(), self.end());
        let head = log::Range { key: start, range_end, limit: 1, sort, ..log::Range::default() };
        log::Txn {
            compares: vec![created_at(key.clone(), 0)],
            success: vec![op(txn_op::Op::Put(put)), op(txn_op::Op::Range(head.clone()))],
            failure: vec![op(txn_op::Op::Range(found)), op(txn_op::Op::Range(head))],
        }
    }
}

fn op(op: txn_op::Op) -> log::TxnOp {
    log::TxnOp { op: Some(op) }
}

fn created_at(key: Bytes, revision: i64) -> log::Compare {
    let with = Some(With::CreateRevision(revision));
    log::Compare { key, range_end: Bytes::new(), comparison: Comparison::Equal.into(), with }
}

/// Does something if the key still is the one created at `created`.
pub fn if_created_at(key: Bytes, created: i64, then: txn_op::Op) -> log::Txn {
    log::Txn { compares: vec![created_at(key, created)], success: vec![op(then)], failure: vec![] }
}

pub fn delete(key: Bytes) -> txn_op::Op {
    txn_op::Op::Delete(log::Delete { key, ..log::Delete::default() })
}

impl Api {
    /// Whether the condition held, and the header.
    pub async fn conditionally(&self, txn: log::Txn) -> Result<(bool, Option<ResponseHeader>)> {
        match self.write(Op::Txn(txn)).await? {
            (Reply::Txn { revision, succeeded, .. }, term) => {
                Ok((succeeded, self.header_in_term(revision, term)))
            }
            _ => Err(mixed_up()),
        }
    }

    /// Lines up, and `served` once at the head: with what that gives the caller is answered.
    /// Whoever is not served, or is gone by then, leaves the line.
    pub async fn contend<T, F>(
        self,
        name: Bytes,
        lease: i64,
        value: Bytes,
        served: impl FnOnce(Api, LinedUp) -> F,
        mut caller: Caller<T>,
    ) where
        F: Future<Output = Result<T>>,
    {
        let line = Line::of(&name);
        let lined_up = match self.line_up(&line, lease, value).await {
            Ok(lined_up) => lined_up,
            Err(refused) => {
                caller.answer(Err(refused.in_service()));
                return;
            }
        };
        let place = lined_up.place.clone();
        // A place at the head that was there before is held by an earlier call of this lease.
        let ours = lined_up.found.is_none() || !lined_up.first;
        let work = async {
            if !lined_up.first {
                self.await_turn(&line, &place).await?;
            }
            served(self.clone(), lined_up).await
        };
        let result = tokio::select! { biased;
            result = work => result,
            refused = self.keep_own_lease(&place) => Err(refused),
            () = caller.gone() => Err(Refused::SessionExpired),
        };
        let served = result.is_ok();
        let told = caller.answer(result.map_err(Refused::in_service));
        if ours && !(served && told) {
            self.leave(&place).await;
        }
    }

    async fn line_up(&self, line: &Line, lease: i64, value: Bytes) -> Result<LinedUp> {
        if lease != 0 {
            return self.take_place(line, lease, false, value).await;
        }
        let request = crate::proto::etcdserverpb::LeaseGrantRequest { ttl: OWN_LEASE_TTL_S, id: 0 };
        let lease = self.lease_grant(request).await?.id;
        let taken = self.take_place(line, lease, true, value).await;
        if taken.is_err() {
            // Nobody knows of it; if this fails, it ends by itself.
            let _ = self.lease_revoke(lease).await;
        }
        taken
    }

    async fn take_place(&self, line: &Line, lease: i64, own_lease: bool, value: Bytes) -> Result<LinedUp> {
        let key = line.key(lease);
        let txn = line.line_up(&key, lease, value);
        let (Reply::Txn { revision, succeeded, replies }, term) = self.write(Op::Txn(txn)).await? else {
            return Err(mixed_up());
        };
        let [own, Reply::Range(head)] = &replies[..] else { return Err(mixed_up()) };
        let found = match own {
            Reply::Range(found) => found.kvs.first().cloned(),
            _ => None,
        };
        let created = match (succeeded, &found) {
            (true, _) => revision,
            (false, Some(found)) => found.create_revision,
            (false, None) => return Err(mixed_up()),
        };
        let first = head.kvs.first().is_none_or(|head| head.create_revision == created);
        let place = Place { key, created, lease, own_lease };
        Ok(LinedUp { place, first, found, header: self.header_in_term(revision, term) })
    }

    /// Returns when everybody who came before is gone, or this place itself is. This member's
    /// store is enough to know: nobody can come before any more, and who is gone stays gone.
    async fn await_turn(&self, line: &Line, place: &Place) -> Result<()> {
        self.node.read_barrier(Consistency::Local, Some(place.created), self.timeout()).await?;
        while let Some(before) = line.before(self.node.store(), place.created)? {
            let place_is_lost = self.node.look_until(|store| change(store, &before, place)).await??;
            if place_is_lost {
                break;
            }
        }
        Ok(())
    }

    /// Whether the contender's key is still there: it goes with its lease.
    pub async fn holds(&self, place: &Place) -> Result<bool> {
        self.readable(false).await?;
        Ok(is_there(self.node.store(), &place.key, place.created)?)
    }

    /// Returns when the lease made for this place is lost; never for a caller's lease.
    async fn keep_own_lease(&self, place: &Place) -> Refused {
        if !place.own_lease {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(KEEP_ALIVE).await;
            if let Err(Refused::LeaseNotFound) = self.lease_renew(place.lease).await {
                return Refused::LeaseNotFound;
            }
        }
    }

    /// If this fails, the key goes with its lease.
    async fn leave(&self, place: &Place) {
        let _ = match place.own_lease {
            true => self.lease_revoke(place.lease).await.map(drop),
            false => {
                let txn =
                    if_created_at(place.key.clone(), place.created.cast_signed(), delete(place.key.clone()));
                self.conditionally(txn).await.map(drop)
            }
        };
    }
}

fn is_there(store: &Store, key: &[u8], created: Revision) -> Result<bool, ReadError> {
    Ok(store.get(key, None)?.is_some_and(|now| now.create_revision == created))
}

/// What a contender waits for: `true` when its own place is lost, `false` when the one
/// before it is free.
fn change(store: &Store, before: &KeyValue, place: &Place) -> Option<Result<bool, ReadError>> {
    match is_there(store, &before.key, before.create_revision) {
        Ok(false) => Some(Ok(false)),
        Ok(true) => match is_there(store, &place.key, place.created) {
            Ok(true) => None,
            Ok(false) => Some(Ok(true)),
            Err(error) => Some(Err(error)),
        },
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_etcd_names_them() {
        let line = Line::of(b"jobs");
        assert_eq!(line.key(0x7fa), "jobs/7fa");
        assert_eq!(line.key(-95), "jobs/-5f");
        assert_eq!(line.key(i64::MIN), "jobs/-8000000000000000");
        assert_eq!(line.range(), KeyRange::Between("jobs/".into(), "jobs0".into()));
        assert_eq!(Line::of(b"").range(), KeyRange::Between("/".into(), "0".into()));
    }
}
