//! Whole merges cut small: many blocks, slabs and shards in a small model, by any number of threads.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use skillweld_gpu::{Device, Fork};
use skillweld_linalg::Threads;
use skillweld_plugin_host::{HostHooks, Registry};
use skillweld_store::{Checkpoint, Hash};
use skillweld_synth::{ExpertForm, PrismaticSpec};

use super::{Control, Cut, DeviceReport, Executed, HashBook, execute};
use crate::base_files::BaseFiles;
use crate::measure::Measures;
use crate::output::Outputs;
use crate::recipe::Recipe;
use crate::{MergeError, Models, Plan};

/// Several blocks a slab, several slabs a tensor, all threads on one tensor, several shards a file.
pub(super) const SMALL: Cut = Cut {
    block: 1024,
    slab: 8 * 1024,
    shared_from: 16 * 1024,
    whole_room: 8 * 1024,
    device_slab: 8 * 1024,
    device_from: 1,
    max_shard_bytes: 300_000,
};

/// What a merge leaves behind: content hashes of its files by stem, and the rescalers.
pub(super) type Outcome = (BTreeMap<&'static str, Hash>, Option<Vec<f32>>);

/// Merges on the CPU without the side files of a whole run.
fn merge(recipe: &Path, out: &Path, cut: Cut, threads: usize) -> Outcome {
    merge_on::<Device>(recipe, out, cut, threads, None).unwrap().0
}

/// The same on a GPU too, if there is one.
pub(super) fn merge_on<F: Fork>(
    recipe: &Path,
    out: &Path,
    cut: Cut,
    threads: usize,
    fork: Option<&F>,
) -> Result<(Outcome, Option<DeviceReport>), MergeError> {
    std::fs::create_dir(out).unwrap();
    let recipe = Recipe::read(recipe).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let plan = Plan::new(&recipe, &models, &registry, &Control::SILENT).unwrap();
    let mut hashes = HashBook::default();
    hashes.cut = cut;
    let checkpoints: Vec<_> = models.all.iter().map(|model| &model.weights).collect();
    for checkpoint in &checkpoints {
        checkpoint.keys().for_each(|key| hashes.register(&checkpoint.get(key).unwrap()));
    }
    let (outputs, rescaler_slots) = Outputs::create_cut(out, &plan, &BaseFiles::written(), cut).unwrap();
    let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
    let control = Control { threads, hooks: HostHooks::SILENT, advance: &|_| {} };
    let measures = Measures::new(plan.tensors.len());
    let Executed { rescalers, device } = execute(&plan, &outputs, &control, &hashes, &measures, fork)?;
    for (slot, rescaler) in rescaler_slots.iter().zip(rescalers.iter().flatten()) {
        outputs.write(*slot, 0, &rescaler.to_le_bytes()).unwrap();
    }
    for checkpoint in checkpoints {
        for key in checkpoint.keys() {
            let view = checkpoint.get(key).unwrap();
            assert!(hashes.finish(&view) == blake3::hash(view.bytes()), "input {key}");
        }
    }
    Ok(((outputs.finish(&[]).unwrap(), rescalers), device))
}

/// Every file of a folder with its bytes.
pub(super) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().into(), std::fs::read(&path).unwrap())).collect()
}

