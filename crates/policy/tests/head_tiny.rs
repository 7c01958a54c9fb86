//! Action experts of all three published designs, and merged ones, against the published model code.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::{Path, PathBuf};

use ndarray::{Axis, Ix2, Ix4, s};
use skillweld_linalg::Threads;
use skillweld_policy::backend::{Backend, Matrix};
use skillweld_policy::expert::{ActionExpert, ExpertOptions, HiddenState};
use skillweld_policy::{Cpu, CpuMatrix, Device, ExpertSource, Plan, Precision};
use skillweld_store::Checkpoint;
use support::{assert_close, data, fixture, tensor};

/// Compares the actions of every expert of one head with the tensors `expected`.
fn check(dir: &Path, head: &str, io: &Checkpoint, expected: &[&str]) {
    let hidden_all = Checkpoint::open(data("head-tiny/io.safetensors")).unwrap();
    let hidden = tensor(&hidden_all, "hidden").into_dimensionality::<Ix4>().unwrap();
    let task_tokens: usize = hidden_all.metadata()["task_tokens"].parse().unwrap();
    let proprio = tensor(&hidden_all, "proprio");

    let open = |name: &str| Checkpoint::open(dir.join(format!("{name}--checkpoint.pt"))).unwrap();
    let source = ExpertSource::of_head(dir, open(&format!("{head}--action_head")), open("proprio_projector"));
    let backend = Cpu::new(Threads::available(), Precision::F32);
    let mut plan = Plan::new(&source);
    let expert = ActionExpert::<CpuMatrix>::plan(&mut plan, ExpertOptions::default()).unwrap();
    let weights = plan.load(&backend).unwrap();
    let device = Device { backend: &backend, weights: &weights };
    assert_eq!(expert.experts(), expected.len());

    let upload = |view: ndarray::ArrayView2<'_, f32>| {
        let values: Vec<f32> = view.iter().copied().collect();
        backend.upload(view.nrows(), view.ncols(), &values).unwrap()
    };
    let states = hidden.slice(s![0, .., .., ..]);
    let states: Vec<_> = states
        .outer_iter()
        .map(|state| HiddenState {
            task: upload(state.slice(s![..task_tokens, ..])),
            action: upload(state.slice(s![task_tokens.., ..])),
        })
        .collect();
    let proprio = backend.upload(1, proprio.len(), proprio.as_slice().unwrap()).unwrap();
    for (index, expected) in expected.iter().enumerate() {
        let actions = expert.forward(device, &states, &proprio, index).unwrap().to_host().unwrap();
        assert_close(
            &format!("{head} {expected}"),
            &actions.into_dyn().view(),
            &tensor(io, expected).view(),
            1e-5,
        );
    }
}

/// Heads of two experts and of their merge, as the published code wrote them: they come with the crate `merged`.
fn heads() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../merged/tests/data/head-tiny")
}

#[test]
fn heads_of_mergevla() {
    let dir = heads();
    let io = Checkpoint::open(data("head-tiny/io.safetensors")).unwrap();
    check(&dir, "expert0", &io, &["single.0"]);
    check(&dir, "expert1", &io, &["single.1"]);
    check(&dir, "merged", &io, &["actions.0", "actions.1"]);
}

#[test]
fn heads_of_vla_adapter() {
    let Some(dir) = fixture("head-tiny") else { return };
    let io = Checkpoint::open(dir.join("vla_adapter.safetensors")).unwrap();
    check(&dir, "vla_adapter_plain", &io, &["actions.plain"]);
    check(&dir, "vla_adapter_pro", &io, &["actions.pro"]);
}

/// Scores of the router: the official code's logits, from its own merged head and its own hidden states.
#[test]
fn router_logits_of_mergevla() {
    let head = Checkpoint::open(heads().join("merged--action_head--checkpoint.pt")).unwrap();
    let io = Checkpoint::open(data("head-tiny/io.safetensors")).unwrap();
    let hidden = tensor(&io, "hidden").into_dimensionality::<Ix4>().unwrap();
    let depth = (0..)
        .take_while(|i| head.get(&format!("model.mlp_resnet_blocks.{i}.o_proj.weight")).is_some())
        .count();
    // Block l reads depth l + 1.
    let hidden = hidden.slice(s![0, depth + 1, .., ..]);
    let task_tokens: usize = io.metadata()["task_tokens"].parse().unwrap();
    let (task, action) = hidden.split_at(Axis(0), task_tokens);
    let mut expert = 0;
    while io.get(&format!("router_logit.{expert}")).is_some() {
        let subspace = |which: usize| {
            let key = format!("model.gate.gate.{which}.routers.{expert}");
            tensor(&head, &key).into_dimensionality::<Ix2>().unwrap()
        };
        let pair = [subspace(0), subspace(1)];
        let found = skillweld_router::score(&[pair.each_ref().map(|p| p.view())], &action, &task);
        let expected = tensor(&io, &format!("router_logit.{expert}"));
        assert_close("router logit", &ndarray::arr1(&[found]).view().into_dyn(), &expected.view(), 1e-5);
        expert += 1;
    }
    assert!(expert > 1);
}
