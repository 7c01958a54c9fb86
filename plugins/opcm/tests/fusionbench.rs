//! Values of FusionBench (`tests/data/fusionbench`, made by its `make.py`), which computes them in f64.

#[path = "../../testing/tensors.rs"]
mod tensors;

use std::path::Path;

use skillweld_plugin_opcm::Opcm;
use skillweld_plugin_sdk::trial::Trial;
use tensors::Tensors;

#[test]
fn merged_task_vectors_equal_those_of_fusionbench() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fusionbench");
    let values = Tensors::read(&folder, "values.safetensors");
    let keys: [(&str, &[usize]); 3] = [("up", &[7, 5]), ("down", &[5, 7]), ("bias", &[9])];
    for alpha in [0.3, 0.5, 0.8] {
        let mut trial = Trial::of::<Opcm>().set("alpha", alpha);
        for (key, shape) in keys {
            let names: Vec<String> = (0..4).map(|k| format!("expert.{k}.{key}")).collect();
            trial =
                trial.experts(&names.iter().map(|name| values.get(name)).collect::<Vec<_>>()).shape(shape);
        }
        for ((key, _), merged) in keys.iter().zip(trial.merge_all()) {
            let expected = values.get(&format!("merged.{alpha}.{key}"));
            for (merged, expected) in merged.iter().zip(expected) {
                // Both round f64 once.
                assert!(
                    (merged - expected).abs() <= f32::EPSILON * expected.abs().max(1e-3),
                    "{key}: {merged} {expected}"
                );
            }
        }
    }
}