/// Merges adapter, full fine-tune and adapter with default and small cuts; gives both outcomes.
fn cut_both_ways(method: &str) -> [Outcome; 2] {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = PrismaticSpec::tiny();
    // Matrices of 48 000 elements: five slabs and a last one that is no whole block.
    spec.language.vocab = 1500;
    let forms = [ExpertForm::Adapter, ExpertForm::Full, ExpertForm::Adapter];
    let written = spec.write_all(dir.path(), &forms).unwrap();
    let models: String =
        written.experts.iter().map(|(_, path)| format!("  - {{model: {}}}\n", path.display())).collect();
    let recipe = dir.path().join("recipe.yaml");
    std::fs::write(&recipe, format!("{method}base_model: {}\nmodels:\n{models}", written.base.display()))
        .unwrap();

    let usual = merge(&recipe, &dir.path().join("usual"), Cut::default(), 2);
    let out = |threads| dir.path().join(format!("small{threads}"));
    let small = merge(&recipe, &out(1), SMALL, 1);
    let one = files(&out(1));
    let sharded = one.keys().any(|path| path.to_string_lossy().starts_with("model-00003-of-"));
    assert!(sharded, "{:?}", one.keys());
    for threads in [2, 5] {
        assert_eq!(merge(&recipe, &out(threads), SMALL, threads), small);
        let other = files(&out(threads));
        assert!(other.keys().eq(one.keys()));
        one.iter().for_each(|(path, bytes)| assert!(other[path] == *bytes, "{} differs", path.display()));
    }
    // The hash put together from blocks while writing is that of what the files hold.
    for (stem, hash) in &small.0 {
        let single = out(1).join(format!("{stem}.safetensors"));
        let index = out(1).join(format!("{stem}.safetensors.index.json"));
        let path = if single.exists() { single } else { index };
        assert_eq!(Checkpoint::open(path).unwrap().content_hash(), *hash, "{stem}");
    }
    [usual, small]
}

#[test]
fn ties_is_exact_however_it_is_cut() {
    for scope in ["tensor", "global"] {
        let [usual, small] =
            cut_both_ways(&format!("merge_method: ties\nparameters: {{density: 0.5, scope: {scope}}}\n"));
        assert_eq!(usual, small, "{scope}");
    }
}

#[test]
fn rows_are_whole_however_they_are_cut() {
    let parameters = "{density: 0.5, epsilon: 0.3, rescale_by: density}";
    let [usual, small] = cut_both_ways(&format!("merge_method: della\nparameters: {parameters}\n"));
    assert_eq!(usual, small);
}

#[test]
fn masks_are_exact_however_they_are_cut() {
    let [usual, small] = cut_both_ways("merge_method: task_arithmetic\nmask: {method: tall, lambda: 0.6}\n");
    assert_eq!(usual, small);
}

#[test]
fn rescalers_differ_by_rounding_only() {
    let [usual, small] = cut_both_ways("merge_method: emr\nmask: emr\n");
    for stem in ["model", "task_vector"] {
        assert_eq!(usual.0[stem], small.0[stem], "{stem}");
    }
    let (usual, small) = (usual.1.unwrap(), small.1.unwrap());
    assert_eq!(usual.len(), 3);
    for (u, s) in usual.iter().zip(&small) {
        assert!((u - s).abs() <= f32::EPSILON * u.abs(), "{u} {s}");
    }
}

#[test]
fn a_panic_of_a_worker_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let written = PrismaticSpec::tiny().write_all(dir.path(), &[ExpertForm::Adapter]).unwrap();
    let recipe = dir.path().join("recipe.yaml");
    let [base, expert] = [written.base.display(), written.experts[0].1.display()];
    std::fs::write(
        &recipe,
        format!("merge_method: ties\nbase_model: {base}\nmodels: [{{model: {expert}}}]\n"),
    )
    .unwrap();
    let recipe = Recipe::read(&recipe).unwrap();
    let models = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[]).unwrap();
    let plan = Plan::new(&recipe, &models, &registry, &Control::SILENT).unwrap();
    let (outputs, _) = Outputs::create(dir.path(), &plan, &BaseFiles::written(), false).unwrap();
    let advance = |_| panic!("a mistake in the caller's progress bar");
    let control = Control { threads: Threads::ONE, hooks: HostHooks::SILENT, advance: &advance };
    let measures = Measures::new(plan.tensors.len());
    let run =
        || execute::<Device>(&plan, &outputs, &control, &HashBook::default(), &measures, None).map(drop);
    // It must come out at all: the thread that syncs the files has to end first.
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
}
