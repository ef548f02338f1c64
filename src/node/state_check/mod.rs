//! The alarm for silent corruption: replicas compare what they hold, by themselves.
//!
//! 1. Now and then the leader puts a mark into the log (`StateCheck`), an entry that
//!    changes nothing ([`propose_marks`]).
//! 2. Every node that applies it has the table as it is right after that entry, whatever
//!    it writes meanwhile (`storage/mvcc/hash.rs`), and reads it through in small steps
//!    with pauses ([`compare`]). Apply does nothing for it.
//! 3. Then it asks all the others for their hash at that entry, and judges itself alone
//!    (`judge`): whoever differs from a majority raises the alarm; where there is no
//!    majority, whoever differs from the leader does.
//! 4. A node in alarm ([`Alarm`]) serves no clients and does not lead ([`give_way`]), also
//!    after a restart. It votes and acknowledges: its log is sound (docs/adr/0009).
//!
//! Left to others: what goes into the hash (`storage/mvcc`), what an unsound node may do
//! in elections (`consensus`), how clients are told (`api`).

mod alarm;
mod gather;
mod judge;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::consensus::ProposeError;
use crate::env::Workers;
use crate::error::Error;
use crate::proto::log::{Command, StateCheck, command};
use crate::proto::peer::state_hash_reply::Result as Answer;
use crate::storage::mvcc::{MarkedState, STATE_HASH_FORMAT, StateHash};
use crate::types::{LogId, LogIndex, Role};

use self::judge::Verdict;
use super::{Running, Shared, batch};

pub use self::alarm::Alarm;

/// Between two steps of reading the table, at least, and as a multiple of what the last
/// step took: a comparison takes a tenth of one core at most.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const PAUSE_SHARE: u32 = 9;
/// Hashes kept for nodes that come to the same mark later.
const KEPT_HASHES: usize = 16;
/// The leader's next mark waits for its last one to be compared, so long at most: marks
/// that come faster than nodes compare would be left out, by each node others.
const COMPARED_WITHIN: Duration = Duration::from_secs(30);
/// How often a leader in alarm looks for somebody who takes over.
const GIVE_WAY: Duration = Duration::from_millis(500);

/// What this node knows of its own state.
pub(crate) struct Checks {
    /// False when this node neither asks nor answers.
    on: bool,
    alarm: RwLock<Option<Alarm>>,
    /// At the last marks that were read through, oldest first.
    known: Mutex<VecDeque<(LogId, StateHash)>>,
    /// The last mark that was compared.
    compared: watch::Sender<Option<LogIndex>>,
}

impl Checks {
    /// `alarm`: what the directory remembers.
    pub fn new(interval: Duration, alarm: Option<Alarm>) -> Self {
        Self {
            on: !interval.is_zero(),
            alarm: RwLock::new(alarm),
            known: Mutex::default(),
            compared: watch::Sender::new(None),
        }
    }

    pub fn alarm(&self) -> Option<Alarm> {
        self.alarm.read().clone()
    }

    /// Refuses what must not be answered from a state that is not sound.
    pub fn require_sound(&self) -> Result<(), Error> {
        match &*self.alarm.read() {
            None => Ok(()),
            Some(alarm) => Err(Error::StateDiffers { why: alarm.to_string() }),
        }
    }

    fn remember(&self, at: LogId, hash: StateHash) {
        let mut known = self.known.lock();
        if known.len() == KEPT_HASHES {
            known.pop_front();
        }
        known.push_back((at, hash));
    }

    /// What another node is told about an entry with a mark.
    pub fn answer(&self, at: LogId, format: u32) -> Answer {
        let known = self.known.lock();
        let found = known.iter().find(|(known, _)| *known == at);
        let passed = known.back().is_some_and(|(last, _)| last.index > at.index);
        match found {
            _ if !self.on || format != STATE_HASH_FORMAT => Answer::Never(true),
            Some((_, hash)) => Answer::Hash(hash.to_vec().into()),
            None if passed => Answer::Never(true),
            None => Answer::Later(true),
        }
    }
}

/// The leader's clock for marks. Only the leader's setting counts.
pub(crate) async fn propose_marks(shared: Arc<Shared>, running: Arc<Running>) {
    let interval = shared.config.hash_check_interval;
    if interval.is_zero() {
        return;
    }
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let alone = running.consensus.view().members.len() <= 1;
        let leads = running.consensus.role() == Role::Leader && !shared.is_draining();
        if alone || !leads || shared.checks.alarm().is_some() {
            continue;
        }
        // If it comes to nothing, the next one will do.
        let _ = tokio::time::timeout(COMPARED_WITHIN, one_mark(&shared, &running)).await;
    }
}

/// Proposes a mark, and returns when this node has compared its state there.
async fn one_mark(shared: &Shared, running: &Running) -> Result<(), ProposeError> {
    let mark = command::Op::StateCheck(StateCheck { leader: running.me().0 });
    let commands = vec![Command { op: Some(mark), precondition: None }];
    let encoded = batch::encode(commands, running.clocks.now());
    let (at, _) = running.consensus.propose(encoded, None).await?.outcome().await?;
    let mut compared = shared.checks.compared.subscribe();
    // An error means that the node is stopping.
    let _ = compared.wait_for(|last| last.is_some_and(|last| last >= at.index)).await;
    Ok(())
}

/// Reads each marked state through, compares it and acts on the outcome.
pub(crate) async fn compare(
    shared: Arc<Shared>,
    running: Arc<Running>,
    mut marks: mpsc::Receiver<MarkedState>,
) {
    while let Some(marked) = marks.recv().await {
        let (at, proposer) = (marked.at, marked.proposer);
        match hash(&shared.world.workers, marked).await {
            None => tracing::warn!("could not start reading the table: this comparison is left out"),
            Some(Err(error)) => shared.raise(&running, Alarm::unreadable(at, &error)),
            Some(Ok(hash)) => {
                shared.checks.remember(at, hash);
                let verdict = gather::verdict(&running, at, proposer, hash).await;
                shared.act_on(&running, at, verdict);
            }
        }
        shared.checks.compared.send_replace(Some(at.index));
    }
}

