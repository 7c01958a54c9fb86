//! The GPU's backend, on the emulation of a GPU and on a real one where there is one: the same policy as on the processor, and
//! the published intermediates.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test, a skip must be seen")]

mod merge;
mod support;

use merge::{Merge, observation};
use ndarray::{Array3, Axis, Ix1, Ix4, s};
use skillweld_gpu::{Device, Target};
use skillweld_kernels::Emulator;
use skillweld_linalg::Threads;
use skillweld_policy::backend::Matrix;
use skillweld_policy::{
    Gpu, Inputs, Model, ModelOptions, Observation, Policy, PolicyOptions, Precision, Routing,
};
use skillweld_store::Checkpoint;
use support::{assert_close, data, tensor};

fn emulated(precision: Precision) -> Gpu<Emulator> {
    Gpu::new(Emulator::new(1), precision, Threads::available()).unwrap()
}

/// A GPU, if there is one; with `SKILLWELD_REQUIRE_GPU=1` there must be.
fn device() -> Option<Device> {
    let device = Device::open(0);
    assert!(
        device.is_ok() || std::env::var_os("SKILLWELD_REQUIRE_GPU").is_none_or(|value| value != "1"),
        "{}",
        device.unwrap_err()
    );
    device.inspect_err(|reason| println!("skipped: {reason}")).ok()
}

#[test]
fn every_intermediate_is_the_published_one() {
    published_intermediates(emulated(Precision::F32));
}

#[test]
fn on_a_gpu_every_intermediate_is_the_published_one() {
    let Some(device) = device() else { return };
    published_intermediates(Gpu::new(device, Precision::F32, Threads::available()).unwrap());
}

fn published_intermediates<T: Target + Send>(gpu: Gpu<T>) {
    let dir = data("policy-tiny");
    let io = Checkpoint::open(dir.join("io.safetensors")).unwrap();
    let model = Model::open_on(&dir, &ModelOptions::default(), gpu).unwrap();
    let pixel_values = tensor(&io, "pixel_values").into_dimensionality::<Ix4>().unwrap();
    let proprio = tensor(&io, "proprio").into_dimensionality::<Ix1>().unwrap();
    let ids = io.get("input_ids").unwrap().bytes();
    let ids: Vec<u32> =
        ids.chunks_exact(8).map(|id| i64::from_le_bytes(id.try_into().unwrap()) as u32).collect();
    let inputs = Inputs {
        pixel_values: pixel_values.index_axis(Axis(0), 0),
        input_ids: &ids,
        proprio: proprio.as_slice().unwrap(),
    };
    let forward = model.forward(inputs, 0).unwrap();
    let check = |name: &str, actual: ndarray::ArrayViewD<'_, f32>| {
        assert_close(name, &actual, &tensor(&io, name).view(), 1e-5);
    };
    let vision = forward.perception.vision_features.to_host().unwrap();
    check("vision_features", vision.slice(s![..;4, ..]).into_dyn());
    let hidden = forward.perception.hidden_to_host().unwrap();
    for depth in [0, 12, 24] {
        let hidden = hidden.index_axis(Axis(0), depth);
        check(&format!("hidden.{depth}"), hidden.slice(s![..;4, ..]).into_dyn());
    }
    check("normalized_actions", forward.normalized_actions.view().into_dyn());
}

/// Routing, another task's weights, and actions, as the processor has them.
fn same_policy<T: Target + Send + 'static>(precision: Precision, tolerance: f32, gpu: Gpu<T>) {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(2, 1).write(dir.path());
    let mut options = PolicyOptions::default();
    options.model.precision = precision;
    let on_gpu = Policy::open_on(dir.path(), &options, move || Ok(gpu.for_another_model())).unwrap();
    let on_cpu = Policy::open_with(dir.path(), &options).unwrap();
    let observation: Observation = observation(0);
    let (mut gpu, mut cpu) = (on_gpu.session().unwrap(), on_cpu.session().unwrap());
    let (actual, expected) = (gpu.step(&observation).unwrap(), cpu.step(&observation).unwrap());
    assert_eq!(actual.task, expected.task);
    let (scores, expected_scores) = (actual.decision.unwrap(), expected.decision.unwrap());
    for (score, expected) in scores.candidates.iter().zip(&expected_scores.candidates) {
        assert_eq!(score.task, expected.task);
        assert!((score.score - expected.score).abs() <= tolerance * expected.score.abs());
    }
    let perception = |step: &Array3<f32>| step.clone().into_dyn();
    let hidden = perception(&actual.perception.hidden_to_host().unwrap());
    let expected_hidden = perception(&expected.perception.hidden_to_host().unwrap());
    assert_close("hidden", &hidden.view(), &expected_hidden.view(), tolerance);
    let (actions, expected) = (actual.normalized_actions.into_dyn(), expected.normalized_actions.into_dyn());
    assert_close("actions", &actions.view(), &expected.view(), tolerance);
}

#[test]
fn in_f32_a_policy_routes_and_acts_as_on_the_processor() {
    same_policy(Precision::F32, 1e-5, emulated(Precision::F32));
}

#[test]
fn in_bf16_a_policy_routes_and_acts_as_on_the_processor() {
    same_policy(Precision::Bf16, 2e-2, emulated(Precision::Bf16));
}

#[test]
fn on_a_gpu_a_policy_routes_and_acts_as_on_the_processor() {
    let Some(device) = device() else { return };
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)] {
        let gpu = Gpu::new(device.clone(), precision, Threads::available()).unwrap();
        if precision == Precision::F32 {
            recorded_parts_are_right(gpu.for_another_model());
        }
        same_policy(precision, tolerance, gpu);
    }
}

/// From the second step on parts are recorded, from the third on replayed; what somebody holds is never written again.
#[test]
fn recorded_parts_give_the_same_and_leave_earlier_results_alone() {
    recorded_parts_are_right(emulated(Precision::F32));
}

fn recorded_parts_are_right<T: Target + Send + 'static>(gpu: Gpu<T>) {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(2, 1).write(dir.path());
    let options = PolicyOptions::default();
    let on_gpu = Policy::open_on(dir.path(), &options, move || Ok(gpu.for_another_model())).unwrap();
    let on_cpu = Policy::open_with(dir.path(), &options).unwrap();
    let mut held = Vec::new();
    for (index, (task, seen)) in [(0, 0), (0, 1), (1, 0), (0, 0), (1, 1), (0, 1)].into_iter().enumerate() {
        let step = on_gpu.session_with(Routing::Fixed(task)).step(&observation(seen)).unwrap();
        let expected = on_cpu.session_with(Routing::Fixed(task)).step(&observation(seen)).unwrap();
        let (actual, expected) = (step.actions.view().into_dyn(), expected.actions.view().into_dyn());
        assert_close(&format!("step {index}"), &actual, &expected, 1e-5);
        if index % 3 == 1 {
            held.push((step.perception.hidden_to_host().unwrap(), step.perception));
        }
    }
    for (before, perception) in held {
        assert_eq!(before, perception.hidden_to_host().unwrap());
    }
}
