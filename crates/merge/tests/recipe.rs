//! Reading good recipes: the examples under `tests/data`, every form of every field, names, paths, layers.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use skillweld_merge::recipe::{
    KnownParameter, LayerKey, Lookup, MaskChoice, Modality, ParamValue, ParameterKind, Recipe, RecipeError,
    RouterProjections, RouterSubspace, Tokenizer, layer_fraction,
};
use skillweld_tensor::Dtype;

const fn known(name: &'static str, kind: ParameterKind, per_model: bool) -> KnownParameter<'static> {
    KnownParameter { name, kind, per_model }
}
const WEIGHT: KnownParameter<'static> = known("weight", ParameterKind::Number, true);
const DENSITY: KnownParameter<'static> = known("density", ParameterKind::Number, true);
const SCALE: KnownParameter<'static> = known("scale", ParameterKind::Number, true);
const T: KnownParameter<'static> = known("t", ParameterKind::Number, false);
const NORMALIZE: KnownParameter<'static> = known("normalize", ParameterKind::Boolean, false);
const RESCALE: KnownParameter<'static> = known("rescale", ParameterKind::Boolean, false);
const SCOPE: KnownParameter<'static> = known("scope", ParameterKind::Text, false);
const LAMBDA: KnownParameter<'static> = known("lambda", ParameterKind::Number, false);

fn example(name: &str) -> Recipe {
    Recipe::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn at<'k>(slice: usize, source: Option<usize>, key: &'k str, layer_fraction: f64) -> Lookup<'k> {
    Lookup { slice, source, key, layer_fraction, modality: None }
}

fn number(recipe: &Recipe, parameter: KnownParameter<'_>, lookup: Lookup<'_>) -> Option<f64> {
    recipe.parameter(&parameter, &lookup).unwrap().map(|value| value.as_number().unwrap())
}

fn names(recipe: &Recipe) -> Vec<&str> {
    recipe.models.iter().map(|model| model.name.as_str()).collect()
}

#[test]
fn every_example_parses_and_its_normal_form_is_the_same_recipe() {
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let recipe = Recipe::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            recipe
                .check_parameters(&[WEIGHT, DENSITY, SCALE, T, NORMALIZE, RESCALE, SCOPE])
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let normal = recipe.to_value();
            let again = Recipe::parse(&normal.to_string()).unwrap();
            assert_eq!(again.to_value(), normal, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "the examples are there");
}

#[test]
fn linear_example() {
    let recipe = example("linear.yaml");
    assert_eq!((recipe.method.as_str(), recipe.base), ("linear", None));
    assert_eq!((recipe.dtype, recipe.out_dtype), (Some(Dtype::F32), Some(Dtype::BF16)));
    assert_eq!(names(&recipe), ["instruct", "code", "math"]);
    assert_eq!(recipe.models[2].path, Path::new("models/base"));
    assert_eq!(recipe.models[2].adapter.as_deref(), Some(Path::new("adapters/math")));
    assert_eq!(recipe.slices.len(), 1);
    assert_eq!(recipe.slices[0].layer_count(), None);
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(2), "lm_head.weight", 0.0)), Some(0.3));
    assert_eq!(recipe.parameter(&NORMALIZE, &at(0, None, "x", 0.0)).unwrap(), Some(ParamValue::Bool(true)));
    assert_eq!(number(&recipe, DENSITY, at(0, Some(0), "x", 0.0)), None);
    assert_eq!((recipe.seed, recipe.allow_non_finite), (0, false));
}

#[test]
fn slerp_example() {
    let recipe = example("slerp.yaml");
    assert!(matches!(recipe.tokenizer, Some(Tokenizer::Base)));
    assert_eq!(recipe.slices[0].layer_count(), Some(32));
    assert_eq!(recipe.slices[0].base, Some(0));
    let t = |key, fraction| number(&recipe, T, at(0, None, key, fraction)).unwrap();
    assert_eq!(t("model.layers.0.self_attn.q_proj.weight", 0.0), 0.2);
    assert_eq!(t("model.layers.0.mlp.up_proj.weight", 0.0), 0.8);
    assert_eq!(t("model.layers.9.self_attn.q_proj.weight", 0.5), 0.4);
    assert_eq!(t("model.layers.9.self_attn.q_proj.weight", 0.375), 0.5, "half way from 0.6 to 0.4");
    assert_eq!(t("model.embed_tokens.weight", 0.0), 0.45);
}

#[test]
fn ties_example_lists_its_base_once() {
    let recipe = example("ties.yaml");
    assert_eq!(recipe.models.len(), 4);
    assert_eq!(recipe.slices[0].sources.len(), 4);
    assert_eq!((recipe.base, recipe.slices[0].base), (Some(0), Some(0)));
    assert_eq!(recipe.tasks().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(0), "x", 0.0)), None);
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(3), "layers.1.mlp.up_proj.weight", 0.5)), Some(0.6));
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(3), "layers.1.self_attn.q_proj.weight", 0.5)), Some(0.2));
}

