//! Values of the published code.

#[path = "../../testing/merge_tiny.rs"]
mod merge_tiny;

use skillweld_plugin_emr::{Emr, EmrMask};
use skillweld_plugin_sdk::trial::Trial;

#[test]
fn task_vector_masks_and_rescalers_equal_those_of_the_published_code() {
    let fixture = merge_tiny::merge_tiny();
    let mut rescalers = Trial::of::<EmrMask>();
    for (key, experts) in fixture.keys.iter().zip(&fixture.experts) {
        let slices: Vec<&[f32]> = experts.iter().map(Vec::as_slice).collect();
        let merged = Trial::of::<Emr>().experts(&slices).merge();
        assert_eq!(merged, fixture.expected.get(&format!("emr.{key}")), "{key}");
        let masks = Trial::of::<EmrMask>().experts(&slices).merged(&merged).masks();
        for (k, mask) in masks.iter().enumerate() {
            let expected = fixture.expected.get(&format!("emr.mask.{k}.{key}"));
            assert!(mask.iter().zip(expected).all(|(&bit, &e)| bit == (e != 0.0)), "{key} expert {k}");
        }
        rescalers = rescalers.experts(&slices).merged(&merged);
    }
    for (k, rescaler) in rescalers.rescalers().into_iter().enumerate() {
        let expected = fixture.expected.get(&format!("emr.rescaler.{k}"))[0];
        assert!((rescaler / expected - 1.0).abs() <= 1e-6, "{rescaler} {expected}");
    }
}
