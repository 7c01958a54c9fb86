//! The distances between action experts, against a slow reference that knows nothing of plans.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use skillweld_merge::{BlockDistances, Report};
use skillweld_tensor::{Dtype, convert};
use support::heads::{HeadTensor, experts, head};
use support::merge;

/// Merges experts with these heads and a head of one block.
fn report(heads: &[Vec<HeadTensor>]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), heads) + "action_expert: {head_blocks: 1}\n";
    merge(dir.path(), &recipe, &dir.path().join("merged"), 2).unwrap()
}

/// What the head holds once it is stored.
fn stored(tensor: &HeadTensor) -> Vec<f64> {
    let mut bytes = vec![0; tensor.dtype.byte_len(tensor.values.len()).unwrap()];
    convert::encode(tensor.dtype, &tensor.values, &mut bytes).unwrap();
    let view = skillweld_tensor::TensorView::new(tensor.dtype, &tensor.shape, &bytes).unwrap();
    view.to_f32().unwrap().into_iter().map(f64::from).collect()
}

/// ‖a − b‖ / ½(‖a‖ + ‖b‖), a and b everything of one block that both heads have in one shape, laid end to end.
fn reference(a: &[HeadTensor], b: &[HeadTensor], block: &str) -> Option<f64> {
    let parts = [format!("model.{block}."), format!("model.mlp_resnet_blocks.{block}.")];
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for a in a.iter().filter(|tensor| parts.iter().any(|part| tensor.key.starts_with(part))) {
        let b = b.iter().find(|other| other.key == a.key).unwrap();
        if a.shape == b.shape {
            x.extend(stored(a));
            y.extend(stored(b));
        }
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let distance = norm(&mut x.iter().zip(&y).map(|(x, y)| x - y));
    let norms = norm(&mut x.iter().copied()) + norm(&mut y.iter().copied());
    (!x.is_empty()).then_some(if norms == 0.0 { 0.0 } else { 2.0 * distance / norms })
}

fn block<'r>(report: &'r Report, name: &str) -> &'r BlockDistances {
    report.action_expert.iter().find(|block| block.block == name).unwrap_or_else(|| panic!("no block {name}"))
}

/// Every block of the report is the reference's, and none is missing.
fn check(heads: &[Vec<HeadTensor>], report: &Report) {
    let names = ["0", "1", "fc1", "fc2", "layer_norm1", "layer_norm2"];
    assert_eq!(report.action_expert.iter().map(|b| b.block.as_str()).collect::<Vec<_>>(), names);
    for name in names {
        let found = block(report, name);
        let mut expected = Vec::new();
        for i in 0..heads.len() {
            expected.extend((i + 1..heads.len()).map(|j| reference(&heads[i], &heads[j], name)));
        }
        assert_eq!(found.pairs.len(), expected.len());
        for ((a, b, found), expected) in found.pairs.iter().zip(&expected) {
            let close = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9,
                (found, expected) => found == expected,
            };
            assert!(close, "block {name}, {a} and {b}: {found:?}, expected {expected:?}");
        }
        let known: Vec<f64> = expected.into_iter().flatten().collect();
        match found.mean {
            Some(mean) => assert!((mean - known.iter().sum::<f64>() / known.len() as f64).abs() <= 1e-9),
            None => assert!(known.is_empty(), "block {name} has no mean"),
        }
        assert_eq!(found.per_task, ["1", "fc2", "layer_norm2"].contains(&name), "{name}");
    }
}

/// What differs between two heads.
#[derive(Debug, Clone, Copy)]
enum Difference {
    Nothing,
    Values,
    Dtype,
    Shape,
}

fn differ(head: &mut [HeadTensor], index: usize, difference: Difference) {
    let tensor = &mut head[index];
    match difference {
        Difference::Nothing => {}
        Difference::Values => tensor.values.iter_mut().for_each(|x| *x = *x / 2.0 + 0.25),
        Difference::Dtype => tensor.dtype = Dtype::BF16,
        // Other embodiments: only what stays per task may have another size.
        Difference::Shape if tensor.key == "model.fc2.weight" => {
            tensor.shape[0] *= 2;
            tensor.values = tensor.values.repeat(2);
        }
        Difference::Shape => {}
    }
}

fn difference() -> impl Strategy<Value = Difference> {
    use Difference::{Dtype, Nothing, Shape, Values};
    prop_oneof![3 => Just(Nothing), 2 => Just(Values), 1 => Just(Dtype), 1 => Just(Shape)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_block_equals_the_reference(
        differences in proptest::collection::vec(proptest::array::uniform2(difference()), 12),
        unrelated in any::<bool>(),
    ) {
        let mut heads = vec![head(0, 8), head(0, 8), head(usize::from(unrelated), 8)];
        for (index, of_heads) in differences.iter().enumerate() {
            for (head, difference) in heads[1..].iter_mut().zip(of_heads) {
                differ(head, index, *difference);
            }
        }
        check(&heads, &report(&heads));
    }
}

#[test]
fn what_is_the_same_counts_in_the_norm() {
    let mut heads = vec![head(0, 8), head(0, 8)];
    for tensor in heads[1].iter_mut().filter(|tensor| tensor.key.ends_with("gating_factor")) {
        tensor.values = vec![-tensor.values[0]];
    }
    let report = report(&heads);
    check(&heads, &report);
    let mean = block(&report, "0").mean.unwrap();
    assert!(mean > 0.0 && mean < 0.3, "{mean}: the gate is one value of 193");
}

#[test]
fn identical_heads_have_every_block_at_no_distance() {
    let heads = vec![head(0, 8), head(0, 8)];
    let report = report(&heads);
    check(&heads, &report);
    assert!(report.action_expert.iter().all(|block| block.mean == Some(0.0)));
}

#[test]
fn heads_of_two_dtypes_are_compared_everywhere() {
    let mut heads = vec![head(0, 8), head(1, 8)];
    heads[1].iter_mut().for_each(|tensor| tensor.dtype = Dtype::BF16);
    check(&heads, &report(&heads));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let mut heads = vec![head(0, 8), head(1, 8), head(2, 8)];
    differ(&mut heads[1], 3, Difference::Shape);
    let report = report(&heads);
    check(&heads, &report);
    let fc2 = block(&report, "fc2");
    assert_eq!(fc2.not_compared, ["model.fc2.weight"]);
    assert_eq!(
        fc2.pairs.iter().map(|(.., distance)| distance.is_some()).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert!(report.action_expert.iter().all(|b| b.block == "fc2" || b.not_compared.is_empty()));
}

#[test]
fn one_expert_has_no_distance_rather_than_none_at_all() {
    let report = report(&[head(0, 8)]);
    assert_eq!(report.action_expert.len(), 6);
    assert!(report.action_expert.iter().all(|block| block.mean.is_none() && block.not_compared.is_empty()));
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["action_expert"][0]["mean"].is_null());
    let read: BTreeMap<String, serde_json::Value> = serde_json::from_value(json.clone()).unwrap();
    assert!(serde_json::from_value::<Report>(json).is_ok(), "{:?}", read.keys());
}
