//! Averaged blocks and router subspaces against a head merged by the published MergeVLA code (`head-tiny` of the crate `merged`).

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "../../merged/tests/support/mod.rs"]
mod merged_support;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array2, Ix2};
use skillweld_store::{Checkpoint, write_torch_zip};
use skillweld_tensor::{Dtype, TensorView, convert};
use support::{data, merge, relative_error, tensor};

/// An expert's projector.
const PROJECTOR: &str = "proprio_projector--1000_checkpoint.pt";

/// Writes another projector: x becomes x / 2 + its index / 1024.
fn write_other(projector: &Path, to: &Path) {
    let checkpoint = Checkpoint::open(projector).unwrap();
    let other = |key: &str| {
        let values = tensor(&checkpoint, key).into_iter().enumerate();
        let values: Vec<f32> = values.map(|(i, x)| x / 2.0 + i as f32 / 1024.0).collect();
        let mut bytes = vec![0; values.len() * 4];
        convert::encode(Dtype::F32, &values, &mut bytes).unwrap();
        (key.to_owned(), bytes)
    };
    let bytes: BTreeMap<String, Vec<u8>> = checkpoint.keys().map(other).collect();
    let view = |key: &String| {
        let shape = checkpoint.get(key).unwrap().shape();
        TensorView::new(Dtype::F32, shape, &bytes[key]).unwrap()
    };
    let tensors: Vec<_> = bytes.keys().map(|key| (key.as_str(), view(key))).collect();
    write_torch_zip(to, &tensors).unwrap();
}

/// Lays the fixture out as two experts on a tiny base, and merges them.
fn merged() -> tempfile::TempDir {
    merged_with("router: {rank: 4}\n")
}

fn merged_with(router: &str) -> tempfile::TempDir {
    let (fixture, dir) = (merged_support::data("head-tiny"), tempfile::tempdir().unwrap());
    for expert in ["expert0", "expert1"] {
        let folder = dir.path().join(expert);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(
            data("merge-tiny").join(format!("{expert}.safetensors")),
            folder.join("model.safetensors"),
        )
        .unwrap();
        let head = format!("{expert}--action_head--checkpoint.pt");
        std::fs::copy(fixture.join(&head), folder.join("action_head--1000_checkpoint.pt")).unwrap();
    }
    let projector = fixture.join("proprio_projector--checkpoint.pt");
    std::fs::copy(&projector, dir.path().join("expert0").join(PROJECTOR)).unwrap();
    write_other(&projector, &dir.path().join("expert1").join(PROJECTOR));
    let base = data("merge-tiny").join("base.safetensors");
    let recipe = format!(
        "merge_method: task_arithmetic\nbase_model: {}\nmodels: [{{model: expert0}}, {{model: expert1}}]\nmask: tall\naction_expert: {{head_blocks: 1}}\n{router}",
        base.display()
    );
    merge(dir.path(), &recipe, &dir.path().join("merged"), 2).unwrap();
    dir
}

#[test]
fn shared_blocks_are_the_published_average_and_heads_the_experts_own() {
    let (fixture, dir) = (merged_support::data("head-tiny"), merged());
    let ours = Checkpoint::open(dir.path().join("merged/action_expert.safetensors")).unwrap();
    let official = Checkpoint::open(fixture.join("merged--action_head--checkpoint.pt")).unwrap();
    let (mut shared, mut own) = (0, 0);
    for key in official.keys() {
        if key.contains("gate.gate") || key.ends_with("router_layer_idx") {
            continue;
        }
        if key == "model.mlp_resnet_moe_blocks.0.gating_factor" {
            // Published as one vector over the experts.
            for (expert, &gate) in tensor(&official, key).iter().enumerate() {
                let name = format!("experts/expert{expert}/model.mlp_resnet_blocks.23.gating_factor");
                assert_eq!(tensor(&ours, &name).as_slice(), Some(&[gate][..]));
            }
            continue;
        }
        // Published: `mlp_resnet_moe_blocks.{j}.q_proj_task.experts.{e}.weight`; ours: the expert's own name.
        let parts: Vec<&str> = key.split('.').collect();
        let name = match parts.iter().position(|part| *part == "experts") {
            None => {
                shared += 1;
                key.to_owned()
            }
            Some(at) => {
                own += 1;
                let expert = parts[at + 1];
                let mut name: Vec<String> = parts.iter().map(|p| (*p).to_owned()).collect();
                name.drain(at..at + 2);
                if name[1] == "mlp_resnet_moe_blocks" {
                    name[1] = "mlp_resnet_blocks".to_owned();
                    name[2] = (name[2].parse::<usize>().unwrap() + 23).to_string();
                }
                format!("experts/expert{expert}/{}", name.join("."))
            }
        };
        let error = relative_error(&tensor(&ours, &name), &tensor(&official, key));
        assert!(error <= 1e-6, "{key} as {name}: {error}");
    }
    assert!(shared > 400 && own > 30, "{shared} shared and {own} own tensors compared");
}

