//! Telling a copied directory: every member's highest start count, and that run's
//! nonce, are kept on disk. The same count with another nonce, or a lower count, comes
//! from a copy; so does a newer run while the old one still answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::Disk;
use crate::proto::data as pb;
use crate::proto::peer::Run;
use crate::storage::data_dir;
use crate::types::MemberId;

pub struct Runs {
    disk: Arc<dyn Disk>,
    known: Mutex<BTreeMap<MemberId, Run>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The run that we know.
    Known,
    /// A run that we do not know yet: to be accepted when no other one is alive.
    Newer,
    /// A copy of the directory, or the original of a copy that took over.
    Copy { known: Run },
}

impl Runs {
    pub fn load(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let stored = data_dir::load_peers(disk.as_ref())?.unwrap_or_default();
        let run = |run: &pb::PeerRun| (MemberId(run.member), Run { starts: run.starts, nonce: run.nonce });
        let known = stored.runs.iter().map(run).collect();
        Ok(Self { disk, known: Mutex::new(known) })
    }

    pub fn judge(&self, member: MemberId, run: Run) -> Verdict {
        match self.known.lock().get(&member) {
            None => Verdict::Newer,
            Some(known) if *known == run => Verdict::Known,
            Some(known) if run.starts > known.starts => Verdict::Newer,
            Some(known) => Verdict::Copy { known: *known },
        }
    }

    /// Accepts a newer run; on disk when it returns.
    pub fn accept(&self, member: MemberId, run: Run) -> io::Result<()> {
        let mut known = self.known.lock();
        if known.get(&member).is_some_and(|old| old.starts >= run.starts) {
            return Ok(());
        }
        // Known once it is on disk: what only memory knows, a restart forgets.
        let mut next = known.clone();
        next.insert(member, run);
        let entry = |(member, run): (&MemberId, &Run)| pb::PeerRun {
            member: member.0,
            starts: run.starts,
            nonce: run.nonce,
        };
        let message = pb::Peers { format: data_dir::FORMAT, runs: next.iter().map(entry).collect() };
        data_dir::store_peers(self.disk.as_ref(), &message)?;
        *known = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::env::fake_disk::FakeDisk;

    const PEER: MemberId = MemberId(7);

    fn run(starts: u64, nonce: u64) -> Run {
        Run { starts, nonce }
    }

    fn load(disk: &FakeDisk) -> Runs {
        Runs::load(Arc::new(disk.boot())).expect("loads")
    }

    #[test]
    fn a_copy_is_told_from_the_original_over_restarts() {
        let disk = FakeDisk::new();
        load(&disk).accept(PEER, run(3, 1)).expect("accepted");
        let runs = load(&disk);
        assert_eq!(runs.judge(PEER, run(3, 1)), Verdict::Known);
        assert_eq!(runs.judge(PEER, run(4, 2)), Verdict::Newer);
        assert_eq!(runs.judge(PEER, run(3, 2)), Verdict::Copy { known: run(3, 1) });
        assert_eq!(runs.judge(PEER, run(2, 1)), Verdict::Copy { known: run(3, 1) });
    }

    #[test]
    fn what_was_accepted_is_known_after_a_power_cut_at_any_point() {
        for operations in 0..20 {
            for seed in 0..10 {
                let disk = FakeDisk::new();
                let runs = load(&disk);
                runs.accept(PEER, run(1, 1)).expect("accepted");
                disk.stop_after(operations);
                let accepted = runs.accept(PEER, run(2, 2)).is_ok();
                disk.crash(&mut SmallRng::seed_from_u64(seed));
                let newer = load(&disk).judge(PEER, run(2, 2));
                let allowed: &[Verdict] =
                    if accepted { &[Verdict::Known] } else { &[Verdict::Known, Verdict::Newer] };
                assert!(allowed.contains(&newer), "{operations} {seed}: {newer:?}");
            }
        }
    }

    #[test]
    fn a_run_that_could_not_be_written_down_is_not_known() {
        let disk = FakeDisk::new();
        let runs = load(&disk);
        runs.accept(PEER, run(1, 1)).expect("accepted");
        disk.fail_next_sync();
        assert!(runs.accept(PEER, run(2, 2)).is_err());
        assert_eq!(runs.judge(PEER, run(2, 2)), Verdict::Newer, "it is asked for again");
        runs.accept(PEER, run(2, 2)).expect("accepted");
        assert_eq!(load(&disk).judge(PEER, run(2, 2)), Verdict::Known);
    }
}
