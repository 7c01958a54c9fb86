//! Adapters made of fine-tunes, read back by our own reader: Θ₀ + B·A is the fine-tune, as far as the rank allows.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Ix2};
use proptest::prelude::*;
use skillweld_interchange::{
    ExtractOptions, ExtractReport, InterchangeError, Others, extract_lora, extract_work,
};
use skillweld_linalg::{Threads, thin_svd};
use skillweld_merge::Control;
use skillweld_store::{Adapter, AdapterDelta, Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_tensor::{Dtype, convert};
use tempfile::TempDir;

/// Values between −1 and 1 without structure.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2) + 1;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    Array2::from_shape_vec((rows, columns), noise(rows * columns, seed)).unwrap()
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn write(dir: &Path, tensors: &Tensors, dtype: Dtype) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let spec = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| TensorSpec {
        name: name.clone(),
        dtype,
        shape: shape.clone(),
    };
    let layout = tensors.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(dir, "model", layout, &BTreeMap::new(), None).unwrap();
    for (index, (_, values)) in tensors.values().enumerate() {
        let mut bytes = vec![0; values.len() * dtype.bits() / 8];
        convert::encode(dtype, values, &mut bytes).unwrap();
        writer.write_at(index, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
    dir.to_owned()
}

/// Two layers with projections of several shapes, biases, norms and an embedding.
fn model() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize]| {
        let seed = tensors.len() as u64;
        tensors.insert(name, (shape.to_vec(), noise(shape.iter().product(), seed)));
    };
    add("model.embed_tokens.weight".to_owned(), &[50, 20]);
    for layer in 0..2 {
        add(format!("model.layers.{layer}.q_proj.weight"), &[20, 20]);
        add(format!("model.layers.{layer}.q_proj.bias"), &[20]);
        add(format!("model.layers.{layer}.up_proj.weight"), &[70, 20]);
        add(format!("model.layers.{layer}.norm.weight"), &[20]);
    }
    add("model.head.weight".to_owned(), &[3, 20]);
    tensors
}