type Stepped = (io::Result<Option<StateHash>>, Duration);

/// Reads a marked state through, in steps; `None` when there is no thread to do it.
async fn hash(workers: &Workers, marked: MarkedState) -> Option<io::Result<StateHash>> {
    let mut hasher = match marked.hasher() {
        Ok(hasher) => hasher,
        Err(error) => return Some(Err(error)),
    };
    let worker = workers.spawn("state-hash", move |steps: &mut Vec<oneshot::Sender<Stepped>>| {
        for done in steps.drain(..) {
            let began = Instant::now();
            let step = hasher.step();
            // Nobody waits any more when the node is stopping.
            let _ = done.send((step, began.elapsed()));
        }
    });
    loop {
        let (done, stepped) = oneshot::channel();
        worker.send(done);
        let (step, took) = stepped.await.ok()?;
        match step.transpose() {
            Some(result) => return Some(result),
            None => tokio::time::sleep((took * PAUSE_SHARE).max(MIN_PAUSE)).await,
        }
    }
}

/// A node in alarm that leads hands over as soon as somebody can take over.
pub(crate) async fn give_way(shared: Arc<Shared>, running: Arc<Running>) {
    let mut ticks = tokio::time::interval(GIVE_WAY);
    loop {
        ticks.tick().await;
        if shared.checks.alarm().is_some() && !shared.is_draining() {
            shared.hand_over(&running, "because of the alarm").await;
        }
    }
}

impl Shared {
    fn act_on(&self, running: &Running, at: LogId, verdict: Verdict) {
        self.metrics.count_state_check(verdict.as_str());
        match &verdict {
            Verdict::Agrees => tracing::debug!(%at, "the state is the same on a majority of the nodes"),
            Verdict::OthersDiffer(names) => tracing::error!(
                "after log entry {at} the state of {} differs from that of a majority, to which this node belongs: they should have raised the alarm",
                alarm::list(names)
            ),
            Verdict::Disputed(names) => tracing::error!(
                "after log entry {at} the state of {} differs from that of this node, and no majority tells which is right",
                alarm::list(names)
            ),
            Verdict::NoAnswer => tracing::debug!(%at, "too few nodes to compare the state with"),
            Verdict::Differs(names) => self.raise(running, Alarm::differs(at, names)),
            Verdict::DiffersFromLeader(name) => self.raise(running, Alarm::differs_from_leader(at, name)),
        }
        if matches!(verdict, Verdict::Agrees | Verdict::OthersDiffer(_)) {
            self.lift_a_doubt(running, at);
        }
    }

    /// Remembers the alarm, durably, and stops serving and leading.
    fn raise(&self, running: &Running, alarm: Alarm) {
        tracing::error!("ALARM: {alarm}");
        // What is certain stays as it was first told.
        if self.checks.alarm().is_some_and(|known| known.certain || !alarm.certain) {
            return;
        }
        self.set_alarm(running, Some(alarm));
    }

    /// Where no majority could be asked, the leader was believed. A majority knows better.
    fn lift_a_doubt(&self, running: &Running, at: LogId) {
        if self.checks.alarm().is_some_and(|alarm| !alarm.certain) {
            tracing::warn!("the alarm is over: after log entry {at} a majority holds what this node holds");
            self.set_alarm(running, None);
        }
    }

    fn set_alarm(&self, running: &Running, alarm: Option<Alarm>) {
        *self.checks.alarm.write() = alarm.clone();
        running.consensus.set_unsound(alarm.is_some());
        let mut identity = self.identity.lock();
        identity.alarm = alarm;
        if let Err(error) = identity.save(self.world.disk.as_ref()) {
            tracing::error!(%error, "could not write the alarm down: it will not survive a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> LogId {
        LogId { term: 1, index }
    }

    #[test]
    fn a_hash_is_told_while_it_is_kept_and_asked_for_again_until_it_is_passed() {
        let checks = Checks::new(Duration::from_secs(1), None);
        let format = STATE_HASH_FORMAT;
        assert_eq!(checks.answer(at(5), format), Answer::Later(true));
        checks.remember(at(5), [5; 32]);
        assert_eq!(checks.answer(at(5), format), Answer::Hash(vec![5; 32].into()));
        assert_eq!(checks.answer(at(5), format + 1), Answer::Never(true), "another format");
        assert_eq!(checks.answer(at(4), format), Answer::Never(true), "passed, and never read through");
        assert_eq!(checks.answer(at(6), format), Answer::Later(true));
        (10..10 + KEPT_HASHES as u64).for_each(|index| checks.remember(at(index), [1; 32]));
        assert_eq!(checks.answer(at(5), format), Answer::Never(true), "forgotten");
    }

    #[test]
    fn a_node_that_does_not_compare_says_so() {
        let off = Checks::new(Duration::ZERO, None);
        assert_eq!(off.answer(at(5), STATE_HASH_FORMAT), Answer::Never(true));
    }

    #[test]
    fn in_alarm_nothing_is_served() {
        assert_eq!(Checks::new(Duration::ZERO, None).require_sound(), Ok(()));
        let alarm = Alarm::unreadable(at(1), &io::Error::other("damaged"));
        let refused = Checks::new(Duration::ZERO, Some(alarm)).require_sound();
        assert!(matches!(refused, Err(Error::StateDiffers { .. })), "{refused:?}");
    }
}
