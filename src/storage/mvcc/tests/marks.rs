//! Marks: replicas are compared at the same entry, whatever each of them does meanwhile.
//! Random histories with marks are in `properties`.

use super::*;
use crate::types::MemberId;

/// Reads a marked state through.
pub fn hash(marked: MarkedState) -> StateHash {
    let mut hasher = marked.hasher().expect("readable");
    loop {
        if let Some(hash) = hasher.step().expect("readable") {
            return hash;
        }
    }
}

/// The same history with a mark in the middle, on a replica that flushes `each` entry or
/// all at once.
async fn history(each: bool) -> (Bench, MarkedState) {
    let mut bench = Bench::new();
    let mut marks = bench.store.follow_marks();
    for n in 0..20 {
        bench.apply(vec![put(format!("key {}", n % 7), format!("value {n}")), delete("key 3", "")]);
        if n == 9 {
            let reply = bench.apply_one(mark(7));
            assert_eq!(reply, Reply::Marked { revision: bench.store.revision() });
        }
        if each {
            bench.flush_all().await;
        }
    }
    // Compaction after the mark takes rows away that belong to the state at the mark.
    bench.apply_one(compact(bench.store.revision()));
    bench.flush_all().await;
    compaction::sweep_to_the_end(&bench).await;
    let marked = marks.try_recv().expect("a marked state");
    assert!(marks.try_recv().is_err(), "there was one mark");
    (bench, marked)
}

#[tokio::test]
async fn replicas_hash_alike_at_a_mark_however_far_they_have_flushed_and_compacted() {
    let ((one, at_once), (other, bit_by_bit)) = (history(false).await, history(true).await);
    assert_eq!((at_once.at, at_once.proposer), (LogId { term: 1, index: 10 }, MemberId(7)));
    assert_eq!(bit_by_bit.at, at_once.at);
    let now = one.store.state_hash().expect("hashes");
    assert_eq!(other.store.state_hash().expect("hashes"), now);
    let then = hash(at_once);
    assert_eq!(hash(bit_by_bit), then);
    assert_ne!(then, now.1, "the state went on after the mark");
}

#[tokio::test]
async fn a_flipped_bit_in_the_table_is_noticed_at_the_next_mark() {
    let (mut sound, _) = history(false).await;
    let (mut damaged, _) = history(false).await;
    let mut at_next_mark = Vec::new();
    for (bench, damage) in [(&mut sound, false), (&mut damaged, true)] {
        let mut marks = bench.store.follow_marks();
        bench.apply(vec![put("a", "good")]);
        bench.flush_all().await;
        // From now on in memory, where damage to the table does not reach it.
        bench.store.get(b"a", None).expect("readable");
        if damage {
            bench.store.damage("a".into()).await.expect("damages");
            let read = bench.store.get(b"a", None).expect("readable").expect("there");
            assert_eq!(&read.value[..], b"gond", "it is served without a complaint");
        }
        bench.apply_one(mark(7));
        bench.flush_all().await;
        at_next_mark.push(hash(marks.try_recv().expect("a marked state")));
    }
    assert_ne!(at_next_mark[0], at_next_mark[1]);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_damaged() {
    let mut bench = Bench::new();
    bench.apply(vec![put("empty", "")]);
    bench.flush_all().await;
    for key in ["empty", "missing"] {
        let refused = bench.store.damage(key.into()).await.expect_err("nothing to flip");
        assert_eq!(refused.kind(), io::ErrorKind::NotFound, "{key}: {refused}");
    }
}

#[tokio::test]
async fn marks_wait_for_nobody() {
    let mut bench = Bench::new();
    let mut marks = bench.store.follow_marks();
    for _ in 0..5 {
        bench.apply(vec![put("a", "1")]);
        bench.apply_one(mark(7));
    }
    bench.flush_all().await;
    assert_eq!(bench.store.durable(), bench.store.applied());
    // The first one waits; those that found it waiting were left out.
    assert_eq!(marks.try_recv().expect("a marked state").at.index, 1);
    assert!(marks.try_recv().is_err());
    // Nor do they for a receiver that is gone.
    drop(marks);
    bench.apply_one(mark(7));
    bench.flush_all().await;
    assert_eq!(bench.store.durable(), bench.store.applied());
}

#[tokio::test]
async fn a_mark_takes_no_precondition() {
    let mut bench = Bench::new();
    let reply = bench.apply_one(when(Is::Exists(true), mark(7)));
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
}
