//! A bad network on demand: messages to and from single members delayed, lost, cut off,
//! doubled or out of order. For the laboratory and for tests; a node that was not started
//! for it has none of this in its way.
//!
//! It sits where messages leave and arrive, above TCP, so a lost message is one that
//! never gets its answer. Delays are for replication alone, as on a link that is slow
//! but alive: heartbeats and votes pass at once.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::env::random::rng;
use crate::types::MemberName;

use super::pool::Lane;

/// Messages that may be on their way at once: a bound for memory, far above what is sent
/// within a delay of seconds.
const MAX_UNDER_WAY: usize = 4096;
/// A message out of order lets others overtake it for so long.
const REORDER_BY: Duration = Duration::from_millis(30);

/// Why a transfer was broken off.
pub const LINK_IS_CUT: &str = "the link is cut";

/// What happens to messages that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// Replication messages take so much longer.
    pub delay: Duration,
    /// Nothing passes.
    pub cut: bool,
    /// The chances of a message, from 0 to 1, to be lost, to come twice, to be overtaken.
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("whole");
        }
        let chance = |name: &str, chance: f64| (chance > 0.0).then(|| format!("{name} {chance}"));
        let parts = [
            self.cut.then(|| "cut".to_owned()),
            (!self.delay.is_zero()).then(|| format!("delayed by {:?}", self.delay)),
            chance("loss", self.loss),
            chance("duplicate", self.duplicate),
            chance("reorder", self.reorder),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// What has happened so far: a fault that never struck proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub delayed: u64,
    pub cut: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
}

struct WayState {
    rules: Rules,
    counts: Counts,
    random: SmallRng,
}

/// One direction of a link.
pub struct Way {
    state: Mutex<WayState>,
    changed: Notify,
}