#[test]
fn passthrough_example() {
    let recipe = example("passthrough.yaml");
    assert_eq!(recipe.slices[1].sources[0].layers, Some(8..32));
    let scale = |key| number(&recipe, SCALE, at(1, Some(0), key, 0.0));
    assert_eq!(scale("model.layers.8.self_attn.o_proj.weight"), Some(0.5));
    assert_eq!(scale("model.layers.8.self_attn.q_proj.weight"), Some(1.0));
    assert_eq!(number(&recipe, SCALE, at(0, Some(0), "x", 0.0)), None);
}

#[test]
fn mergevla_example() {
    let recipe = example("mergevla.yaml");
    let tasks: Vec<&str> = recipe.tasks().map(|i| recipe.models[i].name.as_str()).collect();
    assert_eq!(tasks, ["spatial", "object", "goal", "libero_10"]);
    assert_eq!(recipe.slices[0].base, Some(4), "a base that is not listed joins the sources");
    let mask = recipe.mask.spec().unwrap();
    assert_eq!(mask.method, "tall");
    recipe.check_mask_parameters(&[LAMBDA]).unwrap();
    assert_eq!(recipe.mask_parameter(&LAMBDA, None, "x", 0.0).unwrap(), Some(ParamValue::Number(0.6)));
    assert_eq!(recipe.action_expert.spec().unwrap().head_blocks, 1);
    let router = recipe.router.spec().unwrap();
    assert_eq!((router.rank, router.subspace), (8, RouterSubspace::PerTask));
    assert_eq!(router.projections, RouterProjections::Values);
    let density = |modality| number(&recipe, DENSITY, Lookup { modality, ..at(0, Some(1), "x", 0.0) });
    assert_eq!(density(Some(Modality::Vision)), Some(0.9));
    assert_eq!(density(Some(Modality::Language)), Some(1.0));
    assert_eq!(density(None), Some(1.0));
    assert_eq!(recipe.parameter(&SCOPE, &at(0, None, "x", 0.0)).unwrap().unwrap().as_text(), Some("global"));
}

#[test]
fn a_model_beats_a_slice_beats_a_group_beats_the_recipe_and_unmatched_filters_fall_through() {
    let recipe = Recipe::parse(
        "merge_method: m
slices:
  - sources:
      - {model: a, layer_range: [0, 2], parameters: {weight: [{filter: q_proj, value: 1}]}}
    parameters: {weight: [{filter: self_attn, value: 2}]}
groups: {language: {weight: [{filter: layers, value: 3}]}}
parameters: {weight: 4}
",
    )
    .unwrap();
    let weight = |key, modality| number(&recipe, WEIGHT, Lookup { modality, ..at(0, Some(0), key, 0.0) });
    let language = Some(Modality::Language);
    assert_eq!(weight("layers.0.self_attn.q_proj.weight", language), Some(1.0));
    assert_eq!(weight("layers.0.self_attn.k_proj.weight", language), Some(2.0));
    assert_eq!(weight("layers.0.mlp.up_proj.weight", language), Some(3.0));
    assert_eq!(weight("layers.0.mlp.up_proj.weight", Some(Modality::Vision)), Some(4.0));
    assert_eq!(weight("embed_tokens.weight", language), Some(4.0));
    // A parameter of the whole merge does not ask the models.
    let shared = KnownParameter { per_model: false, ..WEIGHT };
    assert_eq!(number(&recipe, shared, at(0, Some(0), "layers.0.self_attn.q_proj.weight", 0.0)), Some(2.0));
}

#[test]
fn names_come_from_folders_and_are_made_unique() {
    let recipe = Recipe::parse(
        "merge_method: linear\nbase_model: x/model\nmodels: [a/model, b/model+c/model, {p: 1}]".replace("[a/model, b/model+c/model, {p: 1}]",
        "\n  - model: a/model\n  - model: b/model+c/model\n  - model: c/\n  - {model: '..', name: model-3}\n  - model: .\n  - model: ' d e '").as_str(),
    )
    .unwrap();
    // The base is named last, so that it takes no name from a task.
    assert_eq!(names(&recipe), ["model-5", "model", "model-2", "c", "model-3", "model-4", "d e"]);
}

#[test]
fn model_references() {
    let model = |reference: &str| {
        let recipe =
            Recipe::parse(&format!("merge_method: linear\nmodels:\n  - model: {reference}\n")).unwrap();
        (recipe.models[0].path.clone(), recipe.models[0].adapter.clone(), recipe.to_value())
    };
    assert_eq!(model("a+b").1, Some(PathBuf::from("b")));
    assert_eq!(model("a + b").0, PathBuf::from("a"));
    let literal = "{model: {path: c++/a}, lora: {path: b+}}";
    assert_eq!((model(literal).0, model(literal).1), (PathBuf::from("c++/a"), Some(PathBuf::from("b+"))));
    assert_eq!(model("{model: c++/a, lora: null}").0, PathBuf::from("c++/a"));
    assert_eq!(model("a@main").0, PathBuf::from("a@main"));
    for reference in ["a+b", literal, "{model: c++}", "x"] {
        let normal = model(reference).2;
        assert_eq!(Recipe::parse(&normal.to_string()).unwrap().to_value(), normal);
    }
}

