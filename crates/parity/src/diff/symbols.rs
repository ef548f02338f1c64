//! Numbers that the two sides choose themselves, under names that both share.
//!
//! A sequence speaks of revisions and leases in symbols, since the sides stand at
//! different revisions and choose different lease ids. [`Symbols`] belongs to one side in
//! one sequence: it turns a symbol into that side's number before a request leaves, and
//! the number back into the symbol when the reply comes.
//!
//! Revisions: [`BASE`] is where the sequence begins (the store is compacted there), the
//! next number is its first change. Numbers outside the near range stand for themselves:
//! zero, negative ones, the far future. Leases: small ids are the client's own choice,
//! and [`CHOSEN`] and the next are those that the server chose, in their order.

use super::proto::*;

/// The symbol of the revision at which a sequence begins.
pub const BASE: i64 = 100;
/// The oldest revision that a sequence speaks of: compacted before it began.
pub const OLDEST: i64 = BASE - 2;
/// Past this a revision stands for itself; no sequence makes so many.
const NEAR_END: i64 = 10_000;
/// The symbol of the first lease that the server chose an id for.
pub const CHOSEN: i64 = 1_000_001;
/// A symbol of this size or more is a server's choice.
const CHOSEN_END: i64 = CHOSEN + 1_000;
/// Stands for a server's choice that was never made.
const NEVER_GRANTED: i64 = 999_983;

#[derive(Debug, Default)]
pub struct Symbols {
    /// This side's revision at the sequence's begin.
    pub base: i64,
    /// Lease ids that this side chose, in their order.
    pub chosen: Vec<i64>,
}

/// Which way numbers are turned.
#[derive(Clone, Copy)]
enum Way {
    ToNumber,
    ToSymbol,
}

/// Walks over every revision and lease id of a message.
struct Turn<'a>(&'a Symbols, Way);

impl Symbols {
    pub fn range(&self, mut request: RangeRequest) -> RangeRequest {
        self.to_number().range_request(&mut request);
        request
    }

    pub fn put(&self, mut request: PutRequest) -> PutRequest {
        self.to_number().lease(&mut request.lease);
        request
    }

    pub fn txn(&self, mut request: TxnRequest) -> TxnRequest {
        self.to_number().txn_request(&mut request);
        request
    }

    /// The number of this revision.
    pub fn number(&self, mut revision: i64) -> i64 {
        self.to_number().revision(&mut revision);
        revision
    }

    pub fn lease_number(&self, mut lease: i64) -> i64 {
        self.to_number().lease(&mut lease);
        lease
    }

    pub fn hide_header(&self, header: &mut Option<ResponseHeader>) {
        self.to_symbol().header(header);
    }

    pub fn hide_range(&self, reply: &mut RangeResponse) {
        self.to_symbol().range_response(reply);
    }

    pub fn hide_put(&self, reply: &mut PutResponse) {
        self.to_symbol().put_response(reply);
    }

    pub fn hide_delete(&self, reply: &mut DeleteRangeResponse) {
        self.to_symbol().delete_response(reply);
    }

    pub fn hide_txn(&self, reply: &mut TxnResponse) {
        self.to_symbol().txn_response(reply);
    }

    pub fn hide_lease(&self, lease: &mut i64) {
        self.to_symbol().lease(lease);
    }

    pub fn hide_watch(&self, reply: &mut WatchResponse) {
        let turn = self.to_symbol();
        turn.header(&mut reply.header);
        turn.revision(&mut reply.compact_revision);
        for event in &mut reply.events {
            turn.key_value(&mut event.kv);
            turn.key_value(&mut event.prev_kv);
        }
    }

    fn to_number(&self) -> Turn<'_> {
        Turn(self, Way::ToNumber)
    }

    fn to_symbol(&self) -> Turn<'_> {
        Turn(self, Way::ToSymbol)
    }
}

