//! Takes out of a reply what two correct servers may answer differently.
//!
//! That is little: the order of keys that are equal in what they are sorted by (etcd's
//! sort is not stable), the order of leases and of a lease's keys (etcd keeps them in
//! maps), and the seconds that a lease has left. Numbers that servers choose are symbols
//! already ([`super::symbols`]).

use super::op::{Action, Reply};
use super::proto::*;

/// A lease that was granted or kept alive at most so long ago counts as fresh.
const FRESH_SECONDS: i64 = 20;

/// The same reply in the one form that can be compared.
pub fn normal(action: &Action, mut reply: Reply) -> Reply {
    match (action, &mut reply) {
        (Action::Range(request), Reply::Range(reply)) => order_ties(request, reply),
        (Action::Txn(request), Reply::Txn(reply)) => order_ties_within(request, reply),
        (_, Reply::TimeToLive(reply)) => {
            reply.keys.sort();
            if (reply.granted_ttl - FRESH_SECONDS..=reply.granted_ttl).contains(&reply.ttl) {
                reply.ttl = reply.granted_ttl;
            }
        }
        (_, Reply::Leases(reply)) => reply.leases.sort_by_key(|lease| lease.id),
        _ => {}
    }
    reply
}

fn order_ties_within(request: &TxnRequest, reply: &mut TxnResponse) {
    let branch = if reply.succeeded { &request.success } else { &request.failure };
    for (request, reply) in branch.iter().zip(&mut reply.responses) {
        match (&request.request, &mut reply.response) {
            (Some(RequestKind::RequestRange(request)), Some(ResponseKind::ResponseRange(reply))) => {
                order_ties(request, reply);
            }
            (Some(RequestKind::RequestTxn(request)), Some(ResponseKind::ResponseTxn(reply))) => {
                order_ties_within(request, reply);
            }
            _ => {}
        }
    }
}

/// Puts keys that are equal in the sort's target into the order of their names. Which of
/// them a limit let through is the server's choice, too: of the last group only the
/// target is kept then.
fn order_ties(request: &RangeRequest, reply: &mut RangeResponse) {
    let target = request.sort_target();
    if target == SortTarget::Key {
        return;
    }
    // Without values nobody can see which keys were equal.
    let blind = target == SortTarget::Value && request.keys_only;
    let same = |a: &KeyValue, b: &KeyValue| blind || in_target(target, a) == in_target(target, b);
    let mut groups: Vec<&mut [KeyValue]> = reply.kvs.chunk_by_mut(same).collect();
    for group in &mut groups {
        group.sort_by(|a, b| a.key.cmp(&b.key));
    }
    if let (true, Some(last)) = (reply.more, groups.last_mut()) {
        last.iter_mut().for_each(|kv| *kv = only(target, kv));
    }
}

/// As bytes whose equality is the target's.
fn in_target(target: SortTarget, kv: &KeyValue) -> Vec<u8> {
    match target {
        SortTarget::Key => kv.key.to_vec(),
        SortTarget::Version => kv.version.to_be_bytes().to_vec(),
        SortTarget::Create => kv.create_revision.to_be_bytes().to_vec(),
        SortTarget::Mod => kv.mod_revision.to_be_bytes().to_vec(),
        SortTarget::Value => kv.value.to_vec(),
    }
}

fn only(target: SortTarget, kv: &KeyValue) -> KeyValue {
    let mut kept = KeyValue::default();
    match target {
        SortTarget::Key => kept.key = kv.key.clone(),
        SortTarget::Version => kept.version = kv.version,
        SortTarget::Create => kept.create_revision = kv.create_revision,
        SortTarget::Mod => kept.mod_revision = kv.mod_revision,
        SortTarget::Value => kept.value = kv.value.clone(),
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, version: i64) -> KeyValue {
        KeyValue { key: key.into(), version, ..KeyValue::default() }
    }

    fn sorted(more: bool, kvs: [KeyValue; 3]) -> Vec<KeyValue> {
        let request = RangeRequest { sort_target: SortTarget::Version as i32, ..RangeRequest::default() };
        let reply = Reply::Range(RangeResponse { kvs: kvs.to_vec(), more, ..RangeResponse::default() });
        match normal(&Action::Range(request), reply) {
            Reply::Range(reply) => reply.kvs,
            other => panic!("became {other:?}"),
        }
    }

    #[test]
    fn only_equal_keys_change_their_order() {
        assert_eq!(sorted(false, [kv("c", 1), kv("b", 2), kv("a", 2)]), [kv("c", 1), kv("a", 2), kv("b", 2)]);
        assert_ne!(sorted(false, [kv("a", 2), kv("b", 2), kv("c", 1)]), [kv("c", 1), kv("a", 2), kv("b", 2)]);
    }

    #[test]
    fn which_equal_keys_pass_a_limit_does_not_count() {
        let one = sorted(true, [kv("a", 1), kv("b", 2), kv("c", 2)]);
        assert_eq!(one, sorted(true, [kv("a", 1), kv("d", 2), kv("b", 2)]));
        assert_ne!(one, sorted(true, [kv("e", 1), kv("b", 2), kv("c", 2)]));
    }
}