/// Adds a matrix of rank `rank` to every linear weight.
fn tune(tensors: &mut Tensors, rank: usize, seed: u64) {
    for (index, (name, (shape, values))) in tensors.iter_mut().enumerate() {
        if let (&[m, n], true, false) = (&shape[..], name.ends_with(".weight"), name.contains("embed")) {
            let seed = seed.wrapping_add(index as u64);
            let tau = matrix(m, rank, seed).dot(&matrix(rank, n, !seed)) * 0.1;
            values.iter_mut().zip(&tau).for_each(|(value, tau)| *value += tau);
        }
    }
}

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new(base: &Tensors, tuned: &Tensors) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, tensors) in [("base", base), ("tuned", tuned)] {
            let model = write(&dir.path().join(name), tensors, Dtype::F32);
            std::fs::write(model.join("config.json"), r#"{"tie_word_embeddings": false}"#).unwrap();
        }
        Self { dir }
    }

    fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn extract(&self, options: &ExtractOptions) -> Result<ExtractReport, InterchangeError> {
        self.extract_to("adapter", options, &Control::SILENT)
    }

    fn extract_to(
        &self,
        out: &str,
        options: &ExtractOptions,
        control: &Control<'_>,
    ) -> Result<ExtractReport, InterchangeError> {
        let [base, tuned] = ["base", "tuned"].map(|name| Checkpoint::open(self.join(name)).unwrap());
        extract_lora(&base, &tuned, &self.join(out), options, control)
    }

    /// What the adapter makes of each key of the base.
    fn adapted(&self) -> BTreeMap<String, Vec<f32>> {
        let base = Checkpoint::open(self.join("base")).unwrap();
        let adapter = Adapter::open(&self.join("adapter")).unwrap();
        let targets = adapter.check_targets(&base).unwrap();
        let value = |key: &str| {
            let stored = base.get(key).unwrap().to_f32().unwrap();
            let Some(target) = targets.get(key) else { return stored.into_iter().collect() };
            match adapter.delta(target).unwrap().unwrap() {
                AdapterDelta::Replace(view) => view.to_f32().unwrap().into_iter().collect::<Vec<_>>(),
                AdapterDelta::LowRank(factors) => {
                    (stored.into_dimensionality::<Ix2>().unwrap() + factors.to_dense()).into_iter().collect()
                }
            }
        };
        base.keys().map(|key| (key.to_owned(), value(key))).collect()
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn an_update_of_low_rank_comes_back(rank in 1..6usize, extra in 0..6usize, seed in any::<u64>()) {
        let base = model();
        let mut tuned = base.clone();
        tune(&mut tuned, rank, seed);
        let bench = Bench::new(&base, &tuned);
        let report = bench.extract(&ExtractOptions::new(rank + extra)).unwrap();
        prop_assert_eq!((report.adapted.len(), report.saved.len(), report.left_out.len()), (5, 0, 0));
        prop_assert_eq!(report.unchanged, 5);
        prop_assert!(report.residual <= 1e-5, "{}", report.residual);
        for (key, values) in bench.adapted() {
            let error = distance(&values, &tuned[&key].1);
            prop_assert!(error <= 2e-6 * norm(&tuned[&key].1), "{key}: {error}");
        }
    }

    #[test]
    fn what_is_lost_is_what_the_report_says_and_no_more_than_must_be(rank in 1..8usize, seed in any::<u64>()) {
        let base = model();
        let mut tuned = base.clone();
        tune(&mut tuned, 20, seed);
        let bench = Bench::new(&base, &tuned);
        let report = bench.extract(&ExtractOptions::new(rank)).unwrap();
        let adapted = bench.adapted();
        let mut lost = 0.0;
        for tensor in &report.adapted {
            let (shape, values) = &tuned[&tensor.key];
            let error = distance(&adapted[&tensor.key], values);
            // B·A is added to Θ₀, which rounds: half an ulp of 1 in every element.
            let rounding = 1e-7 * (values.len() as f64).sqrt();
            prop_assert!((error - tensor.residual * tensor.norm).abs() <= rounding, "{}", tensor.key);
            lost += error * error;
            let (_, before) = &base[&tensor.key];
            let tau = values.iter().zip(before).map(|(t, b)| f64::from(t - b)).collect();
            let s = thin_svd(&Array2::from_shape_vec((shape[0], shape[1]), tau).unwrap().view()).unwrap().s;
            let least = s.iter().skip(tensor.rank).map(|s| s * s).sum::<f64>().sqrt();
            prop_assert!(error <= least * (1.0 + 1e-5) + 4.0 * rounding, "{}: {error}, {least}", tensor.key);
        }
        prop_assert!((lost.sqrt() - report.residual * report.norm).abs() <= 1e-4 * lost.sqrt() + 1e-6);
    }
}

#[test]
fn smaller_weights_have_their_own_rank() {
    let base = model();
    let mut tuned = base.clone();
    tune(&mut tuned, 20, 1);
    let bench = Bench::new(&base, &tuned);
    let report = bench.extract(&ExtractOptions::new(20)).unwrap();
    let ranks: Vec<usize> = report.adapted.iter().map(|tensor| tensor.rank).collect();
    assert_eq!(ranks, [3, 20, 20, 20, 20]);
    let adapter = Adapter::open(&bench.join("adapter")).unwrap();
    assert_eq!((adapter.rank("model.head.weight"), adapter.scale("model.head.weight")), (Some(3), Some(1.0)));
    // All singular values are there.
    assert!(report.residual < 1e-5);
}

