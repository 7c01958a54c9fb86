//! Masks of the published code.

#[path = "../../testing/merge_tiny.rs"]
mod merge_tiny;

use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_tall::Tall;

#[test]
fn masks_equal_those_of_the_published_code() {
    let fixture = merge_tiny::merge_tiny();
    for method in ["task_arithmetic", "ties_sum_notrim_global"] {
        for (key, experts) in fixture.keys.iter().zip(&fixture.experts) {
            let merged = fixture.expected.get(&format!("{method}.{key}"));
            let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
            let masks = Trial::of::<Tall>().experts(&slices).merged(merged).masks();
            for (k, (mask, expert)) in masks.iter().zip(experts).enumerate() {
                let expected = fixture.expected.get(&format!("{method}.mask.{k}.{key}"));
                for i in 0..mask.len() {
                    let (left, right) = (expert[i].abs(), 0.6 * (merged[i] - expert[i]).abs());
                    let too_close = (left - right).abs() <= 1e-6 * left.max(right);
                    assert!(
                        too_close || mask[i] == (expected[i] != 0.0),
                        "{method} {key} expert {k} element {i}"
                    );
                }
            }
        }
    }
}
