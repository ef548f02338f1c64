//! Random bytes for functions that take what others send, or what a disk kept.
//!
//! A target is a function of bytes that panics when it finds something wrong. In the tests
//! each gets a few hundred inputs of one seed; `just fuzz TARGET` goes on for minutes. What
//! it found is a regression test beside the target from then on.

use std::cell::Cell;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::time::Instant;

/// Inputs in a test of continuous integration.
const CASES: u32 = 300;
/// Between two looks at the clock.
const BATCH: u32 = 1_000;
/// Bytes that one step of [`mutate`] reads.
const STEP_BYTES: usize = 6;
/// Bytes that one step moves or wipes at once: a small frame.
const BLOCK_BYTES: usize = 64;

/// Runs a target on random inputs of up to so many bytes, or on the one in
/// `BELLWETHER_FUZZ_INPUT`, for `BELLWETHER_FUZZ_SECONDS` or a few hundred inputs.
pub fn explore(target: &str, max_bytes: usize, run: impl Fn(&[u8])) {
    if let Ok(input) = std::env::var("BELLWETHER_FUZZ_INPUT") {
        return run(&from_hex(&input));
    }
    let seed = number("BELLWETHER_SEED").unwrap_or(1);
    let seconds = number("BELLWETHER_FUZZ_SECONDS");
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or_default());
    let cases = if seconds.is_some() { BATCH } else { CASES };
    let inputs = Cell::new(0u64);
    for batch in 0.. {
        let found = runner(seed, batch, cases).run(&vec(any::<u8>(), 0..max_bytes), |input| {
            inputs.set(inputs.get() + 1);
            run(&input);
            Ok::<(), TestCaseError>(())
        });
        if let Err(TestError::Fail(why, input)) = found {
            let input: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("{why}\nreproduce: BELLWETHER_FUZZ_INPUT={input} cargo test --lib {target}");
        }
        if Instant::now() >= until {
            println!("{target}: {} inputs of seed {seed}, nothing found", inputs.get());
            return;
        }
    }
}

/// A runner ends after its cases, so each batch has one of its own.
fn runner(seed: u64, batch: u64, cases: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&batch.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config { cases, failure_persistence: None, ..Config::default() }, rng)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |digit: &u8| (*digit as char).to_digit(16).expect("hexadecimal digits") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}

/// Damages `image` as `script` says: bits, bytes and blocks, cuts and insertions.
pub fn mutate(image: &mut Vec<u8>, script: &[u8]) {
    for step in script.chunks_exact(STEP_BYTES) {
        if image.is_empty() {
            return;
        }
        let place = u32::from_le_bytes([step[1], step[2], step[3], step[4]]) as usize;
        let (at, value) = (place % image.len(), step[5]);
        let end = (at + BLOCK_BYTES).min(image.len());
        match step[0] % 8 {
            0..=2 => image[at] ^= 1 << (value % 8),
            3 => image[at] = value,
            4 => image.truncate(at),
            5 => image[at..end].fill(value & 1),
            6 => {
                let from = (place / image.len()) % image.len();
                let block = image[from..(from + BLOCK_BYTES).min(image.len())].to_vec();
                image.splice(at..at, block);
            }
            _ => drop(image.drain(at..(at + usize::from(value)).min(image.len()))),
        }
    }
}

/// Takes pieces of text from `table` as the bytes say; 255 stands for a byte of their own.
pub fn text_of(pieces: &[&str], script: &[u8]) -> String {
    let mut text = String::new();
    let mut script = script.iter();
    while let Some(choice) = script.next() {
        match usize::from(*choice) {
            255 => text.push(char::from(script.next().copied().unwrap_or(b'x'))),
            choice => text.push_str(pieces[choice % pieces.len()]),
        }
    }
    text
}

#[test]
fn a_finding_comes_with_the_line_that_reproduces_it() {
    let found =
        std::panic::catch_unwind(|| explore("none", 64, |input| assert!(!input.contains(&7), "a seven")));
    let why = found.expect_err("some input has a seven");
    let why = why.downcast_ref::<String>().expect("a message");
    // The shortest such input.
    assert!(why.contains("BELLWETHER_FUZZ_INPUT=07 cargo test"), "{why}");
}
