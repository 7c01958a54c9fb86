//! What the benches share. Each group streams blocks out of buffers larger than any cache, as a merge does, and has a
//! `memcpy` row that copies the same bytes in the same blocks: that row is what 1.0 means on this machine.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::hint::black_box;
use std::path::PathBuf;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use skillweld_plugin_host::Registry;
use skillweld_synth::Noise;

/// Elements a block, as the executor cuts tensors.
pub use skillweld_merged::layout::BLOCK;

/// Elements a buffer: 256 MiB of f32, and even in 8-bit types more than a processor's cache.
pub const LEN: usize = 1 << 26;

/// `len` random weights, never zeros: pages must be real and branches unpredictable.
pub fn random(name: &str, len: usize) -> Vec<f32> {
    Noise::new(0, name).take(len, 0.02)
}

/// Sets the group's throughput to the bytes of `inputs` and adds the row that copies them, `block` values at a time.
pub fn memcpy_row<T: Copy + Default>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    inputs: &[&[T]],
    block: usize,
) {
    let bytes: usize = inputs.iter().map(|input| size_of_val(*input)).sum();
    group.throughput(Throughput::Bytes(bytes as u64));
    let mut copy = vec![T::default(); block];
    group.bench_function("memcpy", |bencher| {
        bencher.iter(|| {
            for source in inputs.iter().flat_map(|input| input.chunks(block)) {
                copy[..source.len()].copy_from_slice(source);
                black_box(&mut copy);
            }
        });
    });
}

/// The plugins that `cargo xtask plugins --release` built, through the same boundary as in a merge, and before them those of
/// `$SKILLWELD_PLUGINS`.
///
/// # Panics
/// When there are none.
pub fn plugins() -> Registry {
    let bench = std::env::current_exe().expect("a bench knows where it lies");
    let release = bench.ancestors().nth(2).expect("benches lie in target/release/deps");
    let named = std::env::var_os("SKILLWELD_PLUGINS").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
    folders.push(release.to_owned());
    let registry = Registry::discover_in(&[], &folders).expect("an unforced search path cannot fail");
    assert!(
        registry.iter().len() > 0,
        "no plugins in {}: run `cargo xtask plugins --release`",
        release.display()
    );
    registry
}
