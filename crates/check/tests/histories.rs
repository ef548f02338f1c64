//! Histories written by hand: what must pass, and what must not, with the message a
//! person would get.

use bellwether_check::{
    Action, Condition, DEFAULT_STEPS, Op, Outcome, Recorder, Seen, Verdict, check, check_linearizable,
    check_revisions,
};

/// One call: when it began and ended, what it asked and what it was told.
fn op(began: u64, ended: u64, action: Action, outcome: Outcome) -> Op {
    Op {
        client: 1,
        key: "k".into(),
        action,
        outcome,
        invoked_at: began,
        completed_at: Some(ended),
        note: String::new(),
    }
}

fn put(began: u64, ended: u64, value: u64, revision: u64) -> Op {
    op(began, ended, Action::put(value), done(revision))
}

fn unknown_put(began: u64, ended: u64, value: u64) -> Op {
    op(began, ended, Action::put(value), Outcome::Unknown)
}

fn delete(began: u64, ended: u64, revision: u64) -> Op {
    op(began, ended, Action::delete(), done(revision))
}

fn get(began: u64, ended: u64, value: u64, revision: u64) -> Op {
    op(began, ended, Action::Get, Outcome::Read(Some(Seen { value, revision: Some(revision) })))
}

fn gone(began: u64, ended: u64) -> Op {
    op(began, ended, Action::Get, Outcome::Read(None))
}

fn done(revision: u64) -> Outcome {
    Outcome::Done { revision: Some(revision) }
}

fn put_if(began: u64, ended: u64, value: u64, when: Condition, outcome: Outcome) -> Op {
    op(began, ended, Action::Put { value, when: Some(when) }, outcome)
}

#[track_caller]
fn passes(history: &[Op]) {
    check_revisions(history).expect_ok();
    check_linearizable(history, DEFAULT_STEPS).expect_ok();
    check_linearizable(&blind(history), DEFAULT_STEPS).expect_ok();
}

/// Both checkers find it, and the search finds it also when no reply tells a revision.
#[track_caller]
fn fails(history: &[Op]) {
    assert!(check_revisions(history).is_illegal(), "the revisions were believed");
    fails_search(history);
}

#[track_caller]
fn fails_search(history: &[Op]) {
    assert!(check_linearizable(history, DEFAULT_STEPS).is_illegal(), "the search found an order");
    assert!(check_linearizable(&blind(history), DEFAULT_STEPS).is_illegal(), "found an order, blind");
}

/// The same history with all revisions left out of the replies.
fn blind(history: &[Op]) -> Vec<Op> {
    let strip = |op: &Op| {
        let outcome = match op.outcome {
            Outcome::Done { .. } => Outcome::Done { revision: None },
            Outcome::Read(Some(seen)) => Outcome::Read(Some(Seen { revision: None, ..seen })),
            other => other,
        };
        Op { outcome, ..op.clone() }
    };
    history.iter().map(strip).collect()
}

