//! Bad recipes: each is refused with a message that names the field, its line and the remedy, and none panics.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::fs;

use proptest::prelude::*;
use skillweld_merge::recipe::{KnownParameter, ParameterKind, Recipe, RecipeError};

const TIES: &[KnownParameter<'static>] = &[
    KnownParameter { name: "weight", kind: ParameterKind::Number, per_model: true },
    KnownParameter { name: "density", kind: ParameterKind::Number, per_model: true },
    KnownParameter { name: "normalize", kind: ParameterKind::Boolean, per_model: false },
    KnownParameter { name: "scope", kind: ParameterKind::Text, per_model: false },
];
const TALL: &[KnownParameter<'static>] =
    &[KnownParameter { name: "lambda", kind: ParameterKind::Number, per_model: false }];

/// Parses and checks, as a merge does before it looks at any model.
fn check(text: &str) -> Result<(), RecipeError> {
    let recipe = Recipe::parse(text)?;
    recipe.check_parameters(TIES)?;
    recipe.check_mask_parameters(TALL)
}

fn refusal(text: &str) -> String {
    match check(text) {
        Ok(()) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

/// A recipe for two models with `more` at its end.
fn with(more: &str) -> String {
    format!("merge_method: ties\nbase_model: z\nmodels:\n  - model: a\n  - model: b\n{more}")
}

#[test]
fn the_frame_of_these_tests_is_a_good_recipe() {
    check(&with("mask: {method: tall, lambda: 0.6}\nparameters: {weight: 1, int8_mask: true}")).unwrap();
}

#[test]
fn messages_name_the_field_the_line_and_the_remedy() {
    let cases: &[(&str, &str)] = &[
        // Misspelt fields, at every level.
        (
            "merge_metod: ties",
            "unknown field `merge_metod` in the recipe (line 6); did you mean `merge_method`?",
        ),
        ("base-model: x", "unknown field `base-model` in the recipe (line 6); did you mean `base_model`?"),
        (
            "zzz: 1",
            "unknown field `zzz` in the recipe (line 6); allowed are name, merge_method, base_model, models,",
        ),
        (
            "action_expert: {heads: 1}",
            "unknown field `heads` in action_expert (line 6); allowed are head_blocks",
        ),
        ("action_expert: {head_block: 1}", "in action_expert (line 6); did you mean `head_blocks`?"),
        ("router: {rnk: 8}", "unknown field `rnk` in router (line 6); did you mean `rank`?"),
        (
            "groups:\n  visoin: {weight: 1}",
            "unknown field `visoin` in groups (line 7); did you mean `vision`?",
        ),
        (
            "parameters:\n  weight: [{filtr: mlp, value: 1}]",
            "unknown field `filtr` in parameters.weight[0] (line 7); did you mean `filter`?",
        ),
        // Misspelt and misplaced parameters.
        (
            "parameters:\n  densty: 0.1",
            "unknown parameter `densty` of `ties` in parameters (line 7); did you mean `density`?",
        ),
        (
            "groups: {action: {wieght: 1}}",
            "unknown parameter `wieght` of `ties` in groups.action (line 6); did you mean `weight`?",
        ),
        (
            "mask: {method: tall, lamda: 1}",
            "unknown parameter `lamda` of `tall` in mask (line 6); did you mean `lambda`?",
        ),
        (
            "parameters: {temperature: 1}",
            "unknown parameter `temperature` of `ties` in parameters (line 6); allowed are weight, density, normalize, scope",
        ),
        // Wrong types.
        ("parameters: {weight: abc}", "parameters.weight (line 6) must be a finite number, not \"abc\""),
        (
            "parameters: {weight: [0, abc]}",
            "parameters.weight (line 6) must be a finite number, not [0.0,\"abc\"]",
        ),
        ("parameters: {normalize: 0.5}", "parameters.normalize (line 6) must be true or false, not 0.5"),
        ("parameters: {scope: 1}", "parameters.scope (line 6) must be text, not 1.0"),
        (
            "parameters: {weight: null}",
            "parameters.weight (line 6) must be a number, true, false or text, not nothing",
        ),
        (
            "parameters: {weight: [[1]]}",
            "parameters.weight[0] (line 6) must be a number, true, false or text, not a list",
        ),
        ("parameters: {weight: [{value: 1}, 2]}", "parameters.weight[1] (line 6) must be a mapping, not `2`"),
        (
            "parameters: {weight: [{filter: mlp}]}",
            "parameters.weight[0] (line 6) lacks `value`: write `value: …` beside the filter",
        ),
        ("parameters: [1]", "parameters (line 6) must be a mapping of parameters, not a list"),
        ("seed: x", "seed (line 6) must be a whole number, not the text \"x\""),
        ("allow_non_finite: 1", "allow_non_finite (line 6) must be true or false, not `1`"),
        ("dtype: 16", "dtype (line 6) must be text, not `16`"),
        ("mask: 3", "mask (line 6) must be `none`, a mask method, or a mapping with `method`, not `3`"),
        // Values out of range.
        (
            "parameters: {weight: []}",
            "parameters.weight (line 6) is an empty list, but must be a gradient of at least one value",
        ),
        ("parameters: {weight: .nan}", "parameters.weight (line 6) is `NaN`, but must be a finite number"),
        (
            "parameters: {weight: [1, -.inf]}",
            "parameters.weight[1] (line 6) is `-inf`, but must be a finite number",
        ),
        ("parameters: {weight: 'nan'}", "parameters.weight (line 6) must be a finite number, not \"nan\""),
        (
            "action_expert: {head_blocks: -1}",
            "action_expert.head_blocks (line 6) is -1, but must be a whole number from 0 to 256",
        ),
        ("action_expert: {head_blocks: 257}", "is 257, but must be a whole number from 0 to 256"),
        (
            "action_expert: {head_blocks: 1.5}",
            "action_expert.head_blocks (line 6) must be a whole number, not `1.5`",
        ),
        ("router: {rank: 0}", "router.rank (line 6) is 0, but must be a whole number from 1 to 4096"),
        ("router: {rank: 5000}", "router.rank (line 6) is 5000, but must be a whole number from 1 to 4096"),
        ("router: {subspace: per-task}", "but must be `per_task` or `merged`; did you mean `per_task`?"),
        (
            "router: {projections: vk}",
            "router.projections (line 6) is the text \"vk\", but must be `v`, `k` or `kv`",
        ),
        ("seed: -1", "seed (line 6) is -1, but must be a whole number from 0 to 18446744073709551615"),
        ("dtype: int8", "dtype (line 6) is the text \"int8\", but must be a float type, such as bfloat16"),
        // What mergekit has and Skillweld does not.
        (
            "tokenizer: {source: base, pad_to_multiple_of: 8}",
            "tokenizer.pad_to_multiple_of (line 6): `pad_to_multiple_of` is not supported",
        ),
        (
            "tokenizer: {source: base, tokens: {x: {source: a}}}",
            "tokenizer.tokens (line 6): `tokens` is not supported",
        ),
        ("tokenizer: {}", "tokenizer (line 6) lacks `source`: write `source: base` or a model's path"),
        (
            "chat_template: chatml",
            "chat_template (line 6): `chat_template` is not supported; the template comes with the tokenizer; write `auto`",
        ),
        // Contradictions.
        ("slices: []", "slices (line 6): give one of `models`, `slices` and `modules`, not several"),
        ("modules: {default: {models: [{model: a}]}}", "modules (line 6): give one of"),
        (
            "tokenizer_source: base\ntokenizer: {source: base}",
            "tokenizer (line 7): give `tokenizer_source` or `tokenizer`, not both",
        ),
        ("mask: {method: none, lambda: 1}", "mask (line 6): `none` takes no parameters"),
        ("mask: {lambda: 1}", "mask (line 6) lacks `method`: write `method: tall`"),
    ];
    for (more, expected) in cases {
        let message = refusal(&with(more));
        assert!(message.contains(expected), "{more}\n  says  {message}\n  not   {expected}");
    }
}

#[test]
fn whole_recipes_that_are_refused() {
    let cases: &[(&str, &str)] = &[
        ("", "the recipe (line 1) must be a mapping, not nothing"),
        ("- a", "the recipe (line 1) must be a mapping, not a list"),
        ("models: [{model: a}]", "lacks `merge_method`"),
        ("merge_method: ties", "lacks `models`: list the models to merge (or `slices` of their layers)"),
        (
            "merge_method: ties\nmodels: []",
            "models (line 2) is empty, but must be a list of models with at least one entry",
        ),
        ("merge_method: ties\nslices: []", "slices (line 2) is empty"),
        ("merge_method: ties\nslices: [{sources: []}]", "slices[0].sources (line 2) is empty"),
        ("merge_method: ties\nmodules: {}", "modules (line 2) lacks `default`"),
        (
            "merge_method: ties\nmodules: {vision: {models: [{model: a}]}}",
            "module `vision` is not supported; list the models at the top level",
        ),
        ("merge_method: ties\nmodels: a", "models (line 2) must be a list, not the text \"a\""),
        ("merge_method: ties\nmodels: [{}]", "models[0] (line 2) lacks `model`"),
        (
            "merge_method: ties\nmodels: [{model: a}, {model: a}]",
            "models[1].model (line 2): is the same model as entry 0",
        ),
        (
            "merge_method: ties\nmodels: [{model: a+b+c}]",
            "`a+b+c` has more than one `+`; write `{model: {path: …}",
        ),
        (
            "merge_method: ties\nmodels: [{model: +b}]",
            "models[0].model (line 2) is \"+b\", but must be a path, or PATH+ADAPTER",
        ),
        (
            "merge_method: ties\nmodels: [{model: {model: {path: a, revision: x}}}]",
            "models[0].model.model.revision (line 2): `revision` is not supported",
        ),
        (
            "merge_method: ties\nmodels: [{model: {path: a}}]",
            "unknown field `path` in models[0].model (line 2)",
        ),
        (
            "merge_method: ties\nmodels:\n  - model: a\n    parameters:\n      densty: 1",
            "unknown parameter `densty` of `ties` in models[0].parameters (line 5); did you mean `density`?",
        ),
        (
            "merge_method: ties\nmodels:\n  - model: a\n    parameters:\n      scope: global",
            "`scope` of `ties` applies to the whole merge, but models[0].parameters.scope (line 5)",
        ),
        (
            "merge_method: ties\nmodels: [{model: a}]\nmask: tall",
            "mask (line 3): masks select entries of task vectors, so they need a `base_model`",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a}]}]",
            "slices[0].sources[0] (line 2) lacks `layer_range`",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 3]}]}]",
            "takes 3 layers, but the slice's first source takes 4",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: [4, 4]}]}]",
            "slices[0].sources[0].layer_range (line 2) is [4, 4], but must be a range of at least one layer",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: [-2, 4]}]}]",
            "layer_range[0] (line 2) is -2",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: 4}]}]",
            "layer_range (line 2) must be a list, not `4`",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: [4]}]}]",
            "must be two layer numbers, [first, end], not a list",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: [0, 4]}], base_model: q}]",
            "slices[0].base_model (line 2): is not among the slice's sources",
        ),
        (
            "merge_method: ties\nslices: [{sources: [{model: a, layer_range: [0, 4]}], residual_weight: 1}]",
            "`residual_weight` is not supported; remove it",
        ),
        (
            "merge_method: ties\nmerge_method: linear\nmodels: [{model: a}]",
            "`merge_method` is written twice in one mapping, the second time in line 2; keep one of them",
        ),
        (
            "merge_method: ties\nmodels: [{model: a}]\n---\nmerge_method: ties\nmodels: [{model: a}]",
            "the file holds 2 recipes; `skillweld merge` without `--set` takes several",
        ),
        ("merge_method: [", "the recipe is not usable YAML"),
        ("a: *b", "the recipe is not usable YAML"),
    ];
    for (text, expected) in cases {
        let message = refusal(text);
        assert!(message.contains(expected), "{text}\n  says  {message}\n  not   {expected}");
    }
}

