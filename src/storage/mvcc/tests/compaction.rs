//! Compaction: what it removes, and that it goes on after a restart.

use super::*;

/// Takes the steps of a sweep at once that the timer would spread out.
pub async fn sweep_to_the_end(bench: &Bench) {
    while bench.store.inner.shared.state.read().view.meta.needs_sweep() {
        bench.store.flush().await.expect("flushes");
    }
}

fn rows_in_table(store: &Store) -> usize {
    store.inner.shared.state.read().view.all_rows().expect("reads").count()
}

#[tokio::test]
async fn superseded_rows_and_tombstones_go_and_the_rest_stays() {
    let mut bench = Bench::new();
    bench.apply(vec![put("kept", "1"), put("kept", "2"), put("gone", "1"), delete("gone", "")]);
    let at = bench.store.revision();
    bench.apply(vec![put("kept", "3"), compact(at)]);
    bench.flush_all().await;
    sweep_to_the_end(&bench).await;
    // "kept" as it was at the compaction, and as it is now; and the deletion, which is
    // what happened at that revision.
    assert_eq!(rows_in_table(&bench.store), 3);
    let limit = PageLimit { rows: 1, bytes: usize::MAX };
    let page = bench.store.history(at - 1, limit).expect("the compacted revision is kept");
    assert_eq!(page.rows[0].change, Change::Delete { key: "gone".into(), revision: at });
    assert!(bench.store.history(at - 2, limit).is_err());
    assert_eq!(bench.store.get(b"gone", None), Ok(None));
    let kept = bench.store.get(b"kept", Some(at)).expect("readable").expect("there");
    assert_eq!((&kept.value[..], kept.version), (&b"2"[..], 2));
    // The next compaction takes that, too.
    bench.apply(vec![compact(at + 1)]);
    bench.flush_all().await;
    sweep_to_the_end(&bench).await;
    assert_eq!(rows_in_table(&bench.store), 1);
}

#[tokio::test]
async fn a_long_sweep_takes_many_steps_and_goes_on_after_a_crash() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        bench.apply((0..200).map(|n| put(format!("key {n}"), "value")).collect());
    }
    bench.apply(vec![compact(bench.store.revision())]);
    bench.flush_all().await;
    let hash = bench.store.state_hash().expect("hashes");
    let after_one_step = rows_in_table(&bench.store);
    assert!((201..10_000).contains(&after_one_step), "{after_one_step} rows after one step");

    let bench = bench.crash();
    assert_eq!(bench.store.state_hash().expect("hashes"), hash);
    // Here the timer does it: a sweep that was under way is taken up on open.
    eventually(|| rows_in_table(&bench.store) == 200).await;
    assert_eq!(bench.store.state_hash().expect("hashes"), hash);
}

#[tokio::test]
async fn the_future_and_the_past_are_refused() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1"), put("a", "2")]);
    let refused = |reply| matches!(reply, Reply::Refused { .. });
    assert!(refused(bench.apply_one(compact(4))));
    assert_eq!(bench.apply_one(compact(3)), Reply::Compacted { revision: 3 });
    assert!(refused(bench.apply_one(compact(3))));
    assert!(refused(bench.apply_one(compact(2))));
    assert!(refused(bench.apply_one(when(Is::Exists(true), compact(3)))));
    assert!(bench.store.get(b"a", Some(3)).is_ok(), "the compacted revision itself is readable");
    assert_eq!(bench.store.get(b"a", Some(2)), Err(ReadError::Compacted { oldest: 3 }));
}
