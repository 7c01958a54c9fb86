//! What the tests of this crate share: run a recipe, read tensors back.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

pub mod heads;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use skillweld_linalg::Threads;
use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, MergeError, Models, Plan, Report, RunOptions};
use skillweld_plugin_host::{HostHooks, Registry};
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_tensor::{Dtype, convert};

/// A control that nobody watches.
pub fn control(threads: usize) -> Control<'static> {
    Control {
        threads: Threads::new(NonZeroUsize::new(threads).unwrap()),
        hooks: HostHooks::SILENT,
        advance: &|_| {},
    }
}

/// Runs a recipe with relative paths starting at `folder`.
pub fn merge(folder: &Path, recipe: &str, out: &Path, threads: usize) -> Result<Report, MergeError> {
    merge_with(folder, recipe, out, threads, RunOptions::default())
}

/// [`merge`] with other options.
pub fn merge_with(
    folder: &Path,
    recipe: &str,
    out: &Path,
    threads: usize,
    options: RunOptions,
) -> Result<Report, MergeError> {
    let file = folder.join("recipe.yaml");
    std::fs::write(&file, recipe).unwrap();
    let recipe = Recipe::read(&file)?;
    let models = Models::open(&recipe)?;
    let registry = Registry::discover(&[])?;
    Plan::new(&recipe, &models, &registry, &control(threads))?.run(out, options, &control(threads))
}

/// Test data that comes with the crate.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// One tensor as f32.
pub fn tensor(checkpoint: &Checkpoint, key: &str) -> ArrayD<f32> {
    checkpoint.get(key).unwrap_or_else(|| panic!("no tensor {key}")).to_f32().unwrap()
}

/// Largest difference over largest magnitude.
pub fn relative_error(actual: &ArrayD<f32>, expected: &ArrayD<f32>) -> f32 {
    assert_eq!(actual.shape(), expected.shape());
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let error = actual.iter().zip(expected).fold(0.0f32, |m, (a, e)| m.max((a - e).abs()));
    if largest == 0.0 { error } else { error / largest }
}

/// Every file below a folder with its bytes, by relative path.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A checkpoint of f32 tensors in a folder of its own.
pub fn checkpoint(root: &Path, name: &str, tensors: &[(&str, &[usize], &[f32])]) -> PathBuf {
    let dir = root.join(name);
    std::fs::create_dir(&dir).unwrap();
    let specs = tensors.iter().map(|(name, shape, _)| TensorSpec {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    });
    let writer = SafetensorsWriter::create(&dir, "model", specs.collect(), &BTreeMap::new(), None).unwrap();
    for (index, (_, _, values)) in tensors.iter().enumerate() {
        let mut bytes = vec![0; values.len() * 4];
        convert::encode(Dtype::F32, values, &mut bytes).unwrap();
        writer.write_at(index, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
    dir
}