#[test]
fn task_names_must_be_safe_and_unique() {
    for (name, reason) in [
        ("''", "is empty"),
        ("'..'", "means a folder"),
        ("a/b", "path separator"),
        ("'a\\b'", "path separator"),
        ("\"a\\nb\"", "control character"),
        ("\"a\\0b\"", "control character"),
        ("' a'", "begins or ends with a space"),
        ("__metadata__", "begins with `__`"),
        (&"x".repeat(101), "more than 100 bytes"),
    ] {
        let message = refusal(&format!("merge_method: ties\nmodels: [{{model: a, name: {name}}}]"));
        assert!(
            message.contains("models[0].name (line 2): task name") && message.contains(reason),
            "{message}"
        );
    }
    let message = refusal("merge_method: ties\nmodels: [{model: a, name: pick}, {model: b, name: pick}]");
    assert!(
        message.contains("models[1].name (line 2): task name \"pick\" is another model's already"),
        "{message}"
    );
    let message = refusal(
        "merge_method: ties\nslices: [{sources: [{model: a, name: p, layer_range: [0, 1]}]}, {sources: [{model: a, name: q, layer_range: [0, 1]}]}]",
    );
    assert!(message.contains("the same model is named `p` above"), "{message}");
}

#[test]
fn files_that_are_no_recipes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recipe.yaml");
    assert!(matches!(Recipe::read(&file), Err(RecipeError::Read { .. })));
    fs::write(&file, b"merge_method: t\xffies").unwrap();
    assert!(matches!(Recipe::read(&file), Err(RecipeError::NotUtf8 { offset: 15, .. })));
    assert!(matches!(Recipe::parse(&"#".repeat((1 << 20) + 1)), Err(RecipeError::TooLarge { .. })));
}

