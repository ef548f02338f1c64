//! Contradictions among the revisions a server gave, found without a search.
//!
//! Every acknowledged write has a revision of its own and every read tells the revision
//! of the write it saw, so the server has already claimed an order. These rules say
//! whether real time agrees with it:
//!
//! - no two writes have one revision, and a later write has a higher one (over all keys:
//!   one log orders them);
//! - a value was written by somebody, who was not told that nothing was changed, and who
//!   began before the read ended; at one revision there is one value of one key;
//! - once a key was at a revision (an acknowledged write, or a read that saw it), no
//!   later read sees an older one, and none finds it gone without a delete that can
//!   explain it.

use std::collections::BTreeMap;

use crate::history::{Action, Op, Outcome, Revision, Seen, Time, ValueId};
use crate::report::Verdict;

type Finding = Result<(), Verdict>;

/// Judges the whole history by its revisions; replies without one are passed over.
pub fn check_revisions(history: &[Op]) -> Verdict {
    let rules = [one_write_a_revision, writes_follow_real_time, reads_match_writes, keys_never_go_back];
    match rules.iter().try_for_each(|rule| rule(history)) {
        Ok(()) => Verdict::Ok,
        Err(verdict) => verdict,
    }
}

/// Acknowledged writes with their revisions.
fn acknowledged(history: &[Op]) -> impl Iterator<Item = (Revision, &Op)> {
    history.iter().filter_map(|op| Some((op.written_at()?, op)))
}

/// Answered reads that found something.
fn reads(history: &[Op]) -> impl Iterator<Item = (Seen, &Op)> {
    history.iter().filter_map(|op| match op.settled() {
        Outcome::Read(Some(seen)) => Some((seen, op)),
        _ => None,
    })
}

fn one_write_a_revision(history: &[Op]) -> Finding {
    let mut writes: BTreeMap<Revision, &Op> = BTreeMap::new();
    for (revision, op) in acknowledged(history) {
        if let Some(other) = writes.insert(revision, op) {
            let why = format!("two writes were acknowledged at revision {revision}");
            return Err(Verdict::illegal(&op.key, why, vec![other, op]));
        }
    }
    Ok(())
}

fn writes_follow_real_time(history: &[Op]) -> Finding {
    let mut newest = Sweep::default();
    for (revision, op) in acknowledged(history) {
        newest.learn(op.ends(), revision, op);
    }
    newest.prepare();
    for (revision, op) in acknowledged(history) {
        if let Some((earlier, at)) = newest.before(op.invoked_at)
            && at > revision
        {
            let why = format!("a write at revision {revision} began after one at revision {at} was done");
            return Err(Verdict::illegal(&op.key, why, vec![earlier, op]));
        }
    }
    Ok(())
}

fn reads_match_writes(history: &[Op]) -> Finding {
    let mut by_value: BTreeMap<(&str, ValueId), Vec<&Op>> = BTreeMap::new();
    for op in history {
        if let Action::Put { value, .. } = op.action {
            by_value.entry((&op.key, value)).or_default().push(op);
        }
    }
    let mut by_revision: BTreeMap<Revision, &Op> = acknowledged(history).collect();
    for (seen, op) in reads(history) {
        let writers = by_value.get(&(op.key.as_str(), seen.value)).map_or(&[][..], Vec::as_slice);
        let possible = |w: &&&Op| {
            let told_no = matches!(w.settled(), Outcome::NotApplied | Outcome::PreconditionFailed);
            !told_no && w.invoked_at <= op.ends()
        };
        let mut possible = writers.iter().filter(possible);
        let Some(writer) = possible.next() else {
            let why = format!("nobody can have written the value {} when it was read", seen.value);
            return Err(Verdict::illegal(&op.key, why, [writers, &[op]].concat()));
        };
        let Some(revision) = seen.revision else { continue };
        // A value that only one put wrote has one revision; the first to tell it is believed.
        if possible.next().is_none()
            && let Some(known) = writer.written_at()
            && known != revision
        {
            let why = format!("value {} was written at revision {known}, read at {revision}", seen.value);
            return Err(Verdict::illegal(&op.key, why, vec![writer, op]));
        }
        let first = by_revision.entry(revision).or_insert(op);
        if !agrees(first, op, seen.value) {
            let why = format!("two different things happened at revision {revision}");
            return Err(Verdict::illegal(&op.key, why, vec![first, op]));
        }
    }
    applied_once(history)
}