#[test]
fn other_tensors_are_saved_left_out_or_refused() {
    let base = model();
    let mut tuned = base.clone();
    tune(&mut tuned, 2, 9);
    for name in ["model.embed_tokens.weight", "model.layers.1.norm.weight", "model.layers.0.q_proj.bias"] {
        tuned.get_mut(name).unwrap().1[3] += 1.0;
    }
    tuned.insert("new.weight".to_owned(), (vec![4, 2], noise(8, 77)));
    let bench = Bench::new(&base, &tuned);
    let options = ExtractOptions::new(2);
    let report = bench.extract(&options).unwrap();
    let saved: Vec<&str> = report.saved.iter().map(|tensor| tensor.key.as_str()).collect();
    let expected = [
        "model.embed_tokens.weight",
        "model.layers.0.q_proj.bias",
        "model.layers.1.norm.weight",
        "new.weight",
    ];
    assert_eq!(saved, expected);
    assert!(report.residual < 1e-5 && report.left_out.is_empty());
    for (key, values) in bench.adapted() {
        assert!(distance(&values, &tuned[&key].1) <= 2e-6 * norm(&values), "{key}");
    }
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.join("adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["bias"], "all");
    assert_eq!(config["target_modules"], serde_json::json!(["head", "q_proj", "up_proj"]));
    assert_eq!(
        config["modules_to_save"],
        serde_json::json!(["model.embed_tokens", "model.layers.1.norm", "new"])
    );

    let leave_out = ExtractOptions { others: Others::LeaveOut, force: true, ..options };
    let report = bench.extract(&leave_out).unwrap();
    assert_eq!((report.saved.len(), report.left_out.len()), (0, 4));
    // Three changes of 1 each are all that is lost.
    assert!((report.residual * report.norm - 3f64.sqrt()).abs() < 1e-3);

    let error =
        bench.extract_to("b", &ExtractOptions { others: Others::Refuse, ..options }, &Control::SILENT);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens.weight") && error.contains("--others"), "{error}");
    assert!(!bench.join("b").exists());
}

#[test]
fn parameters_of_their_own_and_tied_weights_are_left_out_with_the_reason() {
    let mut base = model();
    base.insert("vision.cls_token".to_owned(), (vec![1, 4], vec![0.0; 4]));
    let mut tuned = base.clone();
    tune(&mut tuned, 1, 4);
    tuned.get_mut("vision.cls_token").unwrap().1[0] = 2.0;
    tuned.get_mut("model.embed_tokens.weight").unwrap().1[0] += 1.0;
    let bench = Bench::new(&base, &tuned);
    let config = r#"{"tie_word_embeddings": true}"#;
    for name in ["base", "tuned"] {
        std::fs::write(bench.join(name).join("config.json"), config).unwrap();
    }
    let report = bench.extract(&ExtractOptions::new(1)).unwrap();
    let left_out: Vec<_> = report.left_out.iter().map(|t| (t.key.as_str(), t.norm.unwrap())).collect();
    assert_eq!(left_out.len(), 2, "{report:?}");
    assert_eq!((left_out[0].0, left_out[1].0), ("model.embed_tokens.weight", "vision.cls_token"));
    assert!((left_out[1].1 - 2.0).abs() < 1e-6);
    assert!(report.left_out[0].reason.contains("tied") && report.left_out[1].reason.contains("its own"));
}

#[test]
fn narrow_factors_lose_what_they_round() {
    let base = model();
    let mut tuned = base.clone();
    tune(&mut tuned, 2, 5);
    let bench = Bench::new(&base, &tuned);
    for (dtype, ulp) in [(Dtype::BF16, 2f64.powi(-8)), (Dtype::F16, 2f64.powi(-11))] {
        let options = ExtractOptions { dtype, force: true, ..ExtractOptions::new(2) };
        let report = bench.extract(&options).unwrap();
        // Each of two factors is rounded by half an ulp at most.
        assert!(report.residual <= 2.0 * ulp && report.residual > ulp / 20.0, "{dtype}: {}", report.residual);
        let stored = Checkpoint::open(bench.join("adapter/adapter_model.safetensors")).unwrap();
        assert!(stored.keys().all(|key| stored.get(key).unwrap().dtype() == dtype));
    }
    let error = bench.extract_to(
        "x",
        &ExtractOptions { dtype: Dtype::I8, ..ExtractOptions::new(2) },
        &Control::SILENT,
    );
    assert!(matches!(error, Err(InterchangeError::Dtype { dtype: Dtype::I8 })));
}

#[test]
fn the_same_bytes_for_any_number_of_threads_and_all_work_is_told() {
    let base = model();
    let mut tuned = base.clone();
    tune(&mut tuned, 5, 6);
    let bench = Bench::new(&base, &tuned);
    let run = |threads: usize, out: &str| {
        let told = std::sync::atomic::AtomicU64::new(0);
        let advance = |elements| {
            told.fetch_add(elements, std::sync::atomic::Ordering::Relaxed);
        };
        let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
        let control = Control { threads, advance: &advance, ..Control::SILENT };
        bench.extract_to(out, &ExtractOptions::new(3), &control).unwrap();
        let [base, tuned] = ["base", "tuned"].map(|name| Checkpoint::open(bench.join(name)).unwrap());
        assert_eq!(told.into_inner(), extract_work(&base, &tuned));
        let read = |name: &str| std::fs::read(bench.join(out).join(name)).unwrap();
        ["adapter_config.json", "adapter_model.safetensors", "skillweld_export.json"].map(read)
    };
    assert_eq!(run(1, "one"), run(3, "three"));
}

#[test]
fn bad_input_is_refused_by_name_and_nothing_is_written() {
    type Spoil = fn(&mut Tensors);
    let cases: [(&str, usize, Spoil, &[&str]); 8] = [
        ("rank 0", 0, |_| {}, &["--rank 0", "at least rank 1"]),
        ("rank too large", 21, |_| {}, &["--rank 21", "has 20", "up_proj"]),
        (
            "missing key",
            2,
            |t| drop(t.remove("model.head.weight")),
            &["`model.head.weight`", "is in", "not in"],
        ),
        (
            "shape",
            2,
            |t| t.insert("model.head.weight".to_owned(), (vec![20, 3], vec![0.0; 60])).map(drop).unwrap(),
            &["`model.head.weight`", "[3, 20] in the base and [20, 3]"],
        ),
        (
            "NaN",
            2,
            |t| t.get_mut("model.layers.1.up_proj.weight").unwrap().1[7] = f32::NAN,
            &["`model.layers.1.up_proj.weight`", "fine-tune holds NaN", "element 7"],
        ),
        (
            "infinity in a norm",
            2,
            |t| t.get_mut("model.layers.0.norm.weight").unwrap().1[2] = f32::INFINITY,
            &["`model.layers.0.norm.weight`", "element 2"],
        ),
        ("the same", 2, |t| *t = model(), &["nothing to extract"]),
        (
            "only a norm",
            2,
            |t| {
                *t = model();
                t.get_mut("model.layers.0.norm.weight").unwrap().1[2] = 9.0;
            },
            &["no linear weight"],
        ),
    ];
    for (what, rank, spoil, said) in cases {
        let base = model();
        let mut tuned = base.clone();
        tune(&mut tuned, 2, 3);
        spoil(&mut tuned);
        let bench = Bench::new(&base, &tuned);
        let error = bench.extract(&ExtractOptions::new(rank)).expect_err(what).to_string();
        for part in said {
            assert!(error.contains(part), "{what}: {error}");
        }
        let mut left: Vec<_> =
            std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["base", "tuned"], "{what}");
    }
}

#[test]
fn outputs_are_replaced_only_when_asked_and_only_ours() {
    let base = model();
    let mut tuned = base.clone();
    tune(&mut tuned, 2, 3);
    let bench = Bench::new(&base, &tuned);
    let options = ExtractOptions::new(2);
    bench.extract(&options).unwrap();
    let again = bench.extract(&options).unwrap_err().to_string();
    assert!(again.contains("already exists"), "{again}");
    let forced = ExtractOptions { force: true, ..options };
    bench.extract(&forced).unwrap();
    let inside = bench.extract_to("base/adapter", &options, &Control::SILENT).unwrap_err().to_string();
    assert!(inside.contains("inside an input"), "{inside}");
    let input = bench.extract_to("tuned", &forced, &Control::SILENT).unwrap_err().to_string();
    assert!(input.contains("is or holds an input"), "{input}");
    std::fs::create_dir(bench.join("other")).unwrap();
    std::fs::write(bench.join("other/thesis.tex"), "x").unwrap();
    let foreign = bench.extract_to("other", &forced, &Control::SILENT).unwrap_err().to_string();
    assert!(foreign.contains("no output of Skillweld"), "{foreign}");
    assert!(bench.join("other/thesis.tex").exists());
}
