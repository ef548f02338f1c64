//! Leases in time: what moves their clock on, who declares them ended, how much is left.
//!
//! 1. Every batch carries the leader's [`LeaseClock`] (`node/write.rs`); apply sets a
//!    lease's deadline by it, so all replicas know the same one.
//! 2. A keep-alive is a replicated command, too: no leader forgets one that was answered.
//! 3. The leader alone proposes that leases end, when they are over by its clock and a grace
//!    ([`look_after`]). The command judges again: a renewal that came first wins.
//! 4. While there are leases and nothing is written, the leader writes the clock alone down
//!    now and then, for whoever leads next.
//! 5. How much is left is read on any node ([`Node::lease_time`]): the deadline from its
//!    store, the clock from the leader, with the read index.
//!
//! Left to others: what the commands do (`storage/mvcc/apply.rs`), what etcd's clients are
//! told (`api/etcd/lease.rs`).

mod clock;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::error::Result;
use crate::proto::log::command::Op;
use crate::proto::log::{LeaseExpire, LeaseTick};

use super::{Node, Running, Shared, patience};

pub(crate) use self::clock::LeaseClock;

/// How often a leader looks at its clock and for leases that are over: they end so much
/// late at most. Several times within [`clock::MAX_STEP`], so that none of its time is lost.
const LOOK: Duration = Duration::from_millis(200);
/// After so long without a write the clock is written down alone. It is what a change of
/// leader may give to a lease.
const TICK_EVERY_MS: u64 = 2_000;
/// Leases that one command ends, so that no entry takes long to apply.
const MAX_EXPIRED_AT_ONCE: usize = 256;
/// For one such command. What became of it shows at the next look.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a leader does about the leases that there are.
#[derive(Debug, PartialEq)]
enum Duty {
    None,
    Tick,
    Expire(LeaseExpire),
}

impl Duty {
    /// `first`: the leases that end first, with their deadlines; `written_ms`: what the
    /// clock showed at the last entry.
    fn of(first: &[(i64, u64)], clock_ms: u64, written_ms: u64, grace_ms: u64) -> Self {
        let until_ms = clock_ms.saturating_sub(grace_ms);
        let over = first.iter().filter(|(_, deadline_ms)| *deadline_ms <= until_ms);
        let ids: Vec<i64> = over.map(|(id, _)| *id).collect();
        match first.is_empty() {
            true => Duty::None,
            false if !ids.is_empty() => Duty::Expire(LeaseExpire { ids, until_ms }),
            false if clock_ms.saturating_sub(written_ms) >= TICK_EVERY_MS => Duty::Tick,
            false => Duty::None,
        }
    }

    fn command(self) -> Option<Op> {
        match self {
            Duty::None => None,
            Duty::Tick => Some(Op::LeaseTick(LeaseTick {})),
            Duty::Expire(expire) => Some(Op::LeaseExpire(expire)),
        }
    }
}

/// The leader's work for leases, as long as the node runs.
pub(crate) async fn look_after(shared: Arc<Shared>, running: Arc<Running>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while shared.do_duty(&running).await {}
    }
}

impl Shared {
    /// True when there may be more to do at once.
    async fn do_duty(&self, running: &Running) -> bool {
        let (leads, clock_ms) = running.clocks.lease.look();
        if !leads || self.is_draining() || self.checks.alarm().is_some() {
            return false;
        }
        let first = self.store.leases_by_deadline(MAX_EXPIRED_AT_ONCE);
        let written_ms = self.store.lease_clock_ms();
        let duty = Duty::of(&first, clock_ms, written_ms, self.lease_grace_ms());
        let full = matches!(&duty, Duty::Expire(expire) if expire.ids.len() == MAX_EXPIRED_AT_ONCE);
        let Some(op) = duty.command() else { return false };
        // If it comes to nothing, the next look finds the same to do.
        self.write_as_leader(running, op, WRITE_TIMEOUT).await.is_ok() && full
    }

    /// A lease lives so much longer than its time: an answer to a keep-alive may be on its
    /// way for as long as nobody would elect another leader.
    fn lease_grace_ms(&self) -> u64 {
        u64::try_from(self.config.election_timeout.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Node {
    /// What the lease clock shows, once [`Node::store`] may be read for the newest leases;
    /// waits for a leader like [`Node::read_once_led`].
    pub async fn lease_time(&self, timeout: Duration) -> Result<u64> {
        patience::once_led(timeout, |timeout| async move {
            self.shared.checks.require_sound()?;
            let clock_ms = self.shared.linearize(Instant::now() + timeout).await?;
            // A renewal that was applied since is not in the future.
            Ok(clock_ms.max(self.store().lease_clock_ms()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_MS: u64 = 1_000;

    fn duty(first: &[(i64, u64)], clock_ms: u64) -> Duty {
        Duty::of(first, clock_ms, 4_000, GRACE_MS)
    }

    #[test]
    fn without_leases_nothing_is_written() {
        assert_eq!(duty(&[], 1_000_000), Duty::None);
    }

    #[test]
    fn a_lease_ends_after_its_deadline_and_the_grace() {
        let leases = [(7, 4_000), (8, 5_000), (9, 5_001)];
        assert_eq!(duty(&leases, 4_999), Duty::None);
        let expire = |ids, until_ms| Duty::Expire(LeaseExpire { ids, until_ms });
        assert_eq!(duty(&leases, 5_000), expire(vec![7], 4_000));
        assert_eq!(duty(&leases, 6_000), expire(vec![7, 8], 5_000));
    }

    #[test]
    fn the_clock_is_written_down_when_nothing_else_is() {
        let leases = [(7, 100_000)];
        assert_eq!(duty(&leases, 4_000 + TICK_EVERY_MS - 1), Duty::None);
        assert_eq!(duty(&leases, 4_000 + TICK_EVERY_MS), Duty::Tick);
    }
}
