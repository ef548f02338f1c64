//! What all clients of one load count into.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::load::Extent;
use crate::probe::latencies;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Warmup,
    Window,
    Over,
}

/// How an answered request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// A read that found nothing.
    Missing,
    /// A compare-and-swap that somebody else was faster than.
    Lost,
}

/// Leave to send one request.
#[derive(Clone, Copy)]
pub struct Ticket {
    in_window: bool,
}

pub struct Tally {
    phase: Cell<Phase>,
    /// Requests that may still begin in the window.
    left: Cell<u64>,
    /// Requests begun in the window that must end before it does; `None`: time ends it.
    outstanding: Cell<Option<u64>>,
    over: Notify,
    pub latencies: RefCell<Histogram<u64>>,
    pub operations: Cell<u64>,
    pub errors: Cell<u64>,
    pub missing: Cell<u64>,
    pub lost: Cell<u64>,
    /// Begun and not answered, warm-up included.
    pub under_way: Cell<u64>,
    pub first_error: RefCell<Option<String>>,
    /// When the window opened, or the last of its requests was answered as wanted since.
    answered: Cell<Option<Instant>>,
    longest_gap: Cell<Duration>,
}

impl Tally {
    pub fn new(extent: Extent) -> Result<Rc<Self>> {
        let (left, outstanding) = match extent {
            Extent::Time(_) => (u64::MAX, None),
            Extent::Requests(count) => (count, Some(count)),
        };
        Ok(Rc::new(Self {
            phase: Cell::new(Phase::Warmup),
            left: Cell::new(left),
            outstanding: Cell::new(outstanding),
            over: Notify::new(),
            latencies: RefCell::new(latencies()?),
            operations: Cell::default(),
            errors: Cell::default(),
            missing: Cell::default(),
            lost: Cell::default(),
            under_way: Cell::default(),
            first_error: RefCell::default(),
            answered: Cell::default(),
            longest_gap: Cell::default(),
        }))
    }

    pub fn open_window(&self) {
        self.answered.set(Some(Instant::now()));
        self.phase.set(Phase::Window);
    }

    pub fn close_window(&self) {
        self.note_answer(Instant::now());
        self.phase.set(Phase::Over);
    }

    /// The longest time in the window in which nothing was answered as wanted.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap.get()
    }

    fn note_answer(&self, now: Instant) {
        let gap = self.answered.replace(Some(now)).map(|last| now - last);
        self.longest_gap.set(self.longest_gap.get().max(gap.unwrap_or_default()));
    }

    pub fn is_open(&self) -> bool {
        self.phase.get() == Phase::Window
    }

    /// Returns when all requests of the window have ended; never, if time ends it.
    pub async fn all_ended(&self) {
        self.over.notified().await;
    }

    /// Of the requests that a window is for, how many are still to end.
    pub fn outstanding(&self) -> Option<u64> {
        self.outstanding.get()
    }

    /// `None` when no more requests are wanted.
    pub fn begin(&self) -> Option<Ticket> {
        let in_window = match self.phase.get() {
            Phase::Warmup => false,
            Phase::Window if self.left.get() > 0 => {
                self.left.set(self.left.get() - 1);
                true
            }
            Phase::Window | Phase::Over => return None,
        };
        bump(&self.under_way, 1);
        Some(Ticket { in_window })
    }

    /// Counts what ended, at `now`, inside the window; where requests end it, only those begun
    /// in it.
    pub fn end(&self, ticket: Ticket, since: Instant, now: Instant, answer: &Result<Answer>) {
        self.under_way.set(self.under_way.get() - 1);
        if !self.is_open() || (self.outstanding.get().is_some() && !ticket.in_window) {
            return;
        }
        match answer {
            Ok(Answer::Lost) => bump(&self.lost, 1),
            Ok(answer) => {
                bump(&self.operations, 1);
                bump(&self.missing, u64::from(*answer == Answer::Missing));
                self.record(since, now);
            }
            Err(error) => self.fail(error),
        }
        if let Some(outstanding) = self.outstanding.get() {
            self.outstanding.set(Some(outstanding - 1));
            if outstanding == 1 {
                self.over.notify_one();
            }
        }
    }

    pub fn record(&self, since: Instant, now: Instant) {
        self.note_answer(now);
        let took = now.saturating_duration_since(since).as_micros();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        self.latencies.borrow_mut().saturating_record(took.max(1));
    }

    /// Adds the errors of another.
    pub fn take_failures(&self, other: &Self) {
        bump(&self.errors, other.errors.get());
        let mut first = self.first_error.borrow_mut();
        *first = first.take().or_else(|| other.first_error.borrow().clone());
    }

    pub fn fail(&self, error: &anyhow::Error) {
        bump(&self.errors, 1);
        self.first_error.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
    }
}

pub fn bump(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}
