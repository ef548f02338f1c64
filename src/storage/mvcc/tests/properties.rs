//! Random histories, checked against the model.

use std::collections::BTreeMap;

use super::model::Model;
use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Entry(Vec<Command>),
    Membership(Vec<u8>),
    Blank,
    /// An entry after which replicas are to be compared.
    Mark,
    /// Flush what is durable: all but this many of the entries applied.
    Flush(u64),
    /// Make a checkpoint of the index, for restarts.
    Checkpoint,
    /// Restart without losing anything but the tail, which the log then brings back.
    Crash,
    /// Go on with a second store that was filled by a snapshot.
    Snapshot,
}

fn key() -> impl Strategy<Value = Bytes> {
    "[a-f]{1,2}".prop_map(Bytes::from)
}

fn precondition() -> impl Strategy<Value = Option<Precondition>> {
    let is = prop_oneof![(0u64..40).prop_map(Is::ModRevision), any::<bool>().prop_map(Is::Exists)];
    proptest::option::weighted(0.2, is.prop_map(|is| Precondition { is: Some(is) }))
}

fn command() -> impl Strategy<Value = Command> {
    let on_key = prop_oneof![
        4 => put_op().prop_map(Op::Put),
        2 => (key(), any::<bool>()).prop_map(|(key, prev_kv)| {
            Op::Delete(Delete { key, range_end: Bytes::new(), prev_kv })
        }),
    ];
    let range_end = prop_oneof![3 => key(), 1 => Just(Bytes::from_static(&[0]))];
    prop_oneof![
        8 => (on_key, precondition()).prop_map(|(op, precondition)| Command { op: Some(op), precondition }),
        1 => (key(), range_end).prop_map(|(key, range_end)| delete(key, range_end)),
        1 => (0u64..60).prop_map(compact),
        2 => txn().prop_map(|txn| Command { op: Some(Op::Txn(txn)), precondition: None }),
        3 => lease_op().prop_map(|op| Command { op: Some(op), precondition: None }),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    1i64..4
}

fn put_op() -> impl Strategy<Value = Put> {
    (key(), any::<[u8; 2]>(), prop_oneof![2 => Just(0), 1 => lease()], any::<bool>()).prop_map(
        |(key, value, lease, prev_kv)| Put {
            key,
            value: Bytes::copy_from_slice(&value),
            lease,
            prev_kv,
            ..Put::default()
        },
    )
}

fn lease_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (lease(), 1i64..9).prop_map(|(id, ttl_s)| Op::LeaseGrant(LeaseGrant { id, ttl_s })),
        1 => lease().prop_map(|id| Op::LeaseRenew(LeaseRenew { id })),
        1 => lease().prop_map(|id| Op::LeaseRevoke(LeaseRevoke { id })),
        1 => (0u64..40_000).prop_map(|until_ms| Op::LeaseExpire(LeaseExpire { ids: vec![1, 2, 3], until_ms })),
        1 => Just(Op::LeaseTick(LeaseTick {})),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let compare = (key(), 0i64..3).prop_map(|(key, version)| Compare {
        key,
        with: Some(With::Version(version)),
        ..Compare::default()
    });
    (compare, branch(), branch()).prop_map(|(compare, success, failure)| Txn {
        compares: vec![compare],
        success,
        failure,
    })
}

