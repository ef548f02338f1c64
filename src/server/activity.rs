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

/// How HTTP/2 begins; no HTTP/1 method does.
const H2_PREFACE_START: &[u8] = b"PRI";

/// Why a connection was cut off. The words are the metric's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Silent,
    SlowHead,
    Idle,
    SlowRequest,
}

impl Cut {
    pub fn as_str(self) -> &'static str {
        match self {
            Cut::Silent => "silent_connection",
            Cut::SlowHead => "slow_head",
            Cut::Idle => "idle_connection",
            Cut::SlowRequest => "slow_request",
        }
    }

    /// An idle connection's end is housekeeping; the others are refusals.
    pub fn is_refusal(self) -> bool {
        self != Cut::Idle
    }
}

/// Requests that have begun and whose replies are not gone, over all connections.
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
    opened: Instant,
    heard: bool,
    h2: bool,
    /// HTTP/1.1 only: when the head that is being read began.
    head_since: Option<Instant>,
    /// Requests under way as (number, begun), oldest first.
    open: Vec<(u64, Instant)>,
    next_number: u64,
    /// gRPC calls under way. They may be endless streams, so they have no deadline here.
    calls: usize,
    /// When the last request or call ended.
    idle_since: Instant,
}

impl Activity {
    pub fn new(now: Instant, busy: Busy) -> Arc<Self> {
        let state = State {
            opened: now,
            heard: false,
            h2: false,
            head_since: None,
            open: Vec::new(),
            next_number: 0,
            calls: 0,
            idle_since: now,
        };
        Arc::new(Self { state: Mutex::new(state), busy })
    }

    /// The client sent these bytes.
    pub fn heard(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if !state.heard {
            state.heard = true;
            state.h2 = bytes.starts_with(H2_PREFACE_START);
        }
        if !state.h2 && state.open.is_empty() && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// A request's head is complete. It ends when the guard is dropped.
    pub fn begin(self: &Arc<Self>, version: http::Version, grpc: bool) -> Guard {
        let mut state = self.state.lock();
        state.head_since = None;
        state.h2 = version == http::Version::HTTP_2;
        let number = state.next_number;
        state.next_number += 1;
        if grpc {
            state.calls += 1;
        } else {
            state.open.push((number, Instant::now()));
            self.busy.0.fetch_add(1, Ordering::AcqRel);
        }
        Guard { activity: self.clone(), number: (!grpc).then_some(number) }
    }

    fn end(&self, number: Option<u64>) {
        let mut state = self.state.lock();
        state.idle_since = Instant::now();
        let Some(number) = number else {
            state.calls -= 1;
            return;
        };
        state.open.retain(|(open, _)| *open != number);
        self.busy.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// True when nothing but gRPC calls, which may never end, keeps the connection.
    pub fn only_calls(&self) -> bool {
        let state = self.state.lock();
        state.open.is_empty() && state.calls > 0
    }

    /// By when what goes on now must have ended; `None`: it may last.
    fn deadline(&self, limits: &Limits) -> Option<(Instant, Cut)> {
        let state = self.state.lock();
        if let Some((_, since)) = state.open.first() {
            return Some((*since + limits.request_life, Cut::SlowRequest));
        }
        if state.calls > 0 {
            return None;
        }
        if !state.heard {
            return Some((state.opened + limits.first_byte_timeout, Cut::Silent));
        }
        if let Some(since) = state.head_since {
            return Some((since + limits.header_read_timeout, Cut::SlowHead));
        }
        Some((state.idle_since + limits.idle_timeout, Cut::Idle))
    }

    /// Cut off now and why, or when to ask again.
    pub fn check(&self, now: Instant, limits: &Limits) -> Result<Instant, Cut> {
        // A deadline may move closer (a head begins), so never sleep for long.
        let soon = now + limits.check_interval();
        match self.deadline(limits) {
            Some((at, cut)) if at <= now => Err(cut),
            Some((at, _)) => Ok(at.min(soon)),
            None => Ok(soon),
        }
    }
}

/// One request or call under way.
pub struct Guard {
    activity: Arc<Activity>,
    /// `None` for a gRPC call.
    number: Option<u64>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.activity.end(self.number);
    }
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    async fn cut_after(activity: &Activity, limits: &Limits) -> Cut {
        loop {
            match activity.check(Instant::now(), limits) {
                Ok(again) => tokio::time::sleep_until(again).await,
                Err(cut) => return cut,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_deadline() {
        let limits = Limits::default();
        let start = Instant::now();
        let activity = Activity::new(start, Busy::default());
        assert_eq!(cut_after(&activity, &limits).await, Cut::Silent);
        assert_eq!(start.elapsed(), limits.first_byte_timeout);

        activity.heard(b"GET /");
        let head = Instant::now();
        assert_eq!(cut_after(&activity, &limits).await, Cut::SlowHead);
        assert_eq!(head.elapsed(), limits.header_read_timeout);

        let begun = Instant::now();
        let guard = activity.begin(Version::HTTP_11, false);
        assert_eq!(cut_after(&activity, &limits).await, Cut::SlowRequest);
        assert_eq!(begun.elapsed(), limits.request_life);

        drop(guard);
        let ended = Instant::now();
        assert_eq!(cut_after(&activity, &limits).await, Cut::Idle);
        assert_eq!(ended.elapsed(), limits.idle_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn trickled_bytes_do_not_put_off_the_head_deadline() {
        let limits = Limits::default();
        let activity = Activity::new(Instant::now(), Busy::default());
        activity.heard(b"G");
        tokio::time::sleep(limits.header_read_timeout / 2).await;
        activity.heard(b"E");
        tokio::time::sleep(limits.header_read_timeout / 2).await;
        assert_eq!(activity.check(Instant::now(), &limits), Err(Cut::SlowHead));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_may_last_and_do_not_count_as_busy() {
        let limits = Limits::default();
        let busy = Busy::default();
        let activity = Activity::new(Instant::now(), busy.clone());
        activity.heard(b"PRI * HTTP/2.0");
        let call = activity.begin(Version::HTTP_2, true);
        tokio::time::sleep(limits.request_life * 10).await;
        assert!(activity.check(Instant::now(), &limits).is_ok());
        assert!(busy.is_idle() && activity.only_calls());
        let request = activity.begin(Version::HTTP_2, false);
        assert!(!busy.is_idle() && !activity.only_calls());
        drop((request, call));
        assert!(busy.is_idle());
    }
}
