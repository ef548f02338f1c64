//! What is measured beside the answers: latencies, and what processes cost.

pub mod process;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// Of latencies: three digits are exact, which keeps a histogram small.
const SIGNIFICANT_DIGITS: u8 = 3;
/// One minute, in microseconds. Whatever takes longer counts as that.
const LONGEST_US: u64 = 60_000_000;

/// Of latencies in microseconds. Its bounds are fixed: it never grows in a measurement.
pub fn latencies() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_US, SIGNIFICANT_DIGITS).context("a histogram")
}
