//! What a transaction replaced, and reads whose order and limit meet.

use super::*;

fn txn(changes: Vec<Op>) -> Command {
    let op = |change| match change {
        Op::Put(put) => txn_op::Op::Put(put),
        Op::Delete(delete) => txn_op::Op::Delete(delete),
        other => unreachable!("{other:?} is no change"),
    };
    let success = changes.into_iter().map(|change| TxnOp { op: Some(op(change)) }).collect();
    Command { op: Some(Op::Txn(pb::Txn { success, ..pb::Txn::default() })), precondition: None }
}

fn op(command: Command) -> Op {
    command.op.expect("an operation")
}

/// What each change from `after` on replaced.
fn replaced(store: &Store, after: Revision) -> Vec<Option<Bytes>> {
    let page = store.history(after, PageLimit { rows: 100, bytes: usize::MAX }).expect("readable");
    let rows: Vec<_> = page.rows.iter().collect();
    let replaced = store.replaced(&rows).expect("readable");
    replaced.into_iter().map(|kv| kv.map(|kv| kv.value)).collect()
}

#[tokio::test]
async fn a_transaction_replaces_what_was_there_before_all_of_it() {
    let mut bench = Bench::new();
    let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    bench.apply_one(put("old", "1"));
    let changes = [put("old", "2"), put("new", "3"), delete("new", ""), delete("old", "")];
    bench.apply_one(txn(changes.map(op).into()));
    let expected = [None, value("1"), None, None, value("1")];
    assert_eq!(replaced(&bench.store, 1), expected, "in memory");
    bench.flush_all().await;
    assert_eq!(replaced(&bench.store, 1), expected, "in the table");
}

/// etcd fetches one more than the limit to see whether there is more, and sorts that, too.
#[tokio::test]
async fn a_sort_after_the_limit_sees_one_more() {
    let mut bench = Bench::new();
    for (key, value) in [("a", "4"), ("b", "3"), ("c", "2"), ("d", "1")] {
        bench.apply_one(put(key, value));
    }
    let sort = Some(Sort { by: SortBy::Value, descending: false, after_limit: true });
    for (limit, keys) in [(1, "b"), (2, "cb"), (3, "dcb"), (4, "dcba"), (0, "dcba")] {
        let found = bench.store.range(&RangeQuery { limit, sort, ..everything(None) }).expect("readable");
        let found_keys: Vec<u8> = found.kvs.iter().flat_map(|kv| kv.key.to_vec()).collect();
        assert_eq!(found_keys, keys.as_bytes(), "limit {limit}");
        assert_eq!((found.count, found.more), (4, (1..4).contains(&limit)), "limit {limit}");
    }
}
