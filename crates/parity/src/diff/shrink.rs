//! Makes a sequence smaller as long as the sides still differ.
//!
//! First whole operations go: what is left is named by its places, so a command line can
//! bring it back. Then parts of the transactions that are left: for the reader alone.

use anyhow::Result;

use super::op::{Action, Op, Sequence};
use super::pair::{Difference, Pair, Verdict};
use super::proto::*;

/// Replays at most; each takes a fraction of a second.
const MOST_REPLAYS: usize = 150;

/// The smallest sequence found that shows a difference, and the difference. `None` when
/// even the whole sequence shows none any more.
pub async fn shrink(pair: &mut Pair, sequence: &Sequence) -> Result<Option<(Sequence, Difference)>> {
    let Verdict::Differs(difference) = pair.run(sequence).await? else { return Ok(None) };
    let mut found = (cut_after(sequence, &difference), *difference);
    let mut replays = 0;
    let mut chunk = found.0.ops.len().div_ceil(2);
    while chunk > 0 && replays < MOST_REPLAYS {
        let mut at = 0;
        while at < found.0.ops.len() && replays < MOST_REPLAYS {
            let smaller = without(&found.0, at, chunk);
            replays += 1;
            match pair.run(&smaller).await? {
                Verdict::Differs(difference) => found = (cut_after(&smaller, &difference), *difference),
                Verdict::Same | Verdict::Disturbed(_) => at += chunk,
            }
        }
        chunk /= 2;
    }
    Ok(Some(found))
}

/// What comes after the difference played no part in it.
fn cut_after(sequence: &Sequence, difference: &Difference) -> Sequence {
    let ops = sequence.ops.iter().filter(|(place, _)| *place <= difference.place).cloned();
    Sequence { seed: sequence.seed, ops: ops.collect() }
}

fn without(sequence: &Sequence, at: usize, count: usize) -> Sequence {
    let kept = |(index, op): (usize, &(usize, Op))| (!(at..at + count).contains(&index)).then(|| op.clone());
    Sequence { seed: sequence.seed, ops: sequence.ops.iter().enumerate().filter_map(kept).collect() }
}

/// The same with as little as possible in its transactions.
pub async fn shrink_within(
    pair: &mut Pair,
    mut sequence: Sequence,
    mut difference: Difference,
) -> Result<(Sequence, Difference)> {
    let mut replays = 0;
    'smaller: loop {
        for candidate in simpler_sequences(&sequence) {
            replays += 1;
            if replays > MOST_REPLAYS {
                break 'smaller;
            }
            if let Verdict::Differs(found) = pair.run(&candidate).await? {
                (sequence, difference) = (candidate, *found);
                continue 'smaller;
            }
        }
        break;
    }
    Ok((sequence, difference))
}

/// With one part less each.
fn simpler_sequences(sequence: &Sequence) -> Vec<Sequence> {
    let mut all = Vec::new();
    for (at, (_, op)) in sequence.ops.iter().enumerate() {
        let Action::Txn(txn) = &op.action else { continue };
        all.extend(simpler(txn).into_iter().map(|txn| {
            let mut smaller = sequence.clone();
            smaller.ops[at].1.action = Action::Txn(txn);
            smaller
        }));
    }
    all
}

fn simpler(txn: &TxnRequest) -> Vec<TxnRequest> {
    let mut all = Vec::new();
    all.extend(shorter(&txn.compare).map(|compare| TxnRequest { compare, ..txn.clone() }));
    all.extend(simpler_branch(&txn.success).into_iter().map(|success| TxnRequest { success, ..txn.clone() }));
    all.extend(simpler_branch(&txn.failure).into_iter().map(|failure| TxnRequest { failure, ..txn.clone() }));
    all
}

fn simpler_branch(ops: &[RequestOp]) -> Vec<Vec<RequestOp>> {
    let mut all: Vec<_> = shorter(ops).collect();
    for (at, op) in ops.iter().enumerate() {
        let Some(RequestKind::RequestTxn(nested)) = &op.request else { continue };
        all.extend(simpler(nested).into_iter().map(|nested| {
            let mut ops = ops.to_vec();
            ops[at].request = Some(RequestKind::RequestTxn(nested));
            ops
        }));
    }
    all
}

/// Without each of the items.
fn shorter<T: Clone>(items: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..items.len()).map(|left_out| {
        let mut shorter = items.to_vec();
        shorter.remove(left_out);
        shorter
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_loses_one_part_at_a_time_at_any_depth() {
        let put = |key: &'static str| RequestOp {
            request: Some(RequestKind::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() })),
        };
        let nested = TxnRequest { success: vec![put("b"), put("c")], ..TxnRequest::default() };
        let nested = RequestOp { request: Some(RequestKind::RequestTxn(nested)) };
        let txn = TxnRequest { success: vec![put("a"), nested], ..TxnRequest::default() };
        // Without a, without the nested one, without b, without c.
        assert_eq!(simpler(&txn).len(), 4);
    }
}
