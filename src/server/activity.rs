//! What one connection is doing, and by when it must have done it.
//!
//! The stream and the service report (bytes heard, request begun, reply gone); the
//! connection's task asks for the deadline. One place covers the first byte, a request
//! head, the pause between requests and a reply nobody reads, over HTTP/1.1 and HTTP/2
//! alike, without a timer to set up and tear down for every request. hyper's own header
//! timer would also end the pause between two requests, which may be much longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::limits::Limits;

/// Why a connection was cut off. The words are the metric's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Silent,
    SlowHead,
    Idle,
    SlowRequest,
    Unread,
}

impl Cut {
    pub fn as_str(self) -> &'static str {
        match self {
            Cut::Silent => "silent_connection",
            Cut::SlowHead => "slow_head",
            Cut::Idle => "idle_connection",
            Cut::SlowRequest => "slow_request",
            Cut::Unread => "unread_stream",
        }
    }

    /// An idle connection's end is housekeeping; the others are refusals.
    pub fn is_refusal(self) -> bool {
        self != Cut::Idle
    }
}

/// What a request means for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's: it has a deadline, and a stopping server waits for it.
    Request,
    /// A peer's question with one answer: it has a deadline, too.
    Call,
    /// A peer's stream: it may last for ever.
    Stream,
    /// A client's stream, or a call that waits for others: it may last for ever, too, as
    /// long as the client reads what it is told. A stopping server does not wait for it.
    Endless,
}

/// Since when an endless reply has been lying there unread; `None` while it is read, or
/// has nothing to say.
#[derive(Clone, Debug, Default)]
struct Unread(Arc<Mutex<Option<Instant>>>);

/// Clients' requests that have begun and whose replies are not gone, over all connections.
/// Drain waits for it to reach zero.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicUsize>);

impl Busy {
    pub fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// One connection's state, shared by its stream, its service and its task.
pub struct Activity {
    state: Mutex<State>,
    busy: Busy,
}

struct State {
    heard: bool,
    /// When the client last sent something, or connected.
    heard_at: Instant,
    http2: bool,
    /// HTTP/1.1 only: when the head that is being read began.
    head_since: Option<Instant>,
    /// Requests and calls under way, oldest first.
    open: Vec<Open>,
    next_number: u64,
    /// Peers' streams under way. They may be endless, so they have no deadline here.
    streams: usize,
    /// Clients' endless replies under way.
    endless: Vec<(u64, Unread)>,
    /// A peer has spoken here.
    peer: bool,
    /// When the last request, call or stream ended, the others having ended before.
    idle_since: Instant,
}

struct Open {
    number: u64,
    began: Instant,
    kind: Kind,
}

impl Activity {
    pub fn new(busy: Busy) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(Instant::now())), busy })
    }

    /// The client sent something.
    pub fn heard(&self) {
        self.state.lock().heard(Instant::now());
    }

    /// When it last did, or connected.
    pub fn heard_at(&self) -> Instant {
        self.state.lock().heard_at
    }

    /// The client began as HTTP/2 does.
    pub fn speaks_http2(&self) {
        self.state.lock().speaks_http2();
    }

    /// A request's head is complete. It ends when the guard is dropped.
    pub fn begin(self: &Arc<Self>, kind: Kind) -> Guard {
        let unread = (kind == Kind::Endless).then(Unread::default);
        let mut state = self.state.lock();
        // HTTP/2 hands out requests as soon as they are heard.
        let now = if state.http2 { state.heard_at } else { Instant::now() };
        let number = state.begin(kind, unread.as_ref(), now);
        drop(state);
        if kind == Kind::Request {
            self.busy.0.fetch_add(1, Ordering::AcqRel);
        }
        Guard { activity: self.clone(), number, kind, unread }
    }

    /// True when nothing but peers, whose streams may never end, keeps the connection.
    pub fn only_peers(&self) -> bool {
        let state = self.state.lock();
        let clients = state.open.iter().any(|open| open.kind == Kind::Request) || !state.endless.is_empty();
        !clients && (state.streams > 0 || !state.open.is_empty())
    }

    /// True when the connection began as HTTP/2 does.
    pub fn is_http2(&self) -> bool {
        self.state.lock().http2
    }

    /// True once a peer has spoken on this connection.
    pub fn is_peer(&self) -> bool {
        self.state.lock().peer
    }

    /// Cut off now and why, or when to ask again. In a crowd idle connections make room.
    pub fn check(&self, limits: &Limits, crowded: bool) -> Result<Instant, Cut> {
        self.state.lock().check(Instant::now(), limits, crowded)
    }
}

