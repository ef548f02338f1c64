//! How many client requests are handled at once. Beyond that they are refused at once,
//! which costs little, instead of queueing for an answer that comes too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::metrics::Metrics;

/// A full line of requests is gone within about this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub struct Admission {
    inflight: AtomicUsize,
    max: usize,
    metrics: Arc<Metrics>,
}

/// A place in the limit, given back when dropped.
pub struct Permit<'a>(&'a Admission);

impl Admission {
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self { inflight: AtomicUsize::new(0), max, metrics }
    }

    pub fn enter(&self) -> Result<Permit<'_>> {
        let others = self.inflight.fetch_add(1, Ordering::Relaxed);
        // Made before the check, so that a refusal gives its place back, too.
        let permit = Permit(self);
        self.metrics.requests_inflight.inc();
        if others < self.max {
            return Ok(permit);
        }
        self.metrics.refuse("inflight");
        let why = format!("{} requests are being handled", self.max);
        Err(Error::Overloaded { why, retry_after: RETRY_AFTER })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.requests_inflight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_request_ends() {
        let admission = Admission::new(2, Arc::default());
        let first = admission.enter();
        let _second = admission.enter();
        for _ in 0..3 {
            assert!(matches!(admission.enter().err(), Some(Error::Overloaded { .. })));
        }
        drop(first);
        assert!(admission.enter().is_ok());
    }
}
