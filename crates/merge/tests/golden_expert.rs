//! Averaged blocks and router subspaces against a head merged by the published MergeVLA code (fixture `head-tiny`).

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use ndarray::{Array2, Ix2};
use skillweld_store::Checkpoint;
use support::{fixture, merge, relative_error, tensor};

/// Lays the fixture out as two experts on a tiny base, and merges them.
fn merged(fixture: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for expert in ["expert0", "expert1"] {
        let folder = dir.path().join(expert);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(
            support::data("merge-tiny").join(format!("{expert}.safetensors")),
            folder.join("model.safetensors"),
        )
        .unwrap();
        let head = format!("{expert}--action_head--checkpoint.pt");
        std::fs::copy(fixture.join(&head), folder.join("action_head--1000_checkpoint.pt")).unwrap();
        std::fs::copy(
            fixture.join("proprio_projector--checkpoint.pt"),
            folder.join("proprio_projector--1000_checkpoint.pt"),
        )
        .unwrap();
    }
    let base = support::data("merge-tiny").join("base.safetensors");
    let recipe = format!(
        "merge_method: task_arithmetic\nbase_model: {}\nmodels: [{{model: expert0}}, {{model: expert1}}]\nmask: tall\naction_expert: {{head_blocks: 1}}\nrouter: {{rank: 4}}\n",
        base.display()
    );
    merge(dir.path(), &recipe, &dir.path().join("merged"), 2).unwrap();
    dir
}

#[test]
fn shared_blocks_are_the_published_average_and_heads_the_experts_own() {
    let Some(fixture) = fixture("head-tiny") else { return };
    let dir = merged(&fixture);
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
    let Some(fixture) = fixture("head-tiny") else { return };
    let dir = merged(&fixture);
    let ours = Checkpoint::open(dir.path().join("merged/router.safetensors")).unwrap();
    let official = Checkpoint::open(fixture.join("merged--action_head--checkpoint.pt")).unwrap();
    let matrix = |checkpoint: &Checkpoint, key: &str| -> Array2<f32> {
        tensor(checkpoint, key).into_dimensionality::<Ix2>().unwrap()
    };
    let gates: Vec<&str> = official.keys().filter(|key| key.contains("gate.gate")).collect();
    assert_eq!(gates.len(), 4, "{gates:?}");
    for expert in 0..2 {
        for suffix in ["adapter", "task"] {
            let rows = matrix(&ours, &format!("expert{expert}/{suffix}"));
            assert_eq!(rows.dim(), (4, 32));
            let identity = rows.dot(&rows.t()) - Array2::<f32>::eye(4);
            assert!(identity.iter().all(|x| x.abs() < 1e-6), "rows are not orthonormal");
            // One of the published subspaces is this one, row by row, with either sign.
            let is_published = |key: &&&str| {
                let published = matrix(&official, key);
                let published =
                    if published.dim() == rows.dim() { published } else { published.reversed_axes() };
                rows.rows().into_iter().zip(published.rows()).all(|(a, b)| {
                    let sign = a.dot(&b).signum();
                    a.iter().zip(b).all(|(a, b)| (a - sign * b).abs() <= 1e-5)
                })
            };
            let found = gates.iter().find(is_published).unwrap_or_else(|| panic!("expert{expert}/{suffix}"));
            assert!(found.contains(&format!(".{expert}")), "expert{expert}/{suffix} is {found}");
        }
    }
}
