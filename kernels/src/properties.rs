//! What must hold of every kernel, on any target: the same values as its twin on the CPU, for random shapes and numbers.

mod activation;
mod attention;
mod blocks;
mod copies;
mod expert;
mod gated_attention;
mod gemm;
mod low_rank;
mod masked_apply;
mod masks;
mod merge;
mod norm;
mod plugins;
mod precise_trunk;
mod random;
mod rope;
mod router;
mod rows;
mod threshold;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use skillweld_gpu::{Device, Target};

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
    let mut all = Vec::new();
    all.extend(masked_apply::properties());
    all.extend(masks::properties());
    all.extend(threshold::properties());
    all.extend(merge::properties());
    all.extend(blocks::properties());
    all.extend(plugins::properties());
    all.extend(gemm::properties());
    all.extend(low_rank::properties());
    all.extend(gated_attention::properties());
    all.extend(expert::properties());
    all.extend(norm::properties());
    all.extend(rope::properties());
    all.extend(activation::properties());
    all.extend(copies::properties());
    all.extend(attention::properties());
    all.extend(precise_trunk::properties());
    all.extend(router::properties());
    all
}

/// Properties of much work: too slow under emulation to be tried again without every barrier.
pub fn slow<T: Target>() -> Vec<Property<T>> {
    let mut slow = expert::slow_properties();
    slow.extend(threshold::slow_properties());
    slow
}

/// What holds of libraries that only a GPU has, and of sizes that only a GPU is fast enough for.
pub fn of_devices() -> Vec<Property<Device>> {
    let mut all = gemm::of_devices();
    all.extend(expert::of_devices());
    all
}

/// A runner of `cases` cases that are the same for the same seed.
pub fn runner(cases: u32, seed: u64) -> TestRunner {
    runner_with(cases, seed, 64)
}

/// The same for who wants to know whether a property fails, and not how: nothing is made smaller.
pub fn hasty_runner(cases: u32, seed: u64) -> TestRunner {
    runner_with(cases, seed, 0)
}

fn runner_with(cases: u32, seed: u64, max_shrink_iters: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Turns what a target refuses into a failed case.
fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
