//! What the tests share: policies on the disk, and a run of one interpolation.
#![allow(dead_code, clippy::unwrap_used, reason = "included by tests, each of which uses its share")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use skillweld_linalg::Threads;
use skillweld_merge::Control;
use skillweld_plugin_host::Registry;
use skillweld_retain::{Alphas, Done, Interpolation, NewSkill, Pair, RetainError, Skill, State};
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_tensor::{Dtype, convert};

pub(crate) fn control(threads: usize) -> Control<'static> {
    Control { threads: Threads::new(NonZeroUsize::new(threads).unwrap()), ..Control::SILENT }
}

/// The plugins beside the tests, loaded once.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::discover(&[]).unwrap());
    &REGISTRY
}

/// Interpolates; gives what came of it.
pub(crate) fn retain(
    base: &Path,
    finetuned: &Path,
    interpolation: &Interpolation,
    out: &Path,
) -> Result<Done, RetainError> {
    let (registry, control) = (registry(), control(2));
    let pair = Pair::open(base, finetuned, interpolation)?;
    let step = pair.plan(registry, &control)?;
    step.run(out, false, &control)
}

pub(crate) fn linear(alpha: f64) -> Interpolation {
    Interpolation::linear(Alphas::all(alpha))
}

/// Adds a skill to a state, a new one with `base`.
pub(crate) fn add(
    state: &Path,
    base: Option<&Path>,
    finetuned: &Path,
    interpolation: Interpolation,
    keep_previous: bool,
) -> Result<Skill, RetainError> {
    let (registry, control) = (registry(), control(2));
    let state = match base {
        Some(base) => State::begin(state, base)?,
        None => State::open(state)?,
    };
    let new = NewSkill { name: None, finetuned: finetuned.to_owned(), interpolation, keep_previous };
    let addition = state.prepare(new)?;
    let step = addition.plan(registry, &control)?;
    addition.run(&step, &control)
}

/// Key → dtype, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn tensors(path: &Path) -> Tensors {
    let checkpoint = Checkpoint::open(path).unwrap();
    let own = |key: &str| {
        let view = checkpoint.get(key).unwrap();
        (key.to_owned(), (view.dtype(), view.shape().to_vec(), view.bytes().to_vec()))
    };
    checkpoint.keys().map(own).collect()
}

pub(crate) fn values(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let own =
        |key: &str| (key.to_owned(), checkpoint.get(key).unwrap().to_f32().unwrap().into_iter().collect());
    checkpoint.keys().map(own).collect()
}

/// Writes `model.safetensors` anew with other tensors.
pub(crate) fn rewrite(dir: &Path, edit: impl FnOnce(&mut Tensors)) {
    let mut all = tensors(dir);
    edit(&mut all);
    let file = dir.join("model.safetensors");
    std::fs::remove_file(&file).unwrap();
    let spec = |(name, (dtype, shape, _)): (&String, &(Dtype, Vec<usize>, Vec<u8>))| TensorSpec {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    };
    let writer =
        SafetensorsWriter::create(dir, "model", all.iter().map(spec).collect(), &BTreeMap::new(), None)
            .unwrap();
    for (index, (_, _, bytes)) in all.values().enumerate() {
        writer.write_at(index, 0, bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// An f32 tensor.
pub(crate) fn f32_tensor(values: &[f32]) -> (Dtype, Vec<usize>, Vec<u8>) {
    let mut bytes = vec![0; values.len() * 4];
    convert::encode(Dtype::F32, values, &mut bytes).unwrap();
    (Dtype::F32, vec![values.len()], bytes)
}

/// Every file below a folder with its bytes, by relative path; links are followed.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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

/// Fails with all of these words.
#[track_caller]
pub(crate) fn fails<T>(result: Result<T, RetainError>, words: &[&str]) -> RetainError {
    let Err(error) = result else { panic!("it did not fail") };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    error
}
