//! Values of the published code, from matrices and from factors.

#[path = "../../testing/merge_tiny.rs"]
mod merge_tiny;

use merge_tiny::{distance, merge_tiny};
use skillweld_plugin_sdk::export::Exported;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_subspace::{Knots, Tsv};

/// Holds `method` against the values under `name`, dense and, for matrices, as factors.
fn check<M: Exported>(name: &str, with: impl Fn(Trial) -> Trial) {
    let fixture = merge_tiny();
    for ((key, shape), experts) in fixture.keys.iter().zip(&fixture.shapes).zip(&fixture.experts) {
        let expected = fixture.expected.get(&format!("{name}.{key}"));
        let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
        let trial = || with(Trial::of::<M>()).experts(&slices).shape(shape);
        let (merged, path) = trial().merge_with_path();
        assert!(distance(&merged, expected) <= 1e-4, "{key}: {}", distance(&merged, expected));
        if shape.len() != 2 {
            continue;
        }
        assert_eq!(path.as_deref(), Some("dense"));
        let factored = (0..experts.len()).fold(trial(), |trial, k| {
            let (b, a, rank) = fixture.factors(k, key);
            trial.factors(k, b, a, rank)
        });
        let (merged, path) = factored.merge_with_path();
        assert!(distance(&merged, expected) <= 1e-4, "{key}, factored: {}", distance(&merged, expected));
        assert_eq!(path.as_deref(), Some("factored"));
    }
}

#[test]
fn knots_with_the_sum_inside_equals_the_published_code() {
    check::<Knots>("knots_ta", |trial| trial.set("inside", "task_arithmetic"));
}

#[test]
fn tsv_equals_the_published_code() {
    check::<Tsv>("tsv", |trial| trial);
    // The fixture's experts have no null space among the triplets taken.
    let fixture = merge_tiny();
    let experts: Vec<&[f32]> = fixture.experts[0].iter().map(Vec::as_slice).collect();
    let kept = Trial::of::<Tsv>().set("null_space", "keep").experts(&experts).shape(&fixture.shapes[0]);
    let expected = fixture.expected.get(&format!("tsv.{}", fixture.keys[0]));
    assert!(distance(&kept.merge(), expected) <= 1e-4);
}
