//! The search for an order of one key's operations that explains every reply.
//!
//! A configuration is the set of operations already placed and the state they left.
//! From it, every operation that began before the first unplaced one ended may come
//! next. Configurations met before are not entered again (Lowe 2017), which makes the
//! usual history linear; a step budget bounds the unusual one.
//!
//! Two choices keep the search small. A read that fits the present state is placed at
//! once, alone: it changes nothing, so placing it later can explain no more. An unknown
//! write comes after the answered ones among the choices, and may stay unplaced.

use std::collections::{BTreeMap, HashSet};

use crate::history::{Action, Op, Outcome, Revision, Time, ValueId};
use crate::model::{State, Step};
use crate::report::Verdict;

/// Steps a key's search may take, and a bound on its memory: a configuration is about
/// 100 bytes. A healthy history of 300 operations and ten clients takes a few thousand.
pub const DEFAULT_STEPS: u64 = 2_000_000;

/// A failing history is thinned out one operation at a time, each with a search of its
/// own; longer ones are shown whole.
const MAX_THINNED_OPS: usize = 400;
/// Steps for each of those searches: when that does not decide, the operation is shown.
const THINNING_STEPS: u64 = 5_000;

/// Searches every key's history. Of several bad keys the one with the fewest operations
/// is shown.
pub fn check_linearizable(history: &[Op], steps: u64) -> Verdict {
    let mut keys: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history {
        keys.entry(&op.key).or_default().push(op);
    }
    let mut worst: Option<(usize, &str, Vec<&Op>)> = None;
    let mut undecided = None;
    for (key, mut ops) in keys {
        ops.sort_by_key(|op| op.invoked_at);
        match decide(&ops, steps) {
            Found::Order => {}
            Found::OutOfSteps => undecided = undecided.or(Some(key)),
            Found::Nothing if worst.as_ref().is_none_or(|(len, ..)| ops.len() < *len) => {
                worst = Some((ops.len(), key, ops));
            }
            Found::Nothing => {}
        }
    }
    match (worst, undecided) {
        (Some((_, key, ops)), _) => explain(key, &ops, steps),
        (None, Some(key)) => Verdict::Unknown { key: key.to_owned(), steps },
        (None, None) => Verdict::Ok,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Order,
    Nothing,
    OutOfSteps,
}

/// One operation as the search sees it.
struct Candidate {
    begins: Time,
    ends: Time,
    /// An unknown write may stay unplaced; everything else was answered.
    required: bool,
    step: Step,
}

fn decide(ops: &[&Op], steps: u64) -> Found {
    let candidates = prepare(ops);
    Search::new(&candidates, steps).run()
}

/// Drops what cannot matter, and gives writes the revisions that reads know.
fn prepare(ops: &[&Op]) -> Vec<Candidate> {
    let revisions = revisions_of_values(ops);
    let only_puts_and_gets =
        ops.iter().all(|op| matches!(op.action, Action::Get | Action::Put { when: None, .. }));
    let read: HashSet<ValueId> = ops.iter().filter_map(|op| seen_value(op)).collect();
    let matters = |op: &&&Op| match (op.action, op.settled()) {
        (_, Outcome::NotApplied) | (Action::Get, Outcome::Unknown) => false,
        // Nobody read it and nobody's reply depends on it: with it or without is the same.
        (Action::Put { value, .. }, Outcome::Unknown) => !only_puts_and_gets || read.contains(&value),
        _ => true,
    };
    ops.iter()
        .filter(matters)
        .map(|op| Candidate {
            begins: op.invoked_at,
            ends: op.ends(),
            required: op.settled() != Outcome::Unknown,
            step: Step {
                action: op.action,
                outcome: op.settled(),
                revision: op.written_at().or_else(|| match op.action {
                    Action::Put { value, .. } => revisions.get(&value).copied(),
                    _ => None,
                }),
            },
        })
        .collect()
}

/// Which revision each value was read at, for values that only one put writes.
fn revisions_of_values(ops: &[&Op]) -> BTreeMap<ValueId, Revision> {
    let mut writers: BTreeMap<ValueId, usize> = BTreeMap::new();
    for op in ops {
        if let Action::Put { value, .. } = op.action {
            *writers.entry(value).or_default() += 1;
        }
    }
    let known = ops.iter().filter_map(|op| match op.settled() {
        Outcome::Read(Some(seen)) => Some((seen.value, seen.revision?)),
        _ => None,
    });
    known.filter(|(value, _)| writers.get(value) == Some(&1)).collect()
}

fn seen_value(op: &Op) -> Option<ValueId> {
    match op.settled() {
        Outcome::Read(seen) => seen.map(|seen| seen.value),
        _ => None,
    }
}

/// The operations placed so far, one bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Box<[u64]>);

impl Placed {
    fn has(&self, i: usize) -> bool {
        self.0[i / 64] & (1 << (i % 64)) != 0
    }

    fn flip(&mut self, i: usize) {
        self.0[i / 64] ^= 1 << (i % 64);
    }

    fn first_missing(&self) -> usize {
        let full = self.0.iter().take_while(|word| **word == u64::MAX).count();
        full * 64 + self.0.get(full).map_or(0, |word| word.trailing_ones() as usize)
    }
}

struct Frame {
    state: State,
    choices: Vec<usize>,
    tried: usize,
}

struct Search<'a> {
    ops: &'a [Candidate],
    placed: Placed,
    /// Answered operations not placed yet; none left means an order was found.
    required_left: usize,
    seen: HashSet<(Placed, State)>,
    steps_left: u64,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Candidate], steps: u64) -> Self {
        Self {
            ops,
            placed: Placed(vec![0; ops.len().div_ceil(64).max(1)].into()),
            required_left: ops.iter().filter(|op| op.required).count(),
            seen: HashSet::new(),
            steps_left: steps,
        }
    }

    fn run(mut self) -> Found {
        let mut frames = vec![self.frame(State::default())];
        let mut path = Vec::new();
        while self.required_left > 0 {
            let Some(frame) = frames.last_mut() else { return Found::Nothing };
            let Some(&choice) = frame.choices.get(frame.tried) else {
                frames.pop();
                if let Some(last) = path.pop() {
                    self.take_back(last);
                }
                continue;
            };
            frame.tried += 1;
            if self.steps_left == 0 {
                return Found::OutOfSteps;
            }
            self.steps_left -= 1;
            let Some(next) = frame.state.after(&self.ops[choice].step) else { continue };
            if self.place(choice, next) {
                path.push(choice);
                frames.push(self.frame(next));
            }
        }
        Found::Order
    }

    /// False when the configuration was met before.
    fn place(&mut self, i: usize, next: State) -> bool {
        self.placed.flip(i);
        if !self.seen.insert((self.placed.clone(), next)) {
            self.placed.flip(i);
            return false;
        }
        self.required_left -= usize::from(self.ops[i].required);
        true
    }

    fn take_back(&mut self, i: usize) {
        self.placed.flip(i);
        self.required_left += usize::from(self.ops[i].required);
    }

    fn frame(&self, state: State) -> Frame {
        let mut choices = Vec::new();
        let mut first_end = Time::MAX;
        for i in (self.placed.first_missing()..self.ops.len()).filter(|i| !self.placed.has(*i)) {
            let op = &self.ops[i];
            // Operations are in the order of their beginnings: the rest begins later still.
            if op.begins > first_end {
                break;
            }
            first_end = first_end.min(op.ends);
            choices.push(i);
        }
        let fits = |i: &usize| {
            let op = &self.ops[*i];
            op.step.action == Action::Get && state.after(&op.step) == Some(state)
        };
        if let Some(read) = choices.iter().copied().find(fits) {
            choices = vec![read];
        }
        self.keep_to_revisions(&mut choices);
        choices.sort_by_key(|i| (!self.ops[*i].required, self.ops[*i].ends));
        Frame { state, choices, tried: 0 }
    }
}

