//! Values of FusionBench (`tests/data/fusionbench`, made by its `make.py`).

#[path = "../../testing/tensors.rs"]
mod tensors;

use std::path::Path;

use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_tall::{Consensus, Tall};
use tensors::Tensors;

#[test]
fn masks_equal_those_of_fusionbench() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fusionbench");
    let values = Tensors::read(&folder, "values.safetensors");
    let merged = values.get("merged");
    let tasks: Vec<&[f32]> = values.get("tasks").chunks_exact(merged.len()).collect();
    assert_eq!(tasks.len(), 4);
    let bits = |values: &[f32]| values.iter().map(|&x| x != 0.0).collect::<Vec<_>>();
    let tall = Trial::of::<Tall>().experts(&tasks).merged(merged).set("lambda", 0.6).masks();
    assert_eq!(tall.concat(), bits(values.get("tall")));
    let mut kept = Vec::new();
    for wanted in 1..=4 {
        let masks = Trial::of::<Consensus>().experts(&tasks).merged(merged).set("min_tasks", wanted).masks();
        let expected = bits(values.get(&format!("consensus.{wanted}")));
        assert_eq!(masks, vec![expected.clone(); 4], "{wanted} tasks");
        kept.push(expected.iter().filter(|&&bit| bit).count());
    }
    // Each asks for more than the one before, so that no two are alike.
    assert!(kept.windows(2).all(|pair| pair[0] > pair[1]), "{kept:?}");
}