#[test]
fn nesting_and_alias_bombs_are_bounded() {
    for opening in ["[", "{a: ", "- ", "? "] {
        assert!(
            matches!(Recipe::parse(&opening.repeat(100_000)), Err(RecipeError::Yaml { .. })),
            "{opening}"
        );
    }
    let deep: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i % 500))).collect();
    assert!(Recipe::parse(&deep).is_err());

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", before.trim_end_matches(", ")));
    }
    assert!(matches!(Recipe::parse(&bomb), Err(RecipeError::Yaml { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&String::from_utf8_lossy(&bytes));
    }

    /// Words of recipes in any order reach far deeper than random bytes.
    #[test]
    fn no_soup_of_recipe_words_panics(words in prop::collection::vec(prop::sample::select(vec![
        "merge_method:", "ties", "models:", "model:", "slices:", "sources:", "layer_range:", "parameters:", "weight:", "mask:",
        "groups:", "name:", "tokenizer:", "modules:", "default:", "base_model:", "seed:", "filter:", "value:", "-", "[", "]",
        "{", "}", ",", "\n", "\n  ", "\n    ", "\n- ", "\n  - ", "0", "-1", "1e999", ".nan", "null", "~", "'", "\"", "&a",
        "*a", "<<:", "!!int", "a+b", "+", "é", "|", ">", "?", "#", "---", "%",
    ]), 0..60)) {
        let _ = check(&words.join(" "));
    }

    /// One damaged byte in a good recipe.
    #[test]
    fn no_damaged_recipe_panics(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = include_bytes!("data/mergevla.yaml").to_vec();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(recipe) = Recipe::parse(&String::from_utf8_lossy(&bytes)) {
            let normal = recipe.to_value();
            let again = Recipe::parse(&normal.to_string());
            prop_assert!(again.is_ok_and(|again| again.to_value() == normal), "{normal}");
        }
    }
}
