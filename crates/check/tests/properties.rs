//! The search against two references: histories made from a real sequential execution,
//! and every order of a handful of operations tried one by one.

use bellwether_check::{
    Action, Condition, DEFAULT_STEPS, Op, Outcome, Seen, check, check_linearizable, check_revisions,
};
use proptest::prelude::*;

/// What a client asks for, before it is known how it will end.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Get,
    Put,
    PutIfAbsent,
    PutIfCurrent,
    PutIfStale,
    Delete,
}

/// How far a call reaches before and after the moment it takes effect, and whether its
/// answer is lost on the way back.
type Reach = (u64, u64, bool);

fn asks() -> impl Strategy<Value = Vec<(Ask, Reach)>> {
    let ask = prop_oneof![
        4 => Just(Ask::Get),
        3 => Just(Ask::Put),
        1 => Just(Ask::PutIfAbsent),
        1 => Just(Ask::PutIfCurrent),
        1 => Just(Ask::PutIfStale),
        1 => Just(Ask::Delete),
    ];
    let reach = (0u64..100, 0u64..100, prop::bool::weighted(0.1));
    prop::collection::vec((ask, reach), 1..80)
}

/// Runs the calls one after another on a register, 20 time units apart, then stretches
/// each around its moment: a linearizable history by construction.
fn execute(asks: &[(Ask, Reach)]) -> Vec<Op> {
    let mut held: Option<(u64, u64)> = None;
    let mut revision = 1;
    let mut history = Vec::new();
    for (i, (ask, (before, after, lost))) in asks.iter().enumerate() {
        let value = i as u64 + 1000;
        let (action, holds) = match (ask, held) {
            (Ask::Get, _) => (Action::Get, true),
            (Ask::Put, _) => (Action::put(value), true),
            (Ask::PutIfAbsent, _) => (put_if(value, Condition::Absent), held.is_none()),
            (Ask::PutIfCurrent, Some((_, at))) => (put_if(value, Condition::Revision(at)), true),
            (Ask::PutIfCurrent, None) => (put_if(value, Condition::Exists), false),
            (Ask::PutIfStale, _) => (put_if(value, Condition::Revision(1)), false),
            (Ask::Delete, _) => (Action::delete(), true),
        };
        let outcome = match action {
            _ if !holds => Outcome::PreconditionFailed,
            Action::Get => Outcome::Read(held.map(|(value, at)| Seen { value, revision: Some(at) })),
            Action::Delete { .. } if held.is_none() => Outcome::NotFound,
            _ => {
                revision += 1;
                held = action_value(action).map(|value| (value, revision));
                Outcome::Done { revision: Some(revision) }
            }
        };
        let moment = 1000 + 20 * i as u64;
        history.push(Op {
            client: i as u32 % 10,
            key: "k".into(),
            action,
            outcome: if *lost { Outcome::Unknown } else { outcome },
            invoked_at: moment - before,
            completed_at: Some(moment + after),
            note: String::new(),
        });
    }
    history
}

fn put_if(value: u64, when: Condition) -> Action {
    Action::Put { value, when: Some(when) }
}