#[test]
fn modules_default_equals_the_top_level_and_ranks_above_the_global_parameters() {
    let recipe = Recipe::parse(
        "merge_method: linear
parameters: {weight: 9}
modules:
  default:
    models: [{model: a, parameters: {weight: 7}}, {model: b}]
    parameters: {weight: [{filter: mlp, value: 2}]}
",
    )
    .unwrap();
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(0), "mlp", 0.0)), Some(7.0));
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(1), "mlp", 0.0)), Some(2.0));
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(1), "attn", 0.0)), Some(9.0));
}

#[test]
fn nulls_count_as_absent_and_a_slice_may_have_its_own_base() {
    let recipe = Recipe::parse(
        "{merge_method: m, base_model: z, dtype: null, parameters: null, models: null, tokenizer: {source: t}, mask: none,
          slices: [{sources: [{model: a, layer_range: [0, 1]}, {model: y, layer_range: [3, 4]}], base_model: y}]}",
    )
    .unwrap();
    assert_eq!(recipe.slices[0].base, Some(1));
    assert!(matches!(recipe.mask, MaskChoice::None));
    assert_eq!(recipe.tasks().map(|i| recipe.models[i].name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(matches!(&recipe.tokenizer, Some(Tokenizer::Model { path, .. }) if path == Path::new("t")));
}

#[test]
fn anchors_are_expanded() {
    let recipe =
        Recipe::parse("merge_method: linear\nmodels:\n- {model: a, parameters: &p {weight: 2}}\n- {model: b, parameters: *p}")
            .unwrap();
    assert_eq!(number(&recipe, WEIGHT, at(0, Some(1), "x", 0.0)), Some(2.0));
}

#[test]
fn models_are_found_in_the_recipe_folder_first() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("here")).unwrap();
    let file = folder.path().join("recipe.yaml");
    fs::write(&file, "merge_method: linear\nmodels: [{model: here}, {model: src}, {model: owner/name}, {model: here@main}]").unwrap();
    let recipe = Recipe::read(&file).unwrap();
    assert_eq!(recipe.locate(0).unwrap(), (folder.path().join("here"), None));
    assert_eq!(recipe.locate(1).unwrap().0, Path::new("src"), "tests run in the crate's folder");
    assert_eq!(recipe.locate_tokenizer().unwrap(), folder.path().join("here"));
    let error = recipe.locate(2).unwrap_err();
    assert!(matches!(&error, RecipeError::NotLocal { tried, .. } if tried.len() == 2));
    let text = error.to_string();
    assert!(text.contains("models[2].model (line 2)") && text.contains("hf download owner/name"), "{text}");
    assert!(
        Recipe::parse("merge_method: m\nmodels: [{model: ~/x}]")
            .unwrap()
            .locate(0)
            .unwrap_err()
            .to_string()
            .contains("`~`")
    );
}

#[test]
fn layer_keys() {
    let split = |key| LayerKey::parse(key).map(|layer| (layer.stack, layer.index, layer.rest));
    assert_eq!(split("model.layers.12.mlp.up_proj.weight"), Some(("model.layers", 12, "mlp.up_proj.weight")));
    assert_eq!(split("vision_backbone.featurizer.blocks.3.ls1.scale_factor").unwrap().1, 3);
    assert_eq!(split("transformer.h.0.attn.weight"), Some(("transformer.h", 0, "attn.weight")));
    assert_eq!(split("model.mlp_resnet_blocks.23.ffn.0.weight").unwrap().1, 23);
    assert_eq!(split("encoder.layer.5.output.dense.bias").unwrap().1, 5);
    assert_eq!(split("model.layers.1.mlp.blocks.7.w").unwrap().1, 1, "the outermost");
    assert_eq!(split("layers.4"), Some(("layers", 4, "")));
    for key in [
        "model.norm.weight",
        "lm_head.weight",
        "ffn.0.weight",
        "model.layer_norm1.weight",
        "",
        ".",
        "layers.+1.x",
        "layers.99999999999999999999.x",
    ] {
        assert_eq!(split(key), None, "{key}");
    }
    let layer = LayerKey::parse("model.layers.9.mlp.w").unwrap();
    assert_eq!(layer.with_index(2), "model.layers.2.mlp.w");
    assert_eq!(layer.renumbered(&(8..32), 24).as_deref(), Some("model.layers.25.mlp.w"));
    assert_eq!(layer.renumbered(&(0..9), 0), None);
    assert_eq!(
        [layer_fraction(0, 5), layer_fraction(2, 5), layer_fraction(4, 5), layer_fraction(0, 1)],
        [0.0, 0.5, 1.0, 1.0]
    );
}

#[test]
fn seeds_keep_all_their_bits() {
    let recipe =
        Recipe::parse(&format!("merge_method: m\nmodels: [{{model: a}}]\nseed: {}", u64::MAX)).unwrap();
    assert_eq!(recipe.seed, u64::MAX);
    assert_eq!(Recipe::parse(&recipe.to_value().to_string()).unwrap().seed, u64::MAX);
}
