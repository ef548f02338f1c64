//! Keys and values: which key comes next, and how both look.

use std::cell::Cell;
use std::fmt::Write;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution as _, Zipf};
use serde::Serialize;

/// As in YCSB: of 100,000 keys, the first gets about a twelfth of all requests.
const ZIPF_EXPONENT: f64 = 0.99;
/// Different values, so that nothing gains from equal ones; few, so that they stay in the
/// processor's cache.
const VALUES: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Each key as often as any other
    #[default]
    Uniform,
    /// Few keys often, most of them hardly ever
    Zipf,
    /// One after the other, all clients together, then from the start again
    Sequential,
}

/// Chooses one client's keys.
pub struct Keys {
    count: u64,
    how: How,
}

enum How {
    Uniform,
    Zipf(Zipf<f64>),
    /// The next one, for all clients.
    Sequential(Rc<Cell<u64>>),
}

impl Keys {
    /// `next` is what all clients of a load share.
    pub fn new(distribution: Distribution, count: u64, next: &Rc<Cell<u64>>) -> Result<Self> {
        let how = match distribution {
            Distribution::Uniform => How::Uniform,
            Distribution::Zipf => How::Zipf(Zipf::new(count as f64, ZIPF_EXPONENT).context("no keys")?),
            Distribution::Sequential => How::Sequential(next.clone()),
        };
        Ok(Self { count, how })
    }

    /// The number of a key.
    pub fn draw(&self, rng: &mut SmallRng) -> u64 {
        match &self.how {
            How::Uniform => rng.random_range(0..self.count),
            // Ranks begin with 1.
            How::Zipf(zipf) => (zipf.sample(rng) as u64 - 1).min(self.count - 1),
            How::Sequential(next) => next.replace((next.get() + 1) % self.count),
        }
    }
}

/// What all keys begin with.
pub const KEY_PREFIX: &str = "k";
/// Of a number, with zeros before it.
const DIGITS: usize = 9;
pub const KEY_BYTES: usize = KEY_PREFIX.len() + DIGITS;

/// Writes the key with this number; all have the same length.
pub fn write_key(into: &mut String, number: u64) {
    into.clear();
    // Writing into a string can't fail.
    let _ = write!(into, "{KEY_PREFIX}{number:0DIGITS$}");
}

/// Values of exactly this many bytes.
pub struct Values(Vec<Bytes>);

impl Values {
    /// Each a JSON string: two bytes are its quotes.
    pub fn new(bytes: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut letters = || -> String {
            (0..bytes.saturating_sub(2)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
        };
        Self((0..VALUES).map(|_| Bytes::from(format!("\"{}\"", letters()))).collect())
    }

    pub fn get(&self, number: u64) -> &Bytes {
        &self.0[number as usize % VALUES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(distribution: Distribution) -> Vec<u64> {
        let keys = Keys::new(distribution, 100, &Rc::default()).expect("keys");
        let mut rng = SmallRng::seed_from_u64(1);
        (0..10_000).map(|_| keys.draw(&mut rng)).collect()
    }

    fn often(draws: &[u64], key: u64) -> usize {
        draws.iter().filter(|drawn| **drawn == key).count()
    }

    #[test]
    fn distributions_are_what_they_are_called() {
        let uniform = draws(Distribution::Uniform);
        assert!(uniform.iter().all(|key| *key < 100));
        assert!((50..200).contains(&often(&uniform, 0)) && (50..200).contains(&often(&uniform, 99)));
        let zipf = draws(Distribution::Zipf);
        assert!(zipf.iter().all(|key| *key < 100));
        assert!(often(&zipf, 0) > 1000 && often(&zipf, 99) < 100);
        assert_eq!(draws(Distribution::Sequential)[98..102], [98, 99, 0, 1]);
    }

    #[test]
    fn keys_have_one_length() {
        let mut key = String::new();
        write_key(&mut key, 7);
        assert_eq!((key.as_str(), key.len()), ("k000000007", KEY_BYTES));
    }

    #[test]
    fn values_are_json_of_the_size_asked_for() {
        let values = Values::new(256, 1);
        for number in 0..VALUES as u64 {
            assert_eq!(values.get(number).len(), 256);
            serde_json::from_slice::<String>(values.get(number)).expect("JSON");
        }
    }
}