/// A pure function of what happened when.
impl State {
    fn new(now: Instant) -> Self {
        let (open, next_number) = (Vec::new(), 0);
        Self {
            heard: false,
            heard_at: now,
            http2: false,
            head_since: None,
            open,
            next_number,
            streams: 0,
            endless: Vec::new(),
            peer: false,
            idle_since: now,
        }
    }

    fn heard(&mut self, now: Instant) {
        self.heard = true;
        self.heard_at = now;
        if !self.http2 && self.open.is_empty() {
            self.head_since.get_or_insert(now);
        }
    }

    fn speaks_http2(&mut self) {
        self.http2 = true;
        self.head_since = None;
    }

    /// The request's number, `None` for a peer's stream.
    fn begin(&mut self, kind: Kind, unread: Option<&Unread>, now: Instant) -> Option<u64> {
        self.head_since = None;
        self.peer |= matches!(kind, Kind::Call | Kind::Stream);
        let number = self.next_number;
        self.next_number += 1;
        match kind {
            Kind::Stream => {
                self.streams += 1;
                return None;
            }
            Kind::Endless => self.endless.extend(unread.map(|unread| (number, unread.clone()))),
            Kind::Request | Kind::Call => self.open.push(Open { number, began: now, kind }),
        }
        Some(number)
    }

    fn end(&mut self, number: Option<u64>, now: impl FnOnce() -> Instant) {
        match number {
            Some(number) => {
                self.open.retain(|open| open.number != number);
                self.endless.retain(|(endless, _)| *endless != number);
            }
            None => self.streams -= 1,
        }
        if self.open.is_empty() && self.endless.is_empty() && self.streams == 0 {
            self.idle_since = now();
        }
    }

    /// By when what goes on now must have ended; `None`: it may last.
    fn deadline(&self, limits: &Limits, crowded: bool) -> Option<(Instant, Cut)> {
        let slow = self.open.first().map(|oldest| (oldest.began + limits.request_life, Cut::SlowRequest));
        let unread = self.endless.iter().filter_map(|(_, unread)| *unread.0.lock()).min();
        let unread = unread.map(|since| (since + limits.unread_timeout, Cut::Unread));
        if let Some(first) = slow.into_iter().chain(unread).min_by_key(|(at, _)| *at) {
            return Some(first);
        }
        if self.streams > 0 || !self.endless.is_empty() {
            return None;
        }
        if !self.heard {
            return Some((self.heard_at + limits.first_byte_timeout, Cut::Silent));
        }
        if let Some(since) = self.head_since {
            return Some((since + limits.header_read_timeout, Cut::SlowHead));
        }
        let idle = if crowded && !self.peer { limits.crowded_idle_timeout } else { limits.idle_timeout };
        Some((self.idle_since + idle, Cut::Idle))
    }

    fn check(&self, now: Instant, limits: &Limits, crowded: bool) -> Result<Instant, Cut> {
        // A deadline may move closer (a head begins), so never sleep for long.
        let soon = now + limits.check_interval();
        match self.deadline(limits, crowded) {
            Some((at, cut)) if at <= now => Err(cut),
            Some((at, _)) => Ok(at.min(soon)),
            None => Ok(soon),
        }
    }
}

/// One request or call under way.
pub struct Guard {
    activity: Arc<Activity>,
    /// `None` for a peer's stream.
    number: Option<u64>,
    kind: Kind,
    /// Of an endless reply alone.
    unread: Option<Unread>,
}

impl Guard {
    /// The client has room for more of the reply: it read what there was.
    pub fn asked_for_more(&self) {
        if let Some(unread) = &self.unread {
            *unread.0.lock() = None;
        }
    }

