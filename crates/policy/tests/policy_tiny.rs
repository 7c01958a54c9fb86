//! The whole forward against every intermediate of the published model code.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use ndarray::{Ix1, Ix4};
use skillweld_policy::backend::Matrix;
use skillweld_policy::{Inputs, Model, ModelOptions};
use skillweld_store::Checkpoint;
use support::{assert_close, fixture, tensor};

#[test]
fn every_intermediate_is_the_published_one() {
    let Some(dir) = fixture("policy-tiny") else { return };
    let io = Checkpoint::open(dir.join("io.safetensors")).unwrap();
    let model = Model::open(&dir, &ModelOptions::default()).unwrap();
    let pixel_values = tensor(&io, "pixel_values").into_dimensionality::<Ix4>().unwrap();
    let proprio = tensor(&io, "proprio").into_dimensionality::<Ix1>().unwrap();
    let ids = io.get("input_ids").unwrap().bytes();
    let ids: Vec<u32> =
        ids.chunks_exact(8).map(|id| i64::from_le_bytes(id.try_into().unwrap()) as u32).collect();
    let inputs = Inputs {
        pixel_values: pixel_values.index_axis(ndarray::Axis(0), 0),
        input_ids: &ids,
        proprio: proprio.as_slice().unwrap(),
    };
    let forward = model.forward(inputs, 0).unwrap();
    println!("{:?}", forward.latency);
    let check = |name: &str, actual: ndarray::ArrayD<f32>| {
        assert_close(name, &actual.view(), &tensor(&io, name).view(), 1e-5);
    };
    let perception = &forward.perception;
    check("vision_features", perception.vision_features.to_host().unwrap().into_dyn());
    check("projected", perception.projected.to_host().unwrap().into_dyn());
    let hidden = perception.hidden_to_host().unwrap();
    let expected = tensor(&io, "hidden").into_dimensionality::<Ix4>().unwrap();
    assert_eq!(expected.shape()[1..], *hidden.shape());
    for (depth, (hidden, expected)) in
        hidden.outer_iter().zip(expected.index_axis(ndarray::Axis(0), 0).outer_iter()).enumerate()
    {
        assert_close(&format!("hidden {depth}"), &hidden.into_dyn(), &expected.into_dyn(), 1e-5);
    }
    check("normalized_actions", forward.normalized_actions.clone().into_dyn());
}
