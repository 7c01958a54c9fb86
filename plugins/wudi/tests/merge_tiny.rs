//! Values of the published code, from matrices and from factors.

#[path = "../../testing/merge_tiny.rs"]
mod merge_tiny;

use merge_tiny::{distance, merge_tiny};
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_wudi::Wudi;

#[test]
fn wudi_equals_the_published_code() {
    let fixture = merge_tiny();
    for ((key, shape), experts) in fixture.keys.iter().zip(&fixture.shapes).zip(&fixture.experts) {
        let expected = fixture.expected.get(&format!("wudi.{key}"));
        let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
        let trial = || Trial::of::<Wudi>().experts(&slices).shape(shape);
        let merged = trial().merge();
        assert!(distance(&merged, expected) <= 1e-3, "{key}: {}", distance(&merged, expected));
        if shape.len() != 2 {
            continue;
        }
        let factored = (0..experts.len()).fold(trial(), |trial, k| {
            let (b, a, rank) = fixture.factors(k, key);
            trial.factors(k, b, a, rank)
        });
        let (merged, path) = factored.merge_with_path();
        assert!(distance(&merged, expected) <= 1e-3, "{key}, factored: {}", distance(&merged, expected));
        assert_eq!(path.as_deref(), Some("factored"));
    }
}
