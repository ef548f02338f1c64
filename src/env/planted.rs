//! Bugs that the simulation plants, one at a time, to see whether its judgement notices.
//!
//! Each is a line or two at the place where it would be made, behind [`is_planted`]. What
//! is planted belongs to the thread, like the seed in `random`. In a build without the
//! feature `testing` the question is a constant `false`, and the bug is not there.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A vote is promised and not written down.
    VoteNotSaved,
    /// The log reports syncs that it does not make.
    LogNotSynced,
    /// Entries that another leader replaces stay in the log.
    TailNotTruncated,
    /// The directory is not synced after a file of it was renamed.
    DirectoryNotSynced,
    /// The table says that it is one entry older than it is.
    AppliedTwice,
    /// A snapshot lacks the last change.
    SnapshotLacksTheLast,
    /// A leader says how far to read without asking whether it still leads.
    ReadIndexWithoutRound,
    /// A leader counts a member that asks how far to read as all that it needs.
    AskerIsEnough,
    /// A leader trusts its own clock that nobody else leads yet.
    StaleLease,
    /// A read joins a round that began before it.
    ReadJoinsEarlierRound,
    /// A restarted node shows what it has before it has caught up with itself.
    LocalReadBeforeRecovery,
    /// Every write is acknowledged when the leader alone has it.
    AcknowledgedBeforeCommit,
    /// A forwarded write whose answer is late is sent again.
    ForwardedTwice,
    /// A condition is judged when the write arrives, not when it is applied.
    ConditionJudgedEarly,
    /// Whoever lost its disk comes back as the member that it was.
    WipedComesBackAsItself,
    /// A leader without a quorum goes on speaking as one.
    LeaderNeverSilent,
}

impl Bug {
    pub const ALL: [Bug; 16] = [
        Bug::VoteNotSaved,
        Bug::LogNotSynced,
        Bug::TailNotTruncated,
        Bug::DirectoryNotSynced,
        Bug::AppliedTwice,
        Bug::SnapshotLacksTheLast,
        Bug::ReadIndexWithoutRound,
        Bug::AskerIsEnough,
        Bug::StaleLease,
        Bug::ReadJoinsEarlierRound,
        Bug::LocalReadBeforeRecovery,
        Bug::AcknowledgedBeforeCommit,
        Bug::ForwardedTwice,
        Bug::ConditionJudgedEarly,
        Bug::WipedComesBackAsItself,
        Bug::LeaderNeverSilent,
    ];
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in every node of this thread, in place of the last one. Only simulations
/// call it.
#[cfg(any(test, feature = "testing"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread's nodes have that bug.
#[cfg(any(test, feature = "testing"))]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never: this build has no planted bugs.
#[cfg(not(any(test, feature = "testing")))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}