/// Puts each key at most once, as the API sees to; it may be deleted before or after.
fn branch() -> impl Strategy<Value = Vec<TxnOp>> {
    let changes = proptest::collection::vec((put_op(), any::<bool>()), 0..4);
    (changes, any::<bool>()).prop_map(|(changes, reads)| {
        let mut seen = std::collections::BTreeSet::new();
        let changes = changes.into_iter().filter(|(put, deletes)| *deletes || seen.insert(put.key.clone()));
        let changes = changes.map(|(put, deletes)| match deletes {
            true => txn_op::Op::Delete(Delete {
                key: put.key.clone(),
                range_end: Bytes::new(),
                prev_kv: put.prev_kv,
            }),
            false => txn_op::Op::Put(put),
        });
        let from_the_first = Bytes::from_static(&[0]);
        let read = pb::Range { key: from_the_first.clone(), range_end: from_the_first, ..Default::default() };
        let read = reads.then_some(txn_op::Op::Range(read));
        changes.chain(read).map(|op| TxnOp { op: Some(op) }).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(command(), 1..5).prop_map(Step::Entry),
        1 => any::<[u8; 3]>().prop_map(|bytes| Step::Membership(bytes.to_vec())),
        1 => Just(Step::Blank),
        2 => Just(Step::Mark),
        3 => (0u64..4).prop_map(Step::Flush),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
        1 => Just(Step::Snapshot),
    ]
}

/// The store under test, a twin that is never flushed, and the model.
struct World {
    bench: Bench,
    twin: Bench,
    model: Model,
    log: Vec<Step>,
    marks: mpsc::Receiver<MarkedState>,
    /// What the twin held right after each mark.
    marked: BTreeMap<LogId, StateHash>,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        let marks = bench.store.follow_marks();
        let (twin, model, log, marked) = (Bench::new(), Model::default(), Vec::new(), BTreeMap::new());
        Self { bench, twin, model, log, marks, marked }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Entry(commands) => {
                self.model.lease_clock_ms = lease_clock_ms(self.bench.next);
                let expected: Vec<_> = commands.iter().map(|command| self.model.apply(command)).collect();
                let replies = self.bench.apply(commands.clone());
                assert_eq!(replies, expected);
                self.twin.apply(commands.clone());
                self.log.push(step.clone());
            }
            Step::Membership(_) | Step::Blank => {
                replay(&mut self.bench, step);
                replay(&mut self.twin, step);
                self.log.push(step.clone());
            }
            Step::Mark => {
                replay(&mut self.bench, step);
                replay(&mut self.twin, step);
                let (at, hash) = self.twin.store.state_hash().expect("hashes");
                self.marked.insert(at.expect("an entry was applied"), hash);
                self.log.push(step.clone());
            }
            Step::Flush(behind) => {
                if let Some(upto) = self.bench.next.checked_sub(1 + behind) {
                    let before = self.bench.store.durable().last.map(|last| last.index);
                    self.bench.store.log_is_durable_upto(upto);
                    self.bench.store.flush().await.expect("flushes");
                    assert_eq!(
                        self.bench.store.durable().last.map(|last| last.index),
                        before.max(Some(upto))
                    );
                }
            }
            Step::Checkpoint => self.bench.store.checkpoint().await.expect("a checkpoint"),
            Step::Crash => self.crash().await,
            Step::Snapshot => self.move_to_snapshot().await,
        }
    }

    /// The log replays what the table lacks.
    async fn crash(&mut self) {
        let bench = std::mem::replace(&mut self.bench, Bench::new());
        let durable = bench.store.durable();
        self.bench = bench.crash();
        self.marks = self.bench.store.follow_marks();
        assert_eq!(self.bench.store.applied(), durable);
        checkpoints::same_as_all_rows(&self.bench.store);
        for step in &self.log[self.bench.next as usize..] {
            replay(&mut self.bench, step);
        }
    }

    async fn move_to_snapshot(&mut self) {
        let mut other = Bench::new();
        other.apply(vec![put("left over", "from before")]);
        self.bench.flush_all().await;
        snapshots::copy(&self.bench.store, &other.store).await;
        other.next = self.bench.next;
        self.bench = other;
        self.marks = self.bench.store.follow_marks();
    }

    fn check(&mut self) {
        while let Ok(marked) = self.marks.try_recv() {
            let at = marked.at;
            assert_eq!(marks::hash(marked), self.marked[&at], "at the mark {at}");
        }
        self.model.check(&self.bench.store);
        assert_eq!(self.bench.store.applied(), self.twin.store.applied());
        let hashes = [&self.bench, &self.twin].map(|bench| bench.store.state_hash().expect("hashes"));
        assert_eq!(hashes[0], hashes[1]);
    }
}

fn replay(bench: &mut Bench, step: &Step) {
    match step {
        Step::Entry(commands) => drop(bench.apply(commands.clone())),
        Step::Membership(bytes) => {
            let at = bench.next_id();
            bench.store.apply_membership(at, bytes.clone().into()).expect("applies");
        }
        Step::Blank => {
            let at = bench.next_id();
            bench.store.apply_blank(at).expect("applies");
        }
        Step::Mark => drop(bench.apply_one(mark(7))),
        Step::Flush(_) | Step::Checkpoint | Step::Crash | Step::Snapshot => unreachable!("not in the log"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new();
            for step in &steps {
                world.step(step).await;
                world.check();
            }
            // Removing what is compacted, to the end, shows nowhere.
            world.bench.flush_all().await;
            compaction::sweep_to_the_end(&world.bench).await;
            world.check();
            // A restart from the table alone.
            world.bench = world.bench.crash();
            world.check();
        });
    }
}

#[tokio::test]
async fn a_missing_row_is_noticed_by_the_hash() {
    // The twin of the equality above: stores that differ in one row do not hash alike.
    let (mut one, mut other) = (Bench::new(), Bench::new());
    one.apply(vec![put("a", "1"), put("b", "2")]);
    other.apply(vec![put("a", "1"), put("b", "3")]);
    assert_ne!(one.store.state_hash().expect("hashes"), other.store.state_hash().expect("hashes"));
}
