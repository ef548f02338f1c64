//! Random operations against a simple model, with restarts in between.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Append {
        count: u64,
        bytes: usize,
        next_term: bool,
    },
    Vote,
    /// How many entries to go back.
    Truncate(u64),
    /// How many entries to keep; more are thrown away with `beyond`.
    Purge {
        keep: u64,
        beyond: u64,
    },
    Commit(u64),
    Flush,
    Linger,
    Reopen,
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..8u64, 0..400usize, any::<bool>())
            .prop_map(|(count, bytes, next_term)| Op::Append { count, bytes, next_term }),
        1 => Just(Op::Append { count: 1, bytes: 3 * SEGMENT_BYTES as usize, next_term: false }),
        2 => Just(Op::Vote),
        2 => (0..10u64).prop_map(Op::Truncate),
        2 => (0..20u64, 0..3u64).prop_map(|(keep, beyond)| Op::Purge { keep, beyond }),
        3 => (0..6u64).prop_map(Op::Commit),
        1 => Just(Op::Flush),
        1 => Just(Op::Linger),
        2 => Just(Op::Reopen),
        2 => any::<u64>().prop_map(Op::Crash),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: Vec<Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

impl Model {
    fn of(log: &Log) -> Self {
        Self {
            entries: everything(log),
            vote: log.vote(),
            purged: log.last_purged(),
            committed: log.committed(),
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    fn next_index(&self) -> LogIndex {
        self.last().map_or(0, |id| id.index + 1)
    }
}

struct Run {
    disk: FakeDisk,
    log: Option<Log>,
    model: Model,
    term: Term,
}

impl Run {
    fn log(&self) -> &Log {
        self.log.as_ref().expect("open")
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Append { count, bytes, next_term } => {
                self.term += u64::from(next_term);
                let from = self.model.next_index();
                let new = entries(self.term, from..from + count, bytes);
                self.model.entries.extend(new.clone());
                self.log().append(new, Box::new(|_| ())).expect("append");
            }
            Op::Vote => {
                self.term += 1;
                self.model.vote = Some(vote(self.term));
                self.log().save_vote(vote(self.term)).await.expect("vote");
            }
            Op::Truncate(back) => {
                let keep = self.model.entries.len().saturating_sub(back as usize);
                self.model.entries.truncate(keep);
                let last = self.model.last();
                self.model.committed = self.model.committed.min(last);
                self.log().truncate_after(last).await.expect("truncate");
                self.term += 1;
            }
            Op::Purge { keep, beyond } => self.purge(keep, beyond).await,
            Op::Commit(back) => {
                let index = self.model.entries.len().checked_sub(1 + back as usize);
                let Some(index) = index else { return };
                self.model.committed = Some(self.model.entries[index].id);
                self.log().save_committed(self.model.committed).expect("committed");
            }
            Op::Flush => self.log().flush().await.expect("flush"),
            Op::Linger => linger(self.log()).await,
            Op::Reopen | Op::Crash(_) => self.restart(op).await,
        }
        assert_eq!(Model::of(self.log()), self.model);
        assert_eq!(self.log().last_id(), self.model.last());
    }

    async fn purge(&mut self, keep: u64, beyond: u64) {
        let gone = self.model.entries.len().saturating_sub(keep as usize);
        let upto = match gone.checked_sub(1).map(|last| self.model.entries[last].id) {
            Some(upto) if keep == 0 => LogId { index: upto.index + beyond, ..upto },
            Some(upto) => upto,
            None => return,
        };
        self.model.entries.drain(..gone);
        self.model.purged = Some(upto);
        self.log().purge(upto).await.expect("purge");
    }

    async fn restart(&mut self, op: &Op) {
        self.log().flush().await.expect("flush");
        if let Op::Crash(seed) = *op {
            use rand::SeedableRng;
            self.disk.crash(&mut rand::rngs::SmallRng::seed_from_u64(seed));
        }
        self.log = None;
        self.log = Some(open(&self.disk).expect("open"));
        assert_eq!(self.log().durable_id(), self.model.last());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_like_the_model_over_restarts(ops in proptest::collection::vec(op(), 1..60)) {
        simulate(async {
            let disk = FakeDisk::new();
            let log = Some(open(&disk).expect("open"));
            let mut run = Run { disk, log, model: Model::default(), term: 1 };
            for op in &ops {
                run.step(op).await;
            }
            run.restart(&Op::Reopen).await;
            assert_eq!(Model::of(run.log()), run.model);
        });
    }
}
