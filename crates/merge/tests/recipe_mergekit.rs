//! mergekit's behaviour as numbers.
//!
//! How they were obtained: mergekit 0.1.5, `merge_method: linear`, `normalize: false`, `dtype: float32`, models of 4 or 8
//! llama layers of width 4. Model `a` is 1 at every fourth element and 0 elsewhere, `b` is 1 one element further on:
//! element 0 of each output tensor is then the weight that `a` had there.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use skillweld_merge::recipe::{KnownParameter, Lookup, ParamValue, ParameterKind, Recipe, layer_fraction};

const WEIGHT: KnownParameter<'static> =
    KnownParameter { name: "weight", kind: ParameterKind::Number, per_model: true };
const NORMALIZE: KnownParameter<'static> =
    KnownParameter { name: "normalize", kind: ParameterKind::Boolean, per_model: false };

fn value(
    recipe: &Recipe,
    parameter: &KnownParameter<'_>,
    slice: usize,
    key: &str,
    fraction: f64,
) -> ParamValue {
    let lookup = Lookup { slice, source: Some(0), key, layer_fraction: fraction, modality: None };
    recipe.parameter(parameter, &lookup).unwrap().unwrap()
}

/// The weight of model `a` in every layer of `slice`, then in the final norm.
fn weights(recipe: &Recipe, slice: usize, layer_count: usize) -> (Vec<f64>, f64) {
    let at = |key: &str, fraction| value(recipe, &WEIGHT, slice, key, fraction).as_number().unwrap();
    let layers = (0..layer_count)
        .map(|i| at(&format!("model.layers.{i}.self_attn.q_proj.weight"), layer_fraction(i, layer_count)))
        .collect();
    (layers, at("model.norm.weight", 0.0))
}

/// mergekit's output was read to five decimals.
fn assert_close(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= 5.1e-6), "{ours:?} against {theirs:?}");
}

fn models(weight: &str) -> Recipe {
    Recipe::parse(&format!(
        "merge_method: linear\nmodels: [{{model: a, parameters: {{weight: {weight}}}}}, {{model: b}}]"
    ))
    .unwrap()
}

