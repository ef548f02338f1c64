//! Transactions: judged as a whole, then carried out as a whole.
//!
//! A [`Plan`] is a transaction with its branches chosen. All comparisons, of nested
//! transactions as well, are judged on the state before it (as etcd does); then whatever
//! could refuse one of its operations; only then anything changes, at one revision.

use std::cmp::Ordering;
use std::io;

use super::apply::Making;
use super::select::Selection;
use super::state::{Shared, State};
use super::table::View;
use super::types::{KeyRange, RangeQuery, ReadError, Refusal, Reply, RevisionBounds, Sort, SortBy};
use crate::proto::log::compare::With;
use crate::proto::log::txn_op::Op;
use crate::proto::log::{self as pb, Compare, Comparison, Delete, Put, Txn};
use crate::types::Revision;

/// A transaction with its branches chosen.
pub(super) struct Plan<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(RangeQuery),
    Put(&'a Put),
    Delete(&'a Delete),
    Txn(Plan<'a>),
}

impl State {
    /// Chooses the branches; a refusal when an operation is of no kind that is known.
    pub fn plan<'a>(&self, txn: &'a Txn) -> io::Result<Result<Plan<'a>, Refusal>> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && self.holds(compare)?;
        }
        let mut steps = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            steps.push(match &op.op {
                Some(Op::Range(range)) => Step::Range(RangeQuery::from(range)),
                Some(Op::Put(put)) => Step::Put(put),
                Some(Op::Delete(delete)) => Step::Delete(delete),
                Some(Op::Txn(nested)) => match self.plan(nested)? {
                    Ok(plan) => Step::Txn(plan),
                    Err(refusal) => return Ok(Err(refusal)),
                },
                None => return Ok(Err(Refusal::Senseless("an operation says not what to do".into()))),
            });
        }
        Ok(Ok(Plan { succeeded, steps }))
    }

    fn holds(&self, compare: &Compare) -> io::Result<bool> {
        let range = KeyRange::of_request(&compare.key, &compare.range_end);
        let mut exists = false;
        for key in self.index.live_keys(&range) {
            exists = true;
            if !self.compares(compare, key)? {
                return Ok(false);
            }
        }
        let as_absent = match &compare.with {
            Some(With::Value(_)) => false,
            Some(
                With::Version(number)
                | With::CreateRevision(number)
                | With::ModRevision(number)
                | With::Lease(number),
            ) => compare.comparison().admits(0.cmp(number)),
            None => compare.comparison().admits(Ordering::Equal),
        };
        Ok(exists || as_absent)
    }

    /// Whether a key that exists compares as asked.
    fn compares(&self, compare: &Compare, key: &[u8]) -> io::Result<bool> {
        let Some(latest) = self.index.latest(key) else { return Ok(false) };
        let number = |number: u64| number.cast_signed();
        let ordering = match &compare.with {
            Some(With::Version(with)) => number(latest.version).cmp(with),
            Some(With::CreateRevision(with)) => number(latest.create_revision).cmp(with),
            Some(With::ModRevision(with)) => number(latest.id.revision).cmp(with),
            Some(With::Lease(with)) => self.leases.of_key(key).cmp(with),
            Some(With::Value(with)) => self.key_value(latest.id)?.value.cmp(with),
            None => number(latest.version).cmp(&0),
        };
        Ok(compare.comparison().admits(ordering))
    }

    /// Why the plan cannot be carried out, if it cannot: puts are asked first.
    pub fn refusal(&self, plan: &Plan<'_>) -> Option<Refusal> {
        self.refusal_of_puts(plan).or_else(|| self.refusal_of_reads(plan))
    }

    fn refusal_of_puts(&self, plan: &Plan<'_>) -> Option<Refusal> {
        plan.steps.iter().find_map(|step| match step {
            Step::Put(put) => self.lacks_kept_key(put).or_else(|| self.lacks_lease(put)),
            Step::Txn(nested) => self.refusal_of_puts(nested),
            Step::Range(_) | Step::Delete(_) => None,
        })
    }

    fn refusal_of_reads(&self, plan: &Plan<'_>) -> Option<Refusal> {
        plan.steps.iter().find_map(|step| match step {
            Step::Range(query) => {
                self.check_readable(query.at).err().map(|error| refusal_of(error, query.at))
            }
            Step::Txn(nested) => self.refusal_of_reads(nested),
            Step::Put(_) | Step::Delete(_) => None,
        })
    }

    /// Carries out a plan that nothing refuses.
    pub fn carry_out(&mut self, plan: &Plan<'_>, making: &mut Making) -> io::Result<Reply> {
        let mut replies = Vec::new();
        for step in &plan.steps {
            let reply = match step {
                Step::Range(query) => self.read_in_txn(query)?,
                Step::Put(put) => self.put(put, None, making)?,
                Step::Delete(delete) => self.delete_range(delete, making)?,
                Step::Txn(nested) => self.carry_out(nested, making)?,
            };
            replies.push(reply);
        }
        Ok(Reply::Txn { revision: self.revision, succeeded: plan.succeeded, replies })
    }

    fn read_in_txn(&self, query: &RangeQuery) -> io::Result<Reply> {
        if !self.answering {
            return Ok(Reply::Range(Default::default()));
        }
        let selection = Selection::find(self, query).map_err(|error| io::Error::other(error.to_string()))?;
        selection.read(&self.view, query).map(Reply::Range)
    }
}

