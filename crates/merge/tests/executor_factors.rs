//! Methods on whole matrices and methods that take adapters as factors give what `task_arithmetic` gives.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, Models, Plan, RunOptions};
use skillweld_plugin_host::Registry;
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{control, data, files, tensor};

/// Compiles the plugin of this test into `folder`.
fn build(folder: &Path) {
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    // Rust links through the C compiler, so one is there wherever these tests build.
    let output = Command::new("cc")
        .args(["-std=c11", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-abi/include"))
        .arg(data("executor/sums.c"))
        .arg("-o")
        .arg(folder.join(format!("{prefix}skillweld_plugin_sums{suffix}")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Merges with `method` on 1 and on 3 threads, which must give the same bytes.
fn merge(root: &Path, method: &str, models: &str, mask: &str) -> PathBuf {
    let text =
        format!("merge_method: {method}\nbase_model: base\nmodels:\n{models}out_dtype: float32\n{mask}");
    let file = root.join("recipe.yaml");
    std::fs::write(&file, text).unwrap();
    let recipe = Recipe::read(&file).unwrap();
    let opened = Models::open(&recipe).unwrap();
    let registry = Registry::discover(&[root.join("plugins")]).unwrap();
    let plan = Plan::new(&recipe, &opened, &registry, &Control::SILENT).unwrap();
    let [one, three] = [1, 3].map(|threads| {
        let out = root.join(format!("{method}{threads}"));
        plan.run(&out, RunOptions { force: true, ..RunOptions::default() }, &control(threads)).unwrap();
        out
    });
    assert!(files(&one) == files(&three), "{method} depends on the number of threads");
    one
}

#[test]
fn every_way_to_take_experts_gives_the_same_merge() {
    use ExpertForm::{Adapter, Full};
    let mut spec = PrismaticSpec::tiny();
    // One matrix of more than a block, so that a block begins in the middle of the factors.
    spec.language.vocab = 1500;
    for forms in [[Adapter, Adapter], [Full, Full], [Adapter, Full]] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("plugins")).unwrap();
        build(&root.join("plugins"));
        let written = spec.write_all(root, &forms).unwrap();
        let models: String = written
            .experts
            .iter()
            .zip([0.7, -0.4])
            .map(|((_, path), weight)| {
                format!("  - {{model: {}, parameters: {{weight: {weight}}}}}\n", path.display())
            })
            .collect();
        for mask in ["", "mask: positive\n"] {
            let expected = merge(root, "task_arithmetic", &models, mask);
            for method in ["whole", "whole_factors", "block_factors"] {
                let actual = merge(root, method, &models, mask);
                let name = if mask.is_empty() { "model.safetensors" } else { "task_vector.safetensors" };
                let compared = compare(&expected.join(name), &actual.join(name));
                assert!(compared > 20, "only {compared} tensors compared");
                if !mask.is_empty() {
                    compare_masks(&expected, &actual);
                }
                let paths = paths(&actual);
                match method {
                    "block_factors" => assert_eq!(paths, None),
                    // Adapters go to a method as factors, whatever its mask takes.
                    "whole_factors" if forms == [Adapter, Adapter] => {
                        assert!(
                            paths.as_ref().is_some_and(|paths| paths["factored"].as_u64() > Some(10)),
                            "{paths:?}"
                        );
                    }
                    _ => assert!(
                        paths.as_ref().is_some_and(|paths| paths.get("factored").is_none()),
                        "{paths:?}"
                    ),
                }
            }
        }
    }
}

/// What the provenance says about how tensors were computed.
fn paths(merged: &Path) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(merged.join("skillweld.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&text).unwrap();
    provenance["report"].get("paths").cloned()
}

/// Sums of products of f32 may differ by how they were rounded: some ulps of the largest value of the tensor.
fn compare(expected: &Path, actual: &Path) -> usize {
    let (expected, actual) = (Checkpoint::open(expected).unwrap(), Checkpoint::open(actual).unwrap());
    assert!(expected.keys().eq(actual.keys()));
    let error = |key| support::relative_error(&tensor(&actual, key), &tensor(&expected, key));
    expected.keys().map(|key| assert!(error(key) <= 8.0 * f32::EPSILON, "{key}: {}", error(key))).count()
}

/// Only a sign that rounding decides may differ.
fn compare_masks(expected: &Path, actual: &Path) {
    let open = |dir: &Path| Checkpoint::open(dir.join("masks.safetensors")).unwrap();
    let (expected, actual) = (open(expected), open(actual));
    let (mut differ, mut set) = (0, 0);
    for key in expected.keys() {
        let (e, a) = (expected.get(key).unwrap(), actual.get(key).unwrap());
        differ += e.bytes().iter().zip(a.bytes()).map(|(e, a)| (e ^ a).count_ones()).sum::<u32>();
        set += e.bytes().iter().map(|byte| byte.count_ones()).sum::<u32>();
    }
    assert!(set > 50_000 && f64::from(differ) <= 1e-5 * f64::from(set), "{differ} of {set}");
}

#[test]
fn what_is_no_matrix_is_averaged_without_a_method() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir(root.join("plugins")).unwrap();
    build(&root.join("plugins"));
    for (name, values) in [("base", [0.0, 9.0]), ("a", [1.0, 2.0]), ("b", [3.0, 6.0])] {
        let matrix = [values[0]; 4];
        support::checkpoint(root, name, &[("norm", &[2], &values), ("w", &[2, 2], &matrix)]);
    }
    for mask in ["", "mask: positive\n"] {
        let out = merge(root, "whole", "  - {model: a}\n  - {model: b}\n", mask);
        let of = |stem: &str| Checkpoint::open(out.join(format!("{stem}.safetensors"))).unwrap();
        assert_eq!(tensor(&of("model"), "norm").as_slice(), Some(&[2.0, 4.0][..]));
        let of_w = if mask.is_empty() { "model" } else { "task_vector" };
        assert_eq!(tensor(&of(of_w), "w").as_slice(), Some(&[4.0; 4][..]));
    }
}