fn action_value(action: Action) -> Option<u64> {
    match action {
        Action::Put { value, .. } => Some(value),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_execution_passes_however_its_calls_overlap(asks in asks()) {
        let history = execute(&asks);
        let verdict = check(&history, DEFAULT_STEPS);
        prop_assert!(verdict.is_ok(), "{verdict}");
    }

    #[test]
    fn an_impossible_value_fails(asks in asks(), pick in any::<prop::sample::Index>()) {
        let mut history = execute(&asks);
        let reads: Vec<_> = (0..history.len())
            .filter(|i| matches!(history[*i].outcome, Outcome::Read(_)))
            .collect();
        prop_assume!(!reads.is_empty());
        let read = &mut history[reads[pick.index(reads.len())]];
        read.outcome = Outcome::Read(Some(Seen { value: 7, revision: None }));
        prop_assert!(check_revisions(&history).is_illegal());
        prop_assert!(check_linearizable(&history, DEFAULT_STEPS).is_illegal());
    }

    /// Values of a read are moved to another read's: whatever the brute force says of it,
    /// the search says too. Few values and wide overlaps make both answers common.
    #[test]
    fn the_search_agrees_with_every_order_tried(history in small_histories()) {
        let possible = some_order(&history, &mut vec![], None);
        let verdict = check_linearizable(&history, DEFAULT_STEPS);
        prop_assert_eq!(possible, verdict.is_ok(), "{}", verdict);
        prop_assert_eq!(!possible, verdict.is_illegal());
    }
}

/// Up to six calls with arbitrary answers over three values that may be written twice.
fn small_histories() -> impl Strategy<Value = Vec<Op>> {
    let value = 1u64..4;
    let when = prop::option::weighted(0.3, prop_oneof![Just(Condition::Absent), Just(Condition::Exists)]);
    let done = Just(Outcome::Done { revision: None });
    let writes = prop_oneof![
        5 => done,
        1 => Just(Outcome::PreconditionFailed),
        1 => Just(Outcome::NotApplied),
        2 => Just(Outcome::Unknown),
    ];
    let put = (value.clone(), when.clone(), writes.clone())
        .prop_map(|(value, when, outcome)| (Action::Put { value, when }, outcome));
    let delete = (when, prop_oneof![3 => writes, 1 => Just(Outcome::NotFound)])
        .prop_map(|(when, outcome)| (Action::Delete { when }, outcome));
    let get = prop::option::weighted(0.8, value)
        .prop_map(|v| (Action::Get, Outcome::Read(v.map(|value| Seen { value, revision: None }))));
    let call = (prop_oneof![4 => put, 2 => delete, 4 => get], 0u64..30, 1u64..30);
    prop::collection::vec(call, 1..7).prop_map(|calls| {
        let to_op = |((action, outcome), began, lasts)| Op {
            client: 0,
            key: "k".into(),
            action,
            outcome,
            invoked_at: began,
            completed_at: Some(began + lasts),
            note: String::new(),
        };
        calls.into_iter().map(to_op).collect()
    })
}

/// Tries every order that real time allows, with an own, plain idea of the register.
fn some_order(ops: &[Op], placed: &mut Vec<usize>, held: Option<u64>) -> bool {
    let left: Vec<usize> = (0..ops.len()).filter(|i| !placed.contains(i)).collect();
    let may_be_skipped = |i: &usize| matches!(ops[*i].outcome, Outcome::Unknown | Outcome::NotApplied);
    if left.iter().all(may_be_skipped) {
        return true;
    }
    left.iter().any(|&i| {
        let ended_before =
            |j: &usize| !may_be_skipped(j) && ops[*j].completed_at.expect("set") < ops[i].invoked_at;
        if left.iter().any(ended_before) {
            return false;
        }
        let Some(next) = apply(&ops[i], held) else { return false };
        placed.push(i);
        let found = some_order(ops, placed, next);
        placed.pop();
        found
    })
}

/// The register after the call, `None` when its answer is impossible here.
fn apply(op: &Op, held: Option<u64>) -> Option<Option<u64>> {
    let (Action::Put { when, .. } | Action::Delete { when }) = op.action else {
        let Outcome::Read(seen) = op.outcome else { return None };
        return (seen.map(|s| s.value) == held).then_some(held);
    };
    let holds = match when {
        None => true,
        Some(Condition::Absent) => held.is_none(),
        Some(_) => held.is_some(),
    };
    let is_delete = action_value(op.action).is_none();
    match op.outcome {
        Outcome::PreconditionFailed => (when.is_some() && !holds).then_some(held),
        Outcome::NotFound => (is_delete && held.is_none()).then_some(held),
        Outcome::Done { .. } | Outcome::Unknown if !holds || (is_delete && held.is_none()) => None,
        Outcome::Done { .. } | Outcome::Unknown => Some(action_value(op.action)),
        _ => None,
    }
}
