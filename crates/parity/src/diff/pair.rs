//! Plays one sequence to both sides, step by step, until they differ.

use std::fmt::{self, Display, Formatter};

use anyhow::{Context, Result};

use super::alter::Alteration;
use super::coverage::Coverage;
use super::normal::normal;
use super::op::{Action, Op, Outcome, Sequence, shorten};
use super::proto::*;
use super::side::Side;
use crate::known;

/// The cluster under test and the reference.
pub struct Pair {
    pub tested: Side,
    pub reference: Side,
    /// Applied to the tested side's replies.
    pub alteration: Option<Alteration>,
    pub coverage: Coverage,
}

#[derive(Debug)]
pub enum Verdict {
    Same,
    Differs(Box<Difference>),
    /// An election or a busy machine came between: it says nothing.
    Disturbed(String),
}

/// The first step whose outcomes were not equal.
#[derive(Debug)]
pub struct Difference {
    /// The place of the operation in the sequence as it was drawn.
    pub place: usize,
    pub op: Op,
    pub tested: String,
    pub reference: String,
}

impl Pair {
    pub fn new(tested: Side, reference: Side) -> Self {
        Self { tested, reference, alteration: None, coverage: Coverage::default() }
    }

    pub async fn run(&mut self, sequence: &Sequence) -> Result<Verdict> {
        let (tested, reference) = tokio::join!(self.tested.begin(), self.reference.begin());
        if let Err(error) = tested.context("the tested side").and(reference.context("the reference")) {
            return Ok(Verdict::Disturbed(format!("{error:#}")));
        }
        let [settle, agree] = [Action::Settle, Action::Agree].map(|action| Op { node: 0, action });
        let end = sequence.ops.last().map_or(0, |(place, _)| place + 1);
        for (place, op) in sequence.ops.iter().chain(&[(end, settle.clone()), (end, agree)]) {
            let settle = (races_with_events(&op.action) && self.reference.watches()).then_some(&settle);
            for op in settle.into_iter().chain([op]) {
                match self.step(*place, op).await {
                    Verdict::Same => {}
                    other => return Ok(other),
                }
            }
        }
        Ok(Verdict::Same)
    }

    async fn step(&mut self, place: usize, op: &Op) -> Verdict {
        let (mut tested, reference) = tokio::join!(self.tested.play(op), self.reference.play(op));
        for (side, outcome) in [("the tested side", &tested), ("the reference", &reference)] {
            if let Err(refusal) = outcome
                && refusal.is_passing()
            {
                return Verdict::Disturbed(format!("{side}, {op}: {:?}: {}", refusal.code, refusal.message));
            }
        }
        self.coverage.add(&op.action, &reference);
        if let Some(alteration) = self.alteration {
            alteration.alter(&mut tested);
        }
        let show = |outcome: Outcome| {
            let shown = match outcome {
                Ok(reply) => shorten(&format!("{:#?}", normal(&op.action, reply))),
                Err(refusal) => format!("{:?}: {}", refusal.code, refusal.message),
            };
            known::rewrite(op.action.kind(), &shown)
        };
        let (tested, reference) = (show(tested), show(reference));
        if tested == reference {
            return Verdict::Same;
        }
        Verdict::Differs(Box::new(Difference { place, op: op.clone(), tested, reference }))
    }
}

/// What would be lost or cut short, were events still on their way.
fn races_with_events(action: &Action) -> bool {
    match action {
        Action::Compact(_) => true,
        Action::Watch(request) => matches!(
            request.request_union,
            Some(
                WatchUnion::CancelRequest(_)
                    | WatchUnion::CreateRequest(WatchCreateRequest { watch_id: 1.., .. })
            )
        ),
        _ => false,
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "they differ at operation {}", self.place)?;
        let (tested, reference): (Vec<_>, Vec<_>) =
            (self.tested.lines().collect(), self.reference.lines().collect());
        // A message's debug output is a line a field: what is equal around the difference is context.
        let same = tested.iter().zip(&reference).take_while(|(a, b)| a == b).count();
        let shown = same.saturating_sub(CONTEXT_LINES);
        let part = |lines: &[&str]| lines[shown.min(lines.len())..].join("\n    ");
        writeln!(f, "  Bellwether (after {shown} equal lines):\n    {}", part(&tested))?;
        write!(f, "  etcd:\n    {}", part(&reference))
    }
}

/// Equal lines shown before the first that differs.
const CONTEXT_LINES: usize = 12;