impl Way {
    fn new(rules: Rules) -> Self {
        let random = SmallRng::seed_from_u64(rng().random());
        let state = WayState { rules, counts: Counts::default(), random };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub fn rules(&self) -> Rules {
        self.state.lock().rules
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// With a seed the same messages meet the same fates again.
    pub fn set(&self, rules: Rules, seed: Option<u64>) {
        let mut state = self.state.lock();
        state.rules = rules;
        if let Some(seed) = seed {
            state.random = SmallRng::seed_from_u64(seed);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns once nothing passes, and counts what that breaks off.
    async fn until_cut(&self) {
        loop {
            let changed = self.changed.notified();
            if self.breaks_off() {
                return;
            }
            changed.await;
        }
    }

    fn breaks_off(&self) -> bool {
        let mut state = self.state.lock();
        let cut = state.rules.cut;
        state.counts.cut += u64::from(cut);
        cut
    }

    /// How long the next message takes; `None`: it never arrives.
    fn fate(&self, lane: Lane) -> Option<Duration> {
        let mut state = self.state.lock();
        let rules = state.rules;
        if rules.cut {
            state.counts.cut += 1;
            return None;
        }
        if state.strikes(rules.loss) {
            state.counts.lost += 1;
            return None;
        }
        let mut takes = Duration::ZERO;
        if lane == Lane::Bulk && !rules.delay.is_zero() {
            state.counts.delayed += 1;
            takes += rules.delay;
        }
        if state.strikes(rules.reorder) {
            state.counts.reordered += 1;
            takes += REORDER_BY;
        }
        state.counts.passed += 1;
        Some(takes)
    }

    /// Whether the next message comes twice.
    pub fn doubles(&self) -> bool {
        let mut state = self.state.lock();
        let chance = state.rules.duplicate;
        let doubles = state.strikes(chance);
        state.counts.duplicated += u64::from(doubles);
        doubles
    }

    /// Returns when a single message has arrived; never, when it is lost.
    pub async fn carry(&self, lane: Lane) {
        match self.fate(lane) {
            None => std::future::pending().await,
            Some(Duration::ZERO) => {}
            Some(takes) => tokio::time::sleep(takes).await,
        }
    }
}

impl WayState {
    fn strikes(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.random.random_bool(chance.min(1.0))
    }
}

/// Both directions between this node and another.
pub struct Link {
    pub send: Way,
    pub receive: Way,
}

impl Link {
    /// By how much an answer to a replication message comes later.
    pub fn delay(&self) -> Duration {
        self.send.rules().delay + self.receive.rules().delay
    }

    /// Lets a long transfer through, or breaks it off when either way is cut, as TCP does when
    /// its pings stay unanswered: `None`. What is lost of it, TCP sends again.
    pub async fn carry_transfer<T>(&self, transfer: impl Future<Output = T>) -> Option<T> {
        tokio::select! { biased;
            () = self.send.until_cut() => None,
            () = self.receive.until_cut() => None,
            done = transfer => Some(done),
        }
    }
}

/// The links of a node, by the other's name; none of them exists unless it was asked for.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Table>>);

struct Table {
    links: Mutex<BTreeMap<MemberName, Arc<Link>>>,
    first: Rules,
}

impl Faults {
    /// A node that may be given a bad network, and replicates with this delay from the
    /// start.
    pub fn possible(delay: Duration) -> Self {
        let first = Rules { delay, ..Rules::default() };
        Self(Some(Arc::new(Table { links: Mutex::default(), first })))
    }

    /// The link to `peer`, when there can be faults.
    pub fn link(&self, peer: &MemberName) -> Option<Arc<Link>> {
        let table = self.0.as_ref()?;
        let mut links = table.links.lock();
        let new = || Link { send: Way::new(table.first), receive: Way::new(Rules::default()) };
        Some(links.entry(peer.clone()).or_insert_with(|| Arc::new(new())).clone())
    }
}

/// A stream of messages as one direction of a link lets them through. Those that nothing
/// overtakes keep their order, and a delay holds up no others.
pub fn through<T, S>(link: Option<Arc<Link>>, way: fn(&Link) -> &Way, messages: S) -> impl Stream<Item = T>
where
    T: Clone,
    S: Stream<Item = T> + Unpin,
{
    match link {
        None => Either::Left(messages),
        Some(link) => Either::Right(delayed(link, way, messages)),
    }
}

fn delayed<T, S>(link: Arc<Link>, way: fn(&Link) -> &Way, messages: S) -> impl Stream<Item = T>
where
    T: Clone,
    S: Stream<Item = T> + Unpin,
{
    let mut messages = messages.fuse();
    async_stream::stream! {
        let mut under_way = VecDeque::<(Instant, T)>::new();
        while !(under_way.is_empty() && messages.is_done()) {
            let due = under_way.front().map(|(due, _)| *due);
            let room = under_way.len() < MAX_UNDER_WAY && !messages.is_done();
            let next = tokio::select! { biased;
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
                next = messages.next(), if room => Some(next),
            };
            match next {
                None => if let Some((_, message)) = under_way.pop_front() { yield message },
                Some(None) => {}
                Some(Some(message)) => if let Some(takes) = way(&link).fate(Lane::Bulk) {
                    let due = Instant::now() + takes;
                    let place = under_way.partition_point(|(other, _)| *other <= due);
                    if way(&link).doubles() {
                        under_way.insert(place, (due, message.clone()));
                    }
                    under_way.insert(place, (due, message));
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(rules: Rules) -> Way {
        let way = Way::new(rules);
        way.set(rules, Some(7));
        way
    }

    async fn arriving(rules: Rules, count: u32) -> (Vec<u32>, Counts) {
        let peer = MemberName::parse("b").expect("a name");
        let link = Faults::possible(Duration::ZERO).link(&peer).expect("a link");
        link.send.set(rules, Some(7));
        let stream = through(Some(link.clone()), |link| &link.send, futures::stream::iter(0..count));
        let arrived = stream.collect().await;
        (arrived, link.send.counts())
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_holds_each_message_and_none_behind_it() {
        let began = Instant::now();
        let (arrived, counts) =
            arriving(Rules { delay: Duration::from_secs(1), ..Rules::default() }, 100).await;
        assert_eq!(arrived, (0..100).collect::<Vec<_>>());
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert_eq!((counts.delayed, counts.passed), (100, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_strikes_as_often_as_it_says_and_the_same_again() {
        let faulty = Rules { loss: 0.2, duplicate: 0.2, reorder: 0.2, ..Rules::default() };
        let (arrived, counts) = arriving(faulty, 1000).await;
        for struck in [counts.lost, counts.duplicated, counts.reordered] {
            assert!((100..300).contains(&struck), "{counts:?}");
        }
        assert_eq!(arrived.len() as u64, 1000 - counts.lost + counts.duplicated);
        assert!(!arrived.is_sorted(), "some are overtaken");
        assert_eq!(arriving(faulty, 1000).await, (arrived, counts));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_a_cut_and_everything_without_faults() {
        assert_eq!(arriving(Rules { cut: true, ..Rules::default() }, 9).await.0, Vec::<u32>::new());
        assert_eq!(arriving(Rules::default(), 9).await.0, (0..9).collect::<Vec<_>>());
        let cut = way(Rules { cut: true, ..Rules::default() });
        let waited = tokio::time::timeout(Duration::from_secs(60), cut.carry(Lane::Control)).await;
        assert!(waited.is_err() && cut.counts().cut == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_of_either_way_breaks_off_a_transfer_before_and_while_it_runs() {
        let peer = MemberName::parse("b").expect("a name");
        let link = Faults::possible(Duration::ZERO).link(&peer).expect("a link");
        let cut = Rules { cut: true, ..Rules::default() };
        assert_eq!(link.carry_transfer(async { 1 }).await, Some(1));
        for way in [&link.send, &link.receive] {
            way.set(Rules { loss: 1.0, ..Rules::default() }, None);
            assert_eq!(link.carry_transfer(async { 2 }).await, Some(2));
            let cutting = async { way.set(cut, None) };
            let (broken, ()) = tokio::join!(link.carry_transfer(std::future::pending::<()>()), cutting);
            assert_eq!(broken, None);
            assert_eq!(link.carry_transfer(async { 3 }).await, None);
            assert_eq!(way.counts().cut, 2);
            way.set(Rules::default(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_not_delayed() {
        let slow = way(Rules { delay: Duration::from_secs(5), ..Rules::default() });
        let began = Instant::now();
        slow.carry(Lane::Control).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        slow.carry(Lane::Bulk).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
