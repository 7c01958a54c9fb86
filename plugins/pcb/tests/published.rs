//! Values of the published code (`tests/data/pcb-merging`, made by its `make.py`), which computes them in f64.

#[path = "../../testing/tensors.rs"]
mod tensors;

use std::path::Path;

use skillweld_plugin_pcb::Pcb;
use skillweld_plugin_sdk::trial::Trial;
use tensors::Tensors;

#[test]
fn merged_task_vectors_equal_those_of_the_published_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pcb-merging");
    let values = Tensors::read(&folder, "values.safetensors");
    let numel = values.get("merged.0.1").len();
    let tasks: Vec<&[f32]> = values.get("tasks").chunks_exact(numel).collect();
    for ratio in [0.05, 0.1, 0.6] {
        let merged = Trial::of::<Pcb>().experts(&tasks).set("ratio", ratio).merge();
        let expected = values.get(&format!("merged.{ratio}"));
        assert!(expected.iter().filter(|x| **x != 0.0).count() > numel / 50);
        for (i, (merged, expected)) in merged.iter().zip(expected).enumerate() {
            // A score is rounded to f32 here, so that a weight is off by ε over its part of the range of scores: of the
            // few hundred that take part none is so close to the edge that this passes 1e-5.
            let bound = 1e-5 * expected.abs().max(1e-3);
            assert!((merged - expected).abs() <= bound, "ratio {ratio}, {i}: {merged} {expected}");
        }
    }
}
