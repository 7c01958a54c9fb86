//! The merged action head that the published code made of two experts: its parts are those experts' own.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use ndarray::{Array2, ArrayD, Ix2};
use skillweld_linalg::thin_svd;
use skillweld_merged::{ExpertPart, MergedCheckpoint};
use skillweld_store::Checkpoint;
use support::data;

fn tensor(checkpoint: &Checkpoint, key: &str) -> ArrayD<f32> {
    checkpoint.get(key).unwrap().to_f32().unwrap()
}

#[test]
fn heads_shared_blocks_and_router_are_found_under_their_published_names() {
    let fixture = data("head-tiny");
    let dir = tempfile::tempdir().unwrap();
    let copy = |from, to| std::fs::copy(from, dir.path().join(to)).unwrap();
    copy(fixture.join("merged--action_head--checkpoint.pt"), "action_head--checkpoint.pt");
    copy(fixture.join("proprio_projector--checkpoint.pt"), "proprio_projector--checkpoint.pt");
    // Two tasks and some weights: the fixture is of an action head alone.
    let official = data("merged-official");
    copy(official.join("merged/task2idx.pt"), "task2idx.pt");
    copy(official.join("base/model.safetensors"), "model.safetensors");
    let merged = MergedCheckpoint::open(dir.path()).unwrap();
    let experts: Vec<Checkpoint> = (0..2)
        .map(|e| Checkpoint::open(fixture.join(format!("expert{e}--action_head--checkpoint.pt"))).unwrap())
        .collect();

    for (task, expert) in experts.iter().enumerate() {
        let own: Vec<_> = merged.own_part(ExpertPart::ActionHead, task).collect();
        // The last block, `layer_norm2` and `fc2`.
        let expected: Vec<&str> = expert
            .keys()
            .filter(|key| ["blocks.23.", "layer_norm2.", "fc2."].iter().any(|part| key.contains(part)))
            .collect();
        assert_eq!(own.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected);
        for (name, view) in own {
            let published = expert.get(name).unwrap();
            assert_eq!(
                (view.shape(), view.bytes()),
                (published.shape(), published.bytes()),
                "{name} of {task}"
            );
        }
        let [router] = merged.router(task)[..] else { panic!("values alone") };
        for (subspace, projection) in [(router.adapter, "v_adapter"), (router.task, "v_task")] {
            let rows: Array2<f32> = subspace.to_f32().unwrap().into_dimensionality::<Ix2>().unwrap();
            let orthonormal = rows.dot(&rows.t()) - Array2::<f32>::eye(rows.nrows());
            assert!(orthonormal.iter().all(|x| x.abs() < 1e-5));
            // The top right singular vectors of the expert before merging, up to sign.
            let value = tensor(expert, &format!("model.mlp_resnet_blocks.22.{projection}.weight"));
            let value = value.into_dimensionality::<Ix2>().unwrap();
            let top = thin_svd(&value.view()).unwrap().vt;
            for (row, singular) in rows.outer_iter().zip(top.outer_iter()) {
                assert!((row.dot(&singular).abs() - 1.0).abs() < 1e-5, "{projection} of {task}");
            }
        }
    }
    let shared: Vec<_> = merged.shared_part(ExpertPart::ActionHead).collect();
    assert_eq!(shared.len() + merged.own_part(ExpertPart::ActionHead, 0).count(), experts[0].len());
    for (name, view) in shared {
        let mean = (tensor(&experts[0], name) + tensor(&experts[1], name)) / 2.0;
        let largest = mean.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let error = (view.to_f32().unwrap() - mean).iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(error <= 1e-6 * largest, "{name}");
    }
}
