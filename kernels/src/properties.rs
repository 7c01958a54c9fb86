//! What must hold of every kernel, on any target: the same values as its twin on the CPU, for random shapes and numbers.

mod blocks;
mod gemm;
mod masked_apply;
mod masks;
mod plugins;
mod random;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use skillweld_gpu::Target;

pub use random::{bytes_of, floats_of};

/// A property of one kernel.
pub struct Property<T> {
    /// Its name, as tests list it: kernel, then what holds.
    pub name: &'static str,
    /// Fails with a counterexample.
    pub check: fn(&T, &mut TestRunner) -> Result<(), String>,
}

/// Every property, for one kind of target.
pub fn all<T: Target>() -> Vec<Property<T>> {
    [
        masked_apply::properties(),
        masks::properties(),
        gemm::properties(),
        blocks::properties(),
        plugins::properties(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A runner of `cases` cases that are the same for the same seed.
pub fn runner(cases: u32, seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Turns what a target refuses into a failed case.
fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
