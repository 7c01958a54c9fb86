//! What the tests of this crate share: where data lies, how it is read back, how results are compared.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test, a skip must be seen")]

use std::path::{Path, PathBuf};

use ndarray::{Array3, ArrayD, ArrayViewD};
use skillweld_store::Checkpoint;

/// Test data that comes with the crate.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The fixtures made by the official implementations, which lie beside the project where it is developed.
pub fn fixture(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name);
    if !path.is_dir() {
        println!("skipped: no fixture {name} beside the project");
    }
    path.is_dir().then_some(path)
}

/// A stored image, u8 height × width × 3.
pub fn stored_image(checkpoint: &Checkpoint, key: &str) -> Array3<u8> {
    let view = checkpoint.get(key).unwrap_or_else(|| panic!("no tensor {key}"));
    let [height, width, channels] = *view.shape() else { panic!("{key} is no image: {:?}", view.shape()) };
    Array3::from_shape_vec((height, width, channels), view.bytes().to_vec()).unwrap()
}

/// A stored tensor of floats.
pub fn tensor(checkpoint: &Checkpoint, key: &str) -> ArrayD<f32> {
    checkpoint.get(key).unwrap_or_else(|| panic!("no tensor {key}")).to_f32().unwrap()
}

/// The largest difference, relative to the largest magnitude expected, is at most `tolerance`.
#[track_caller]
pub fn assert_close(
    what: &str,
    actual: &ArrayViewD<'_, f32>,
    expected: &ArrayViewD<'_, f32>,
    tolerance: f32,
) {
    assert_eq!(actual.len(), expected.len(), "{what}: {:?} and {:?}", actual.shape(), expected.shape());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let differences = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    let worst = differences.fold(0f32, |worst, d| if d > worst || d.is_nan() { d } else { worst });
    println!("{what}: off by {:.1e} of {largest:.3}", worst / largest);
    assert!(worst <= tolerance * largest, "{what}: off by {worst}, where the largest is {largest}");
}

/// Pixels that differ from TensorFlow's.
#[track_caller]
pub fn assert_same_pixels(what: &str, actual: &Array3<u8>, expected: &Array3<u8>) {
    assert_eq!(actual.dim(), expected.dim(), "{what}");
    let differing = actual.iter().zip(expected).filter(|(a, e)| a != e).count();
    let largest = actual.iter().zip(expected).map(|(a, e)| a.abs_diff(*e)).max();
    assert_eq!(differing, 0, "{what}: {differing} of {} values differ, by up to {largest:?}", actual.len());
}