    /// A part of the reply is on its way to the client.
    pub fn sent(&self) {
        if let Some(unread) = &self.unread {
            *unread.0.lock() = Some(Instant::now());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.activity.state.lock().end(self.number, Instant::now);
        if self.kind == Kind::Request {
            self.activity.busy.0.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How long the state may stay as it is, and what happens then: follows `check` as a
    /// connection does, without waiting.
    fn cut_after(state: &State, start: Instant) -> (Duration, Cut) {
        let mut now = start;
        loop {
            match state.check(now, &Limits::default(), false) {
                Ok(again) => now = again,
                Err(cut) => return (now - start, cut),
            }
        }
    }

    fn begin(state: &mut State, kind: Kind, now: Instant) -> Option<u64> {
        state.begin(kind, Some(&Unread::default()), now)
    }

    #[test]
    fn each_phase_has_its_own_deadline() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut state = State::new(now);
        assert_eq!(cut_after(&state, now), (limits.first_byte_timeout, Cut::Silent));
        state.heard(now);
        assert_eq!(cut_after(&state, now), (limits.header_read_timeout, Cut::SlowHead));
        let number = begin(&mut state, Kind::Request, now);
        assert_eq!(cut_after(&state, now), (limits.request_life, Cut::SlowRequest));
        state.end(number, || now);
        assert_eq!(cut_after(&state, now), (limits.idle_timeout, Cut::Idle));
        state.heard(now);
        assert_eq!(cut_after(&state, now), (limits.header_read_timeout, Cut::SlowHead));
    }

    #[test]
    fn trickled_bytes_do_not_put_off_the_head_deadline() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut state = State::new(now);
        state.heard(now);
        state.heard(now + limits.header_read_timeout / 2);
        assert_eq!(state.check(now + limits.header_read_timeout, &limits, false), Err(Cut::SlowHead));
    }

    #[test]
    fn a_stuck_request_is_not_hidden_by_lively_ones() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut state = State::new(now);
        begin(&mut state, Kind::Request, now);
        for second in 1..limits.request_life.as_secs() {
            let later = now + Duration::from_secs(second);
            let lively = begin(&mut state, Kind::Request, later);
            state.end(lively, || later);
            assert!(state.check(later, &limits, false).is_ok());
        }
        assert_eq!(state.check(now + limits.request_life, &limits, false), Err(Cut::SlowRequest));
    }

    #[test]
    fn in_a_crowd_idle_clients_make_room_and_peers_stay() {
        let limits = Limits::default();
        let now = Instant::now();
        let ended = |kind| {
            let mut state = State::new(now);
            state.heard(now);
            state.speaks_http2();
            let number = begin(&mut state, kind, now);
            state.end(number, || now);
            state
        };
        let soon = now + limits.crowded_idle_timeout;
        assert_eq!(ended(Kind::Request).check(soon, &limits, true), Err(Cut::Idle));
        assert_eq!(ended(Kind::Endless).check(soon, &limits, true), Err(Cut::Idle));
        assert!(ended(Kind::Request).check(soon, &limits, false).is_ok());
        assert!(ended(Kind::Call).check(soon, &limits, true).is_ok());
    }

    #[test]
    fn a_peers_question_has_a_deadline_and_its_stream_has_none() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut state = State::new(now);
        begin(&mut state, Kind::Stream, now);
        assert!(state.check(now + limits.request_life * 10, &limits, false).is_ok());
        begin(&mut state, Kind::Call, now);
        assert_eq!(state.check(now + limits.request_life, &limits, false), Err(Cut::SlowRequest));
    }

    #[test]
    fn streams_may_last_and_do_not_count_as_busy() {
        let limits = Limits::default();
        let busy = Busy::default();
        let activity = Activity::new(busy.clone());
        let call = activity.begin(Kind::Stream);
        let later = Instant::now() + limits.request_life * 10;
        assert!(activity.state.lock().check(later, &limits, false).is_ok());
        assert!(busy.is_idle() && activity.only_peers());
        let request = activity.begin(Kind::Request);
        assert!(!busy.is_idle() && !activity.only_peers());
        drop((request, call));
        assert!(busy.is_idle());
    }

    #[test]
    fn an_endless_reply_may_last_while_it_is_read() {
        let limits = Limits::default();
        let busy = Busy::default();
        let activity = Activity::new(busy.clone());
        let watch = activity.begin(Kind::Endless);
        let other = activity.begin(Kind::Endless);
        assert!(busy.is_idle() && !activity.only_peers() && !activity.is_peer());
        let check = |after: Duration| activity.state.lock().check(Instant::now() + after, &limits, true);
        assert!(check(limits.request_life * 10).is_ok());
        watch.sent();
        other.sent();
        other.asked_for_more();
        assert!(check(limits.unread_timeout / 2).is_ok());
        assert_eq!(check(limits.unread_timeout), Err(Cut::Unread));
        watch.asked_for_more();
        assert!(check(limits.unread_timeout).is_ok());
        // A request beside it keeps its own deadline.
        let _request = activity.begin(Kind::Request);
        assert_eq!(check(limits.request_life), Err(Cut::SlowRequest));
    }

    #[test]
    fn an_endless_reply_leaves_nothing_behind() {
        let limits = Limits::default();
        let activity = Activity::new(Busy::default());
        activity.heard();
        activity.speaks_http2();
        let watch = activity.begin(Kind::Endless);
        watch.sent();
        drop(watch);
        let later = Instant::now() + limits.idle_timeout;
        assert_eq!(activity.state.lock().check(later, &limits, false), Err(Cut::Idle));
    }
}
