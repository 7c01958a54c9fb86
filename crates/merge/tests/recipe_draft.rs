//! Values that come into a recipe from outside of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use skillweld_merge::recipe::{Draft, KnownParameter, Lookup, ParamValue, ParameterKind, Recipe};

const TEXT: &str = "\
merge_method: ties
base_model: models/base
models:
  - {model: experts/pick-v1.5, parameters: {weight: 0.3}}
  - {model: experts/b, name: push}
mask: {method: tall, lambda: 0.6}
parameters: {density: 1}
";

/// What the recipe says, in one form.
fn same(settings: &[(&str, &str)], from: &str, to: &str) {
    assert!(TEXT.contains(from), "{from}");
    let expected = Recipe::parse(&TEXT.replace(from, to)).unwrap();
    let found = Draft::new(TEXT).recipe(settings).unwrap();
    assert_eq!(found.to_value(), expected.to_value(), "{settings:?}");
}

#[test]
fn fields_are_set_by_their_path() {
    same(&[], "0.3", "0.3");
    same(&[("mask.lambda", "0.4")], "lambda: 0.6", "lambda: 0.4");
    same(&[("merge_method", "task_arithmetic")], "ties", "task_arithmetic");
    same(&[("models.0.parameters.weight", "0.5")], "0.3", "0.5");
    same(&[("models[0].parameters.weight", "0.5")], "0.3", "0.5");
    same(&[("models.pick-v1.5.parameters.weight", "0.5")], "0.3", "0.5");
    same(&[("models.push.parameters.weight", "2")], "name: push", "name: push, parameters: {weight: 2}");
    same(&[("groups.vision.weight", "0.5")], "mask:", "groups: {vision: {weight: 0.5}}\nmask:");
    same(&[("seed", "7"), ("parameters.density", "0.2")], "{density: 1}", "{density: 0.2}\nseed: 7");
}

/// What stands in a value is the value, whatever else is set.
#[test]
fn values_are_not_looked_through_for_placeholders() {
    let draft = Draft::new("merge_method: linear\nmodels:\n  - model: ${a}\n    name: ${b}\n");
    for settings in [[("a", "x${b}"), ("b", "y")], [("b", "y"), ("a", "x${b}")]] {
        let recipe = draft.recipe(&settings).unwrap();
        assert_eq!(recipe.models[0].path, Path::new("x${b}"));
        assert_eq!(recipe.models[0].name, "y");
    }
}

#[test]
fn placeholders_take_values_and_what_these_lack_of_one() {
    let text = "\
merge_method: linear
models:
  - {model: a, parameters: {weight: \"${1-alpha}\"}}
  - model: b
    parameters:
      weight: ${alpha}
";
    let recipe = Draft::new(text).recipe(&[("alpha", "0.9")]).unwrap();
    let parameter = KnownParameter { name: "weight", kind: ParameterKind::Number, per_model: true };
    let weight = |source| {
        let lookup =
            Lookup { slice: 0, source: Some(source), key: "key", layer_fraction: 0.0, modality: None };
        recipe.parameter(&parameter, &lookup).unwrap().unwrap()
    };
    assert_eq!([weight(0), weight(1)], [ParamValue::Number(0.1), ParamValue::Number(0.9)]);
}

#[test]
fn what_leads_nowhere_is_refused_with_the_remedy() {
    let error = |settings: &[(&str, &str)]| Draft::new(TEXT).recipe(settings).unwrap_err().to_string();
    let said = error(&[("mask.lamda.x.y", "1"), ("msak", "1")]);
    assert!(said.contains("unknown field `msak`") && said.contains("did you mean `mask`?"), "{said}");
    let said = error(&[("models.psuh.parameters.weight", "1")]);
    assert!(said.contains("`psuh`") && said.contains("did you mean `push`?"), "{said}");
    let said = error(&[("models.7.parameters.weight", "1")]);
    assert!(said.contains("unknown field `7` in models (line 4)"), "{said}");
    let said = error(&[("parameters", "1")]);
    assert!(
        said.contains("parameters (line 7): is a mapping") && said.contains("`parameters.density`"),
        "{said}"
    );
    let said = error(&[("merge_method.x", "1")]);
    assert!(said.contains("merge_method (line 1)") && said.contains("has no field `x`"), "{said}");

    let draft = Draft::new("merge_method: linear\nmodels: [{model: a, parameters: {weight: '${1-w}'}}]\n");
    let said = draft.recipe(&[]).unwrap_err().to_string();
    assert_eq!(said, "${w} (line 2): has no value; give it one with `--set w=VALUE`");
    let said = draft.recipe(&[("w", "much")]).unwrap_err().to_string();
    assert!(said.contains("needs a number for `w`, not `much`"), "{said}");
}
