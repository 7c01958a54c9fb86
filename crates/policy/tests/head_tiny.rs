//! Action experts of all three published designs, and merged ones, against the published model code.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use ndarray::{Ix4, s};
use skillweld_linalg::Threads;
use skillweld_policy::backend::{Backend, Matrix};
use skillweld_policy::expert::{ActionExpert, ExpertOptions, HiddenState};
use skillweld_policy::{Cpu, CpuMatrix, Device, ExpertSource, Plan, Precision};
use skillweld_store::Checkpoint;
use support::{assert_close, fixture, tensor};

/// Compares the actions of every expert of one head with the tensors `expected`.
fn check(dir: &Path, head: &str, io: &Checkpoint, expected: &[&str]) {
    let hidden_all = Checkpoint::open(dir.join("io.safetensors")).unwrap();
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

#[test]
fn heads_of_mergevla() {
    let Some(dir) = fixture("head-tiny") else { return };
    let io = Checkpoint::open(dir.join("io.safetensors")).unwrap();
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