fn refusal_of(error: ReadError, at: Option<Revision>) -> Refusal {
    let asked = at.unwrap_or_default();
    match error {
        ReadError::Compacted { oldest } => Refusal::Compacted { asked, oldest },
        ReadError::Future { current } => Refusal::FutureRevision { asked, current },
        ReadError::Failed(_) => Refusal::Senseless("the store cannot be read".into()),
    }
}

/// What a transaction that only reads has found, with the lock let go.
struct FoundTxn {
    succeeded: bool,
    steps: Vec<FoundStep>,
}

enum FoundStep {
    Range(RangeQuery, Selection),
    Txn(FoundTxn),
}

impl Shared {
    /// A transaction that only reads, on one state of the store.
    pub fn read_txn(&self, txn: &Txn) -> Result<Reply, ReadError> {
        let (found, revision, view) = {
            let state = self.state.read();
            let plan = match state.plan(txn)? {
                Ok(plan) => plan,
                Err(refusal) => return Ok(Reply::Refused { why: refusal }),
            };
            if let Some(why) = state.refusal(&plan) {
                return Ok(Reply::Refused { why });
            }
            (FoundTxn::find(&state, plan)?, state.revision, state.view.clone())
        };
        Ok(found.read(&view, revision)?)
    }
}

impl FoundTxn {
    fn find(state: &State, plan: Plan<'_>) -> Result<Self, ReadError> {
        let find = |step| match step {
            Step::Range(query) => {
                let selection = Selection::find(state, &query)?;
                Ok(FoundStep::Range(query, selection))
            }
            Step::Txn(nested) => Self::find(state, nested).map(FoundStep::Txn),
            Step::Put(_) | Step::Delete(_) => Err(ReadError::Failed("a read that writes".to_owned())),
        };
        let steps = plan.steps.into_iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self { succeeded: plan.succeeded, steps })
    }

    fn read(self, view: &View, revision: Revision) -> io::Result<Reply> {
        let read = |step| match step {
            FoundStep::Range(query, selection) => selection.read(view, &query).map(Reply::Range),
            FoundStep::Txn(nested) => nested.read(view, revision),
        };
        let replies = self.steps.into_iter().map(read).collect::<io::Result<_>>()?;
        Ok(Reply::Txn { revision, succeeded: self.succeeded, replies })
    }
}

impl Comparison {
    fn admits(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::Less => ordering.is_lt(),
            Comparison::NotEqual => ordering.is_ne(),
        }
    }
}

impl From<&pb::Range> for RangeQuery {
    fn from(range: &pb::Range) -> Self {
        Self {
            range: KeyRange::of_request(&range.key, &range.range_end),
            at: range.revision,
            limit: usize::try_from(range.limit).unwrap_or(usize::MAX),
            bounds: RevisionBounds {
                min_mod: range.min_mod_revision,
                max_mod: range.max_mod_revision,
                min_create: range.min_create_revision,
                max_create: range.max_create_revision,
            },
            sort: range.sort.as_ref().map(Sort::from),
            keys_only: range.keys_only,
            count_only: range.count_only,
        }
    }
}

impl From<&pb::Sort> for Sort {
    fn from(sort: &pb::Sort) -> Self {
        let by = match sort.by() {
            pb::sort::By::Key => SortBy::Key,
            pb::sort::By::Version => SortBy::Version,
            pb::sort::By::CreateRevision => SortBy::CreateRevision,
            pb::sort::By::ModRevision => SortBy::ModRevision,
            pb::sort::By::Value => SortBy::Value,
        };
        Self { by, descending: sort.descending, after_limit: sort.after_limit }
    }
}