#[test]
fn one_after_another() {
    passes(&[gone(1, 2), put(3, 4, 10, 2), get(5, 6, 10, 2), delete(7, 8, 3), gone(9, 10)]);
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    passes(&[put(1, 2, 10, 2), put(3, 8, 11, 3), get(4, 5, 10, 2), get(6, 7, 11, 3)]);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never() {
    passes(&[put(1, 2, 10, 2), unknown_put(3, 4, 11), get(5, 6, 10, 2), get(7, 8, 11, 3)]);
    passes(&[put(1, 2, 10, 2), unknown_put(3, 4, 11), get(5, 6, 10, 2), get(7, 8, 10, 2)]);
}

#[test]
fn an_unknown_delete_explains_an_absence_once() {
    let lost = op(3, 4, Action::delete(), Outcome::Unknown);
    passes(&[put(1, 2, 10, 2), lost.clone(), gone(5, 6), put(7, 8, 11, 4), get(9, 10, 11, 4)]);
    fails_search(&[put(1, 2, 10, 2), lost, gone(5, 6), put(7, 8, 11, 4), gone(9, 10)]);
}

#[test]
fn a_call_that_never_ended_is_unknown() {
    let mut open = put(3, 4, 11, 3);
    open.completed_at = None;
    passes(&[put(1, 2, 10, 2), open, get(5, 6, 10, 2)]);
}

#[test]
fn keys_are_independent() {
    let other = Op { key: "other".into(), ..put(3, 4, 11, 3) };
    passes(&[put(1, 2, 10, 2), other, get(5, 6, 10, 2)]);
}

#[test]
fn conditions_that_hold_and_fail() {
    passes(&[
        put_if(1, 2, 10, Condition::Absent, done(2)),
        put_if(3, 4, 11, Condition::Absent, Outcome::PreconditionFailed),
        get(5, 6, 10, 2),
        op(7, 8, Action::Delete { when: Some(Condition::Exists) }, done(3)),
        op(9, 10, Action::delete(), Outcome::NotFound),
    ]);
    let matched = [
        put(1, 2, 10, 2),
        put_if(3, 4, 11, Condition::Revision(2), done(3)),
        put_if(5, 6, 12, Condition::Revision(2), Outcome::PreconditionFailed),
        get(7, 8, 11, 3),
    ];
    check(&matched, DEFAULT_STEPS).expect_ok();
}

#[test]
fn a_condition_that_cannot_have_held() {
    let twice = [
        put(1, 2, 10, 2),
        put_if(3, 6, 11, Condition::Revision(2), done(3)),
        put_if(4, 5, 12, Condition::Revision(2), done(4)),
    ];
    assert!(check_linearizable(&twice, DEFAULT_STEPS).is_illegal());
    fails_search(&[put(1, 2, 10, 2), put_if(3, 4, 11, Condition::Absent, done(3))]);
    fails_search(&[put_if(3, 4, 11, Condition::Absent, Outcome::PreconditionFailed)]);
}

#[test]
fn a_stale_read() {
    fails(&[put(1, 2, 10, 2), put(3, 4, 11, 3), get(5, 6, 10, 2)]);
}

#[test]
fn a_lost_acknowledged_write() {
    fails(&[put(1, 2, 10, 2), gone(3, 4)]);
    fails(&[put(1, 2, 10, 2), put(3, 4, 11, 3), put(5, 6, 12, 4), get(7, 8, 11, 3)]);
}

#[test]
fn a_write_said_to_be_refused_is_seen() {
    let refused = op(3, 4, Action::put(11), Outcome::NotApplied);
    fails(&[put(1, 2, 10, 2), refused, get(5, 6, 11, 3)]);
    let failed = put_if(3, 4, 11, Condition::Absent, Outcome::PreconditionFailed);
    fails(&[put(1, 2, 10, 2), failed, get(5, 6, 11, 3)]);
}

#[test]
fn a_value_from_nowhere_or_from_the_future() {
    fails(&[put(1, 2, 10, 2), get(3, 4, 99, 3)]);
    fails(&[get(1, 2, 10, 2), put(3, 4, 10, 2)]);
}

#[test]
fn reads_go_back() {
    fails(&[put(1, 2, 10, 2), unknown_put(3, 4, 11), get(5, 6, 11, 3), get(7, 8, 10, 2)]);
}

#[test]
fn a_deleted_key_comes_back() {
    fails(&[put(1, 2, 10, 2), delete(3, 4, 3), get(5, 6, 10, 2)]);
}

#[test]
fn two_writes_at_one_revision() {
    assert!(check_revisions(&[put(1, 4, 10, 2), put(2, 3, 11, 2)]).is_illegal());
}

#[test]
fn revisions_against_real_time() {
    let crossed = [put(1, 2, 10, 3), put(3, 4, 11, 2)];
    assert!(check_revisions(&crossed).is_illegal());
    assert!(check_linearizable(&crossed, DEFAULT_STEPS).is_illegal());
    // One log orders all keys, so this holds across them, which no search of keys sees.
    let across = [put(1, 2, 10, 3), Op { key: "other".into(), ..put(3, 4, 11, 2) }];
    assert!(check_revisions(&across).is_illegal());
    check_linearizable(&across, DEFAULT_STEPS).expect_ok();
}

#[test]
fn one_write_takes_effect_twice() {
    fails(&[unknown_put(1, 2, 10), get(3, 4, 10, 2), put(5, 6, 11, 3), get(7, 8, 10, 4)]);
}

#[test]
fn one_revision_has_two_values() {
    let history = [put(1, 2, 10, 2), unknown_put(3, 4, 11), get(5, 6, 11, 2)];
    assert!(check_revisions(&history).is_illegal());
}

#[test]
fn the_report_shows_the_shortest_bad_prefix() {
    let mut history = vec![put(1, 2, 10, 2), put(3, 4, 11, 3)];
    history.extend((0..50).map(|i| get(5 + 2 * i, 6 + 2 * i, 11, 3)));
    history.push(get(200, 201, 10, 2));
    history.push(put(202, 203, 12, 4));
    let Verdict::Illegal(bad) = check_linearizable(&history, DEFAULT_STEPS) else { panic!("passed") };
    assert_eq!(bad.history.len(), 3, "{bad:#?}");
    let printed = Verdict::Illegal(bad).to_string();
    assert!(printed.contains("client 1's get, which returned 10"), "{printed}");
    assert!(printed.contains("put 11 -> done, revision 3"), "{printed}");
}

/// Out of steps is a verdict of its own, and not a pass.
#[test]
fn a_budget_that_runs_out_is_no_pass() {
    let history: Vec<_> =
        (1..40).map(|i| op(i, 100, Action::put(i), Outcome::Done { revision: None })).collect();
    let verdict = check_linearizable(&history, 5);
    assert!(matches!(verdict, Verdict::Unknown { steps: 5, .. }) && !verdict.is_ok());
    check_linearizable(&history, DEFAULT_STEPS).expect_ok();
}

/// Ten clients that overlap all the time, a tenth of their writes unknown: the search
/// stays far below its budget.
#[test]
fn a_long_history_is_quick() {
    let mut history = Vec::new();
    for round in 0..200 {
        let (from, value) = (round * 100, round * 10);
        history.extend((0..5).map(|c| match (round + c) % 10 {
            0 => unknown_put(from + c, from + 90, value + c),
            _ => op(from + c, from + 90, Action::put(value + c), Outcome::Done { revision: None }),
        }));
        let last = if (round + 4) % 10 == 0 { 3 } else { 4 };
        let seen = Seen { value: value + last, revision: None };
        history.push(op(from + 95, from + 96, Action::Get, Outcome::Read(Some(seen))));
    }
    check(&history, DEFAULT_STEPS / 10).expect_ok();
}

#[test]
fn the_recorder_numbers_moments() {
    let recorder = Recorder::new();
    let write = recorder.begin(1, "k", Action::put(10));
    let open = recorder.begin(2, "k", Action::put(11));
    recorder.end(write, done(2), "node-1");
    let read = recorder.begin(3, "k", Action::Get);
    recorder.end(read, Outcome::Read(Some(Seen { value: 10, revision: Some(2) })), "");
    let history = recorder.history();
    assert_eq!((history[0].invoked_at, history[0].completed_at), (1, Some(3)));
    assert_eq!(history[1].completed_at, None, "{open:?} is still under way");
    check(&history, DEFAULT_STEPS).expect_ok();
}
