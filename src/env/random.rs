//! All randomness goes through [`rng`], so that one seed replays a whole simulation.

use std::cell::RefCell;
use std::convert::Infallible;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng, TryRng};

thread_local! {
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// Makes this thread's randomness a function of `seed`; `None` goes back to the
/// operating system's. Only simulations call it.
pub fn seed(seed: Option<u64>) {
    SEEDED.with_borrow_mut(|rng| *rng = seed.map(SmallRng::seed_from_u64));
}

/// This thread's source of randomness.
pub fn rng() -> NodeRng {
    NodeRng
}

/// A zero-sized handle on the thread's generator.
#[derive(Clone, Copy, Debug)]
pub struct NodeRng;

impl NodeRng {
    fn with<T>(f: impl FnOnce(&mut dyn Rng) -> T) -> T {
        SEEDED.with_borrow_mut(|seeded| match seeded {
            Some(rng) => f(rng),
            None => f(&mut rand::rng()),
        })
    }
}

impl TryRng for NodeRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(Self::with(|rng| rng.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(Self::with(|rng| rng.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        Self::with(|rng| rng.fill_bytes(bytes));
        Ok(())
    }
}