impl Turn<'_> {
    fn revision(&self, revision: &mut i64) {
        let shift = self.0.base - BASE;
        match self.1 {
            Way::ToNumber if (OLDEST..NEAR_END).contains(revision) => *revision += shift,
            Way::ToSymbol if *revision > 0 => *revision -= shift,
            _ => {}
        }
    }

    fn lease(&self, lease: &mut i64) {
        let chosen = &self.0.chosen;
        match self.1 {
            Way::ToNumber if (CHOSEN..CHOSEN_END).contains(lease) => {
                *lease = chosen.get((*lease - CHOSEN) as usize).copied().unwrap_or(NEVER_GRANTED);
            }
            Way::ToSymbol => {
                if let Some(at) = chosen.iter().position(|id| id == lease) {
                    *lease = CHOSEN + at as i64;
                }
            }
            Way::ToNumber => {}
        }
    }

    /// Only whether cluster, member and term are filled in can be compared.
    fn header(&self, header: &mut Option<ResponseHeader>) {
        if let Some(header) = header {
            header.cluster_id = u64::from(header.cluster_id != 0);
            header.member_id = u64::from(header.member_id != 0);
            header.raft_term = u64::from(header.raft_term != 0);
            self.revision(&mut header.revision);
        }
    }

    fn key_value(&self, kv: &mut Option<KeyValue>) {
        if let Some(kv) = kv {
            self.pair(kv);
        }
    }

    fn pair(&self, kv: &mut KeyValue) {
        self.revision(&mut kv.create_revision);
        self.revision(&mut kv.mod_revision);
        self.lease(&mut kv.lease);
    }

    fn range_request(&self, request: &mut RangeRequest) {
        self.revision(&mut request.revision);
        self.revision(&mut request.min_mod_revision);
        self.revision(&mut request.max_mod_revision);
        self.revision(&mut request.min_create_revision);
        self.revision(&mut request.max_create_revision);
    }

    fn txn_request(&self, request: &mut TxnRequest) {
        for compare in &mut request.compare {
            match &mut compare.target_union {
                Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) => {
                    self.revision(revision);
                }
                Some(TargetUnion::Lease(lease)) => self.lease(lease),
                _ => {}
            }
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                Some(RequestKind::RequestRange(range)) => self.range_request(range),
                Some(RequestKind::RequestPut(put)) => self.lease(&mut put.lease),
                Some(RequestKind::RequestTxn(txn)) => self.txn_request(txn),
                Some(RequestKind::RequestDeleteRange(_)) | None => {}
            }
        }
    }

    fn range_response(&self, reply: &mut RangeResponse) {
        self.header(&mut reply.header);
        reply.kvs.iter_mut().for_each(|kv| self.pair(kv));
    }

    fn put_response(&self, reply: &mut PutResponse) {
        self.header(&mut reply.header);
        self.key_value(&mut reply.prev_kv);
    }

    fn delete_response(&self, reply: &mut DeleteRangeResponse) {
        self.header(&mut reply.header);
        reply.prev_kvs.iter_mut().for_each(|kv| self.pair(kv));
    }

    fn txn_response(&self, reply: &mut TxnResponse) {
        self.header(&mut reply.header);
        for op in &mut reply.responses {
            match &mut op.response {
                Some(ResponseKind::ResponseRange(range)) => self.range_response(range),
                Some(ResponseKind::ResponsePut(put)) => self.put_response(put),
                Some(ResponseKind::ResponseDeleteRange(delete)) => self.delete_response(delete),
                Some(ResponseKind::ResponseTxn(txn)) => self.txn_response(txn),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_revisions_are_relative_and_others_are_not() {
        let symbols = Symbols { base: 5_000, chosen: vec![] };
        assert_eq!(symbols.number(BASE), 5_000);
        assert_eq!(symbols.number(BASE + 3), 5_003);
        assert_eq!([0, -1, 1 << 40].map(|far| symbols.number(far)), [0, -1, 1 << 40]);
        let mut reply = RangeResponse {
            kvs: vec![KeyValue { mod_revision: 5_003, ..KeyValue::default() }],
            ..RangeResponse::default()
        };
        symbols.hide_range(&mut reply);
        assert_eq!((reply.kvs[0].mod_revision, reply.kvs[0].create_revision), (BASE + 3, 0));
    }

    #[test]
    fn leases_that_a_server_chose_are_numbered() {
        let symbols = Symbols { base: 5, chosen: vec![77_123, 55_456] };
        assert_eq!(symbols.lease_number(CHOSEN + 1), 55_456);
        assert_eq!(symbols.lease_number(CHOSEN + 2), NEVER_GRANTED);
        assert_eq!(symbols.lease_number(3), 3);
        let mut id = 77_123;
        symbols.hide_lease(&mut id);
        assert_eq!(id, CHOSEN);
    }
}
