//! Values of the published code.

#[path = "../../testing/merge_tiny.rs"]
mod merge_tiny;

use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_task_arithmetic::{TaskArithmetic, Ties};

/// Relative to the largest value of the tensor, as the inputs are rounded differences of weights.
fn check(method: &str, trial: Trial) {
    let fixture = merge_tiny::merge_tiny();
    let add = |trial: Trial, experts: &Vec<Vec<f32>>| {
        trial.experts(&experts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let merged = fixture.experts.iter().fold(trial, add).merge_all();
    for (key, merged) in fixture.keys.iter().zip(merged) {
        let expected = fixture.expected.get(&format!("{method}.{key}"));
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        for (i, (merged, expected)) in merged.iter().zip(expected).enumerate() {
            assert!((merged - expected).abs() <= 1e-6 * largest, "{key} element {i}: {merged} {expected}");
        }
    }
}

#[test]
fn task_arithmetic_is_the_sum() {
    check("task_arithmetic", Trial::of::<TaskArithmetic>());
}

#[test]
fn ties_in_the_form_of_mergevla() {
    check("ties_sum_notrim_global", Trial::of::<Ties>().set("scope", "global").set("normalize", false));
}

#[test]
fn ties_in_the_form_of_the_paper() {
    check("ties_mean_k20_global", Trial::of::<Ties>().set("scope", "global").set("density", 0.2));
}
