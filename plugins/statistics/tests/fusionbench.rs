//! Values of FusionBench (`tests/data/fusionbench`, made by its `make.py`), which computes them in f64 from weights.

#[path = "../../testing/tensors.rs"]
mod tensors;

use std::path::Path;

use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_statistics::{Fisher, RegMean};
use tensors::Tensors;

const KEYS: [(&str, [usize; 2]); 2] = [("up", [6, 4]), ("down", [4, 6])];

fn values() -> Tensors {
    Tensors::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fusionbench"), "values.safetensors")
}

/// `trial` of both tensors with task vectors, and statistics called `NAME.k.KEY`.
fn with_tensors(mut trial: Trial, values: &Tensors, name: &str) -> Trial {
    for (key, shape) in KEYS {
        let base = values.get(&format!("base.{key}"));
        let task_vector = |k: usize| {
            let expert = values.get(&format!("expert.{k}.{key}"));
            expert.iter().zip(base).map(|(expert, base)| expert - base).collect::<Vec<f32>>()
        };
        let experts: Vec<Vec<f32>> = (0..3).map(task_vector).collect();
        let names: Vec<String> = (0..3).map(|k| format!("{name}.{k}.{key}")).collect();
        trial = trial
            .experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
            .shape(&shape)
            .statistics(&names.iter().map(|name| values.get(name)).collect::<Vec<_>>());
    }
    trial
}

/// Θ₀ + τ against FusionBench's weights, called `NAME.KEY`. Weights are below 4, task vectors and their statistics'
/// shares are rounded three times on either side.
#[track_caller]
fn compare(values: &Tensors, merged: &[Vec<f32>], name: &str) {
    for ((key, _), merged) in KEYS.iter().zip(merged) {
        let base = values.get(&format!("base.{key}"));
        let expected = values.get(&format!("{name}.{key}"));
        for ((merged, base), expected) in merged.iter().zip(base).zip(expected) {
            let theirs = expected - base;
            assert!((merged - theirs).abs() <= 4.0 * 4.0 * f32::EPSILON, "{name}.{key}: {merged} {theirs}");
        }
    }
}

#[test]
fn fisher_averages_equal_those_of_fusionbench() {
    let values = values();
    for (name, normalize) in [("fisher_normalized", true), ("fisher_plain", false)] {
        let trial = Trial::of::<Fisher>().per_expert("weight", &[0.5, 0.3, 0.2]).set("normalize", normalize);
        compare(&values, &with_tensors(trial, &values, "fisher").merge_all(), name);
    }
}

#[test]
fn regression_means_equal_those_of_fusionbench() {
    let values = values();
    for (name, reduce) in [("regmean_0.9", 0.9), ("regmean_1.0", 1.0)] {
        let trial = Trial::of::<RegMean>().set("reduce_non_diag", reduce);
        compare(&values, &with_tensors(trial, &values, "gram").merge_all(), name);
    }
}
