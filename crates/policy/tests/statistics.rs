//! Statistics as checkpoints bring them, and the official model's actions through them.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use ndarray::{Array2, Ix2, array};
use serde_json::{Value, json};
use skillweld_policy::statistics::{Bounds, DatasetStatistics, Statistics};
use skillweld_store::Checkpoint;

use support::{data, tensor};

fn from_json(json: &Value) -> Result<DatasetStatistics, String> {
    DatasetStatistics::from_json(Path::new("dataset_statistics.json"), json)
        .map_err(|error| error.to_string())
}

fn select(json: &Value, name: Option<&str>) -> Result<Statistics, String> {
    from_json(json)?.select(name, None).map_err(|error| error.to_string())
}

/// One action dimension from `low`, two of state; wider as `min` and `max`.
fn dataset(low: f64) -> Value {
    json!({
        "action": {"q01": [low], "q99": [low + 1.0], "min": [low - 1.0], "max": [low + 3.0]},
        "proprio": {"q01": [0, 0], "q99": [1, 2], "min": [-1, -1], "max": [3, 3], "mask": [true, false]},
    })
}

/// Both ends of a dimension's range, in the robot's units.
fn ends(statistics: &Statistics) -> Vec<f32> {
    statistics.unnormalize_actions(&array![[-1.0], [1.0]]).unwrap().into_raw_vec_and_offset().0
}

#[test]
fn the_official_actions_come_out_to_the_bit() {
    let dir = data("policy-tiny");
    let statistics =
        DatasetStatistics::open(&dir.join("dataset_statistics.json")).unwrap().select(None, None).unwrap();
    assert_eq!((statistics.name(), statistics.action_dim(), statistics.proprio_dim()), ("tiny", 7, Some(8)));
    let io = Checkpoint::open(dir.join("io.safetensors")).unwrap();
    let actions = |key| tensor(&io, key).into_dimensionality::<Ix2>().unwrap();
    let actual = statistics.unnormalize_actions(&actions("normalized_actions")).unwrap();
    assert_eq!(actual, actions("actions"));
}

#[test]
fn states_are_scaled_clipped_and_masked() {
    let statistics = select(&json!({"a": dataset(0.0)}), None).unwrap();
    let state = statistics.normalize_proprio(&[0.75, 0.25]).unwrap();
    assert!((state[0] - 0.5).abs() < 1e-7 && state[1] == 0.25, "{state:?}");
    assert_eq!(statistics.normalize_proprio(&[-7.0, 7.0]).unwrap(), [-1.0, 1.0]);
}

#[test]
fn statistics_are_found_by_task_dataset_or_being_the_only_ones() {
    let several = json!({"goal": dataset(0.0), "libero_object_no_noops": dataset(10.0)});
    assert_eq!(ends(&select(&several, Some("goal")).unwrap()), [0.0, 1.0]);
    assert_eq!(ends(&select(&several, Some("libero_object")).unwrap()), [10.0, 11.0]);
    assert_eq!(from_json(&several).unwrap().names().collect::<Vec<_>>(), ["goal", "libero_object_no_noops"]);
    let error = select(&several, None).unwrap_err();
    assert!(error.contains("goal, libero_object_no_noops"), "{error}");
    let error = select(&several, Some("spatial")).unwrap_err();
    assert!(error.contains("`spatial`") && error.contains("goal"), "{error}");

    let one = json!({"goal": dataset(5.0)});
    assert_eq!(ends(&select(&one, None).unwrap()), [5.0, 6.0]);
    assert!(select(&one, Some("spatial")).is_err());

    let nameless = from_json(&dataset(5.0)).unwrap();
    assert_eq!(nameless.names().count(), 0);
    assert_eq!(ends(&nameless.select(None, None).unwrap()), [5.0, 6.0]);
    assert_eq!(nameless.select(Some("goal"), None).unwrap().name(), "goal");
}

#[test]
fn bounds_follow_the_dataset_unless_told() {
    let file = json!({"aloha_fold": dataset(0.0), "libero": dataset(0.0)});
    assert_eq!(ends(&select(&file, Some("aloha_fold")).unwrap()), [-1.0, 3.0]);
    assert_eq!(ends(&select(&file, Some("libero")).unwrap()), [0.0, 1.0]);
    let told = from_json(&file).unwrap().select(Some("libero"), Some(Bounds::MinMax)).unwrap();
    assert_eq!(ends(&told), [-1.0, 3.0]);
}

#[test]
fn wrong_dimensions_and_values_are_refused_by_name() {
    let statistics = select(&json!({"goal": dataset(0.0)}), None).unwrap();
    let state = |values: &[f64]| statistics.normalize_proprio(values).unwrap_err().to_string();
    assert!(state(&[0.0; 3]).contains("state: 3 dimensions, but the statistics of `goal` are of 2"));
    assert!(state(&[0.0, f64::NAN]).contains("state[1] is NaN"));
    assert!(state(&[f64::INFINITY, 0.0]).contains("state[0] is inf"));
    let action = |values: Array2<f32>| statistics.unnormalize_actions(&values).unwrap_err().to_string();
    assert!(action(array![[0.0, 0.0]]).contains("action: 2 dimensions"));
    assert!(action(array![[0.0], [f32::NAN]]).contains("action[1][0] came out as NaN"));

    let mut stateless = dataset(0.0);
    stateless.as_object_mut().unwrap().shift_remove("proprio");
    let stateless = select(&stateless, None).unwrap();
    assert_eq!(stateless.proprio_dim(), None);
    assert!(stateless.normalize_proprio(&[0.0]).unwrap_err().to_string().contains("no `proprio`"));
}

#[test]
fn files_that_are_no_statistics_are_refused_by_name() {
    for file in [json!([]), json!({}), json!({"goal": {}}), json!({"goal": 3})] {
        let error = from_json(&file).unwrap_err();
        assert!(error.contains("dataset_statistics.json") && error.contains("action"), "{error}");
    }
    let broken = json!({"goal": {"action": {"q01": [0], "q99": [1, 2]}}});
    let error = select(&broken, Some("goal")).unwrap_err();
    assert!(error.contains("`action` statistics of `goal`"), "{error}");
    let missing = DatasetStatistics::open(Path::new("nowhere/dataset_statistics.json")).unwrap_err();
    assert!(missing.to_string().contains("nowhere/dataset_statistics.json"), "{missing}");
}