/// Whether `told`, a write or a read, puts the same value at the revision as `read` does.
fn agrees(told: &Op, read: &Op, value: ValueId) -> bool {
    let told_value = match (told.action, told.settled()) {
        (Action::Put { value, .. }, _) => Some(value),
        (_, Outcome::Read(Some(seen))) => Some(seen.value),
        _ => None,
    };
    told.key == read.key && told_value == Some(value)
}

/// One put makes one revision, also when its client was never told which.
fn applied_once(history: &[Op]) -> Finding {
    let mut puts: BTreeMap<(&str, ValueId), usize> = BTreeMap::new();
    for op in history {
        if let Action::Put { value, .. } = op.action {
            *puts.entry((&op.key, value)).or_default() += 1;
        }
    }
    let mut first: BTreeMap<(&str, ValueId), (Revision, &Op)> = BTreeMap::new();
    for (seen, op) in reads(history) {
        let Some(revision) = seen.revision else { continue };
        let key = (op.key.as_str(), seen.value);
        if puts.get(&key) != Some(&1) {
            continue;
        }
        let (known, told_by) = *first.entry(key).or_insert((revision, op));
        if known != revision {
            let why = format!("one put took effect twice, at revisions {known} and {revision}");
            return Err(Verdict::illegal(&op.key, why, vec![told_by, op]));
        }
    }
    Ok(())
}

fn keys_never_go_back(history: &[Op]) -> Finding {
    let mut keys: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history {
        keys.entry(&op.key).or_default().push(op);
    }
    keys.into_values().try_for_each(|ops| key_never_goes_back(&ops))
}

fn key_never_goes_back(ops: &[&Op]) -> Finding {
    let mut newest = Sweep::default();
    for op in ops {
        let known = match op.settled() {
            Outcome::Read(Some(Seen { revision, .. })) | Outcome::Done { revision } => revision,
            _ => None,
        };
        if let Some(revision) = known {
            newest.learn(op.ends(), revision, op);
        }
    }
    newest.prepare();
    for op in ops {
        let Outcome::Read(seen) = op.settled() else { continue };
        let Some((earlier, floor)) = newest.before(op.invoked_at) else { continue };
        match seen {
            Some(Seen { revision: Some(at), .. }) if at < floor => {
                let why = format!("a read saw revision {at} after the key had reached revision {floor}");
                return Err(Verdict::illegal(&op.key, why, vec![earlier, op]));
            }
            None if !deletable(ops, op, floor) => {
                let why =
                    format!("the key was at revision {floor}, nobody deleted it, and a read found it gone");
                return Err(Verdict::illegal(&op.key, why, vec![earlier, op]));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether some delete can explain that `read` found nothing although the key had
/// reached `floor`.
fn deletable(ops: &[&Op], read: &Op, floor: Revision) -> bool {
    ops.iter().any(|op| {
        let began_in_time = op.invoked_at <= read.ends();
        let effect = match op.settled() {
            Outcome::Done { revision } => revision.is_none_or(|at| at >= floor),
            Outcome::Unknown => true,
            _ => false,
        };
        matches!(op.action, Action::Delete { .. }) && began_in_time && effect
    })
}

/// Answers "the highest revision known to anybody before this moment, and who knew it".
#[derive(Default)]
struct Sweep<'a> {
    /// In the order of time once prepared; each with the highest revision up to then.
    known: Vec<(Time, Revision, &'a Op)>,
}

impl<'a> Sweep<'a> {
    fn learn(&mut self, at: Time, revision: Revision, op: &'a Op) {
        self.known.push((at, revision, op));
    }

    fn prepare(&mut self) {
        self.known.sort_by_key(|(at, revision, _)| (*at, *revision));
        for i in 1..self.known.len() {
            if self.known[i - 1].1 > self.known[i].1 {
                self.known[i] = (self.known[i].0, self.known[i - 1].1, self.known[i - 1].2);
            }
        }
    }

    fn before(&self, moment: Time) -> Option<(&'a Op, Revision)> {
        let count = self.known.partition_point(|(at, ..)| *at < moment);
        let (_, revision, op) = self.known.get(count.checked_sub(1)?)?;
        Some((*op, *revision))
    }
}