#[test]
fn gradients_over_eight_layers() {
    let golden: &[(&str, [f64; 8])] = &[
        ("[0, 1]", [0.0, 0.14286, 0.28571, 0.42857, 0.57143, 0.71429, 0.85714, 1.0]),
        ("[0, 0.5, 1]", [0.0, 0.14286, 0.28571, 0.42857, 0.57143, 0.71429, 0.85714, 1.0]),
        ("[0, 1, 0]", [0.0, 0.28571, 0.57143, 0.85714, 0.85714, 0.57143, 0.28571, 0.0]),
        ("[0, 1, 0, 1]", [0.0, 0.42857, 0.85714, 0.71429, 0.28571, 0.14286, 0.57143, 1.0]),
        ("[1]", [1.0; 8]),
        ("[0, 0.25, 0.5, 1, 2, 3, 4, 5]", [0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", [0.0, 1.28571, 2.57143, 3.85714, 5.14286, 6.42857, 7.71429, 9.0]),
    ];
    for (gradient, theirs) in golden {
        let (layers, norm) = weights(&models(gradient), 0, 8);
        assert_close(&layers, theirs);
        assert_eq!(norm, theirs[0], "keys outside layers take the first anchor: {gradient}");
    }
}

#[test]
fn gradients_over_four_layers() {
    assert_close(&weights(&models("[0, 1]"), 0, 4).0, &[0.0, 0.33333, 0.66667, 1.0]);
    assert_close(&weights(&models("[0, 1, 0]"), 0, 4).0, &[0.0, 0.66667, 0.66667, 0.0]);
    assert_close(&weights(&models("[0, 1, 0, 1, 5]"), 0, 4).0, &[0.0, 0.66667, 0.66667, 5.0]);
    // Booleans and numeric text count as numbers for a number.
    assert_close(&weights(&models("[true, false]"), 0, 4).0, &[1.0, 0.66667, 0.33333, 0.0]);
    assert_close(&weights(&models("['0', '1']"), 0, 4).0, &[0.0, 0.33333, 0.66667, 1.0]);
    assert_close(&weights(&models("1e-1"), 0, 4).0, &[0.1; 4]);
}

#[test]
fn gradients_of_booleans_are_steps() {
    // `normalize` with both weights 2: the output is 0.5 where it is true, 2 where not.
    let golden: &[(&str, &str)] = &[
        ("[false, true]", "FFFFFFFT"),
        ("[true, false]", "TTTTTTTF"),
        ("[false, true, false]", "FFFFTTTF"),
        ("[0, 1]", "FFFFFFFT"),
        ("[true, false, true, false]", "TTTFFTTF"),
        ("['no', 'yes']", "FFFFFFFT"),
        ("[no, True]", "FFFFFFFT"),
        ("[off, on]", "FFFFFFFT"),
        ("[false, false, true]", "FFFFFFFT"),
    ];
    for (gradient, theirs) in golden {
        let recipe = Recipe::parse(&format!(
            "merge_method: linear\nmodels: [{{model: a}}]\nparameters: {{normalize: {gradient}}}"
        ))
        .unwrap();
        let ours: String = (0..8)
            .map(|i| {
                if value(&recipe, &NORMALIZE, 0, "x", layer_fraction(i, 8)) == ParamValue::Bool(true) {
                    'T'
                } else {
                    'F'
                }
            })
            .collect();
        assert_eq!(&ours, theirs, "{gradient}");
    }
}

#[test]
fn a_layer_on_an_anchor_takes_that_anchor_whatever_the_rounding() {
    // Not from mergekit: (1/49)·49 < 1 in floating point, and a step must not come one layer late for it.
    let steps: Vec<String> = (0..50).map(|i| (i % 2 == 1).to_string()).collect();
    let recipe = Recipe::parse(&format!(
        "merge_method: linear\nmodels: [{{model: a}}]\nparameters: {{normalize: [{}]}}",
        steps.join(", ")
    ))
    .unwrap();
    for i in 0..50 {
        assert_eq!(
            value(&recipe, &NORMALIZE, 0, "x", layer_fraction(i, 50)),
            ParamValue::Bool(i % 2 == 1),
            "layer {i}"
        );
    }
}

#[test]
fn filters_are_case_sensitive_substrings_of_the_whole_name() {
    let keys = [
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.input_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ];
    // Which of `keys` took the filtered value.
    let golden: &[(&str, &str)] = &[
        ("self_attn", ".x...."),
        ("self_attn.q_proj", ".x...."),
        ("layers.1.", ".xxx.."),
        ("q_proj.weight", ".x...."),
        ("norm", "...xx."),
        ("model.norm", "....x."),
        ("lm_head", ".....x"),
        ("embed", "x....."),
        ("weight", "xxxxxx"),
        ("'*'", "xxxxxx"),
        ("''", "xxxxxx"),
        ("null", "xxxxxx"),
        ("q_proj|k_proj", "......"),
        ("q_.*", "......"),
        ("SELF_ATTN", "......"),
    ];
    for (filter, theirs) in golden {
        let recipe = models(&format!("[{{filter: {filter}, value: 3}}, {{value: 2}}]"));
        let ours: String = keys
            .iter()
            .map(
                |key| if value(&recipe, &WEIGHT, 0, key, 0.0) == ParamValue::Number(3.0) { 'x' } else { '.' },
            )
            .collect();
        assert_eq!(&ours, theirs, "{filter}");
    }
}

#[test]
fn the_first_rule_that_holds_decides() {
    let recipe = models("[{value: 2}, {filter: self_attn, value: 3}]");
    assert_close(&weights(&recipe, 0, 4).0, &[2.0; 4]);
    let recipe = models("[{filter: self_attn, value: [0, 1]}, {value: [5, 6]}]");
    let (layers, norm) = weights(&recipe, 0, 4);
    assert_close(&layers, &[0.0, 0.33333, 0.66667, 1.0]);
    assert_eq!(norm, 5.0);
    // A single rule need not stand in a list.
    let recipe = models("{value: 3}");
    assert_close(&weights(&recipe, 0, 4).0, &[3.0; 4]);
}

#[test]
fn every_slice_runs_from_zero_to_one_at_every_level() {
    let recipe = Recipe::parse(
        "merge_method: linear
parameters: {weight: [0, 1]}
slices:
  - {sources: [{model: a, layer_range: [0, 3]}]}
  - {sources: [{model: a, layer_range: [3, 8]}], parameters: {weight: [5, 6]}}
  - {sources: [{model: a, layer_range: [2, 3], parameters: {weight: [0.25, 1]}}]}
",
    )
    .unwrap();
    let (layers, embeddings) = weights(&recipe, 0, 3);
    assert_close(&layers, &[0.0, 0.5, 1.0]);
    assert_eq!(embeddings, 0.0);
    let (layers, norm) = weights(&recipe, 1, 5);
    assert_close(&layers, &[5.0, 5.25, 5.5, 5.75, 6.0]);
    assert_eq!(norm, 5.0);
    // A one-layer slice: its layer takes the last anchor, the keys outside layers the first.
    assert_eq!(weights(&recipe, 2, 1), (vec![1.0], 0.25));
}
