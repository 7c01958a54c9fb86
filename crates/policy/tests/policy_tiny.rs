//! The whole forward against every intermediate of the published model code.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use ndarray::{ArrayView2, ArrayViewD, Axis, Ix1, Ix4, s};
use skillweld_policy::backend::Matrix;
use skillweld_policy::{Inputs, Model, ModelOptions};
use skillweld_store::Checkpoint;
use support::{assert_close, data, tensor};

#[test]
fn every_intermediate_is_the_published_one() {
    let dir = data("policy-tiny");
    let io = Checkpoint::open(dir.join("io.safetensors")).unwrap();
    let model = Model::open(&dir, &ModelOptions::default()).unwrap();
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
    let check = |name: &str, actual: ArrayViewD<'_, f32>| {
        assert_close(name, &actual, &tensor(&io, name).view(), 1e-5);
    };
    // Every fourth row is kept, so that the data stay small.
    let rows = |name: &str, actual: ArrayView2<'_, f32>| check(name, actual.slice(s![..;4, ..]).into_dyn());
    let perception = &forward.perception;
    rows("vision_features", perception.vision_features.to_host().unwrap().view());
    rows("projected", perception.projected.to_host().unwrap().view());
    let hidden = perception.hidden_to_host().unwrap();
    assert_eq!(hidden.dim(), (25, 576, 32));
    for depth in [0, 12, 24] {
        rows(&format!("hidden.{depth}"), hidden.index_axis(Axis(0), depth));
    }
    check("normalized_actions", forward.normalized_actions.view().into_dyn());
}