#[test]
fn router_subspaces_are_the_published_ones_up_to_sign() {
    let (fixture, dir) = (merged_support::data("head-tiny"), merged());
    let ours = Checkpoint::open(dir.path().join("merged/router.safetensors")).unwrap();
    let official = Checkpoint::open(fixture.join("merged--action_head--checkpoint.pt")).unwrap();
    let matrix = |checkpoint: &Checkpoint, key: &str| -> Array2<f32> {
        tensor(checkpoint, key).into_dimensionality::<Ix2>().unwrap()
    };
    let gates: Vec<&str> = official.keys().filter(|key| key.contains("gate.gate")).collect();
    assert_eq!(gates.len(), 4, "{gates:?}");
    for expert in 0..2 {
        for (suffix, place) in [("adapter", 0), ("task", 1)] {
            let rows = matrix(&ours, &format!("expert{expert}/{suffix}"));
            assert_eq!(rows.dim(), (4, 32));
            let identity = rows.dot(&rows.t()) - Array2::<f32>::eye(4);
            assert!(identity.iter().all(|x| x.abs() < 1e-6), "rows are not orthonormal");
            // The published subspace is this one, vector by vector, with either sign.
            let key = format!("model.gate.gate.{place}.routers.{expert}");
            let published = matrix(&official, gates.iter().find(|gate| gate.starts_with(&key)).unwrap());
            let published = if published.dim() == rows.dim() { published } else { published.reversed_axes() };
            assert_eq!(published.dim(), rows.dim());
            // What scores are made of is the subspace: PᵀP.
            let projector = |p: &Array2<f32>| p.mapv(f64::from).t().dot(&p.mapv(f64::from));
            let difference = projector(&rows) - projector(&published);
            assert!(difference.iter().all(|x| x.abs() <= 1e-6), "{key}");
            // Single vectors are as uncertain as rounding over the gap to the next singular value, 0.02 to 0.08 of the
            // largest here: the published ones, decomposed in f32, are up to 4.4e-6 from those of a decomposition in f64.
            for (ours, published) in rows.rows().into_iter().zip(published.rows()) {
                let sign = ours.dot(&published).signum();
                assert!(ours.iter().zip(published).all(|(a, b)| (a - sign * b).abs() <= 5e-6), "{key}");
            }
        }
    }
}

/// The paper's ablation: subspaces of keys, of values, of both, under names of their own.
#[test]
fn subspaces_are_those_of_the_projections_that_the_recipe_names() {
    let fixture = merged_support::data("head-tiny");
    for (projections, layers) in [
        ("v", vec![("adapter", "v_adapter"), ("task", "v_task")]),
        ("k", vec![("adapter_k", "k_adapter"), ("task_k", "k_task")]),
        (
            "kv",
            vec![
                ("adapter", "v_adapter"),
                ("task", "v_task"),
                ("adapter_k", "k_adapter"),
                ("task_k", "k_task"),
            ],
        ),
    ] {
        let dir = merged_with(&format!("router: {{rank: 4, projections: {projections}}}\n"));
        let ours = Checkpoint::open(dir.path().join("merged/router.safetensors")).unwrap();
        assert_eq!(ours.keys().count(), 2 * layers.len(), "{projections}");
        for expert in 0..2 {
            let head = fixture.join(format!("expert{expert}--action_head--checkpoint.pt"));
            let head = Checkpoint::open(head).unwrap();
            for (suffix, layer) in &layers {
                let matrix = |checkpoint: &Checkpoint, key: &str| -> Array2<f32> {
                    tensor(checkpoint, key).into_dimensionality::<Ix2>().unwrap()
                };
                let rows = matrix(&ours, &format!("expert{expert}/{suffix}"));
                let layer = matrix(&head, &format!("model.mlp_resnet_blocks.22.{layer}.weight"));
                let singular = skillweld_linalg::thin_svd(&layer.view()).unwrap().vt;
                for (row, singular) in rows.rows().into_iter().zip(singular.rows()) {
                    assert!(
                        (row.dot(&singular).abs() - 1.0).abs() < 1e-5,
                        "{projections}: {suffix} of {expert}"
                    );
                }
            }
        }
        let merged = skillweld_merged::MergedCheckpoint::open(dir.path().join("merged")).unwrap();
        assert_eq!(merged.router(1).len(), layers.len() / 2);
    }
}

#[test]
fn projectors_are_averaged() {
    let dir = merged();
    let ours = Checkpoint::open(dir.path().join("merged/action_expert.safetensors")).unwrap();
    let experts =
        ["expert0", "expert1"].map(|name| Checkpoint::open(dir.path().join(name).join(PROJECTOR)).unwrap());
    for key in experts[0].keys() {
        let [a, b] = experts.each_ref().map(|expert| tensor(expert, key));
        assert_ne!(a, b, "{key}");
        let error = relative_error(&tensor(&ours, &format!("proprio_projector.{key}")), &((a + b) / 2.0));
        assert!(error <= f32::EPSILON, "{key}: {error}");
    }
}