impl Search<'_> {
    /// Of the answered writes whose revisions are known, only the lowest can be next.
    fn keep_to_revisions(&self, choices: &mut Vec<usize>) {
        let known = |i: &usize| self.ops[*i].step.revision.filter(|_| self.ops[*i].required);
        let Some(lowest) = choices.iter().filter_map(known).min() else { return };
        choices.retain(|i| self.ops[*i].step.revision.is_none_or(|at| at <= lowest));
    }
}

/// Shows the shortest bad prefix: its last answer is the one that nothing explains.
fn explain(key: &str, ops: &[&Op], steps: u64) -> Verdict {
    let mut ends: Vec<Time> = ops.iter().filter_map(|op| op.completed_at).collect();
    ends.sort_unstable();
    // Every prefix of a linearizable history is linearizable, so bad prefixes are an
    // unbroken run up to the whole and halving finds the first.
    let first_bad = ends.partition_point(|at| is_fine(&cut(ops, *at), steps));
    let Some(&at) = ends.get(first_bad) else {
        return Verdict::illegal(key, "no order explains these replies".into(), ops.to_vec());
    };
    let mut prefix = cut(ops, at);
    thin_out(&mut prefix, at, steps.min(THINNING_STEPS));
    let why = match prefix.iter().find(|op| op.completed_at == Some(at)) {
        Some(last) => format!("no order explains the reply of client {}'s {}", last.client, describe(last)),
        None => "no order explains these replies".to_owned(),
    };
    Verdict::illegal(key, why, prefix.iter().collect())
}

fn is_fine(ops: &[Op], steps: u64) -> bool {
    decide(&ops.iter().collect::<Vec<_>>(), steps) != Found::Nothing
}

/// The history as it was at that moment: later calls had not begun, unanswered ones
/// were still unknown.
fn cut(ops: &[&Op], at: Time) -> Vec<Op> {
    let began = ops.iter().filter(|op| op.invoked_at <= at);
    began
        .map(|op| {
            let mut op = (*op).clone();
            op.completed_at = op.completed_at.filter(|end| *end <= at);
            op
        })
        .collect()
}

/// Leaves out what the contradiction does not need. Leaving out a read is always fair:
/// an order of all would be an order of the rest. Leaving out a write is fair only when
/// no reply depends on it, so only puts nobody read, in a history of plain puts and gets.
fn thin_out(ops: &mut Vec<Op>, culprit_ends: Time, steps: u64) {
    if ops.len() > MAX_THINNED_OPS {
        return;
    }
    let plain = ops.iter().all(|op| matches!(op.action, Action::Get | Action::Put { when: None, .. }));
    let mut i = 0;
    while i < ops.len() {
        let op = &ops[i];
        let unread = |value| ops.iter().all(|op| seen_value(op) != Some(value));
        let fair = match op.action {
            Action::Get => true,
            Action::Put { value, .. } => plain && unread(value),
            Action::Delete { .. } => false,
        };
        if !fair || op.completed_at == Some(culprit_ends) {
            i += 1;
            continue;
        }
        let left_out = ops.remove(i);
        if is_fine(ops, steps) {
            ops.insert(i, left_out);
            i += 1;
        }
    }
}

fn describe(op: &Op) -> String {
    match (op.action, op.settled()) {
        (Action::Get, Outcome::Read(Some(seen))) => format!("get, which returned {}", seen.value),
        (Action::Get, _) => "get, which found no such key".to_owned(),
        (Action::Put { value, .. }, _) => format!("put {value}"),
        (Action::Delete { .. }, _) => "delete".to_owned(),
    }
}
