//! Reads `merge-tiny`: inputs and outputs of the published code, kept with the tests of `merge`.

#[path = "tensors.rs"]
mod tensors;

use std::path::Path;

use tensors::Tensors;

/// The fixture: task vectors of each expert by key, and what is expected of them.
pub(crate) struct MergeTiny {
    /// Sorted.
    pub(crate) keys: Vec<String>,
    /// Task vectors `[key][expert]`.
    pub(crate) experts: Vec<Vec<Vec<f32>>>,
    /// `<method>.<key>`, `<method>.mask.<expert>.<key>`, `emr.rescaler.<expert>`.
    pub(crate) expected: Tensors,
}

pub(crate) fn merge_tiny() -> MergeTiny {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/merge/tests/data/merge-tiny");
    let base = Tensors::read(&folder, "base.safetensors");
    let files = [0, 1, 2].map(|k| Tensors::read(&folder, &format!("expert{k}.safetensors")));
    let task_vector = |file: &Tensors, key: &str, base: &[f32]| -> Vec<f32> {
        file.get(key).iter().zip(base).map(|(expert, base)| expert - base).collect()
    };
    let experts = base.0.iter().map(|(key, base)| files.iter().map(|f| task_vector(f, key, base)).collect());
    MergeTiny {
        experts: experts.collect(),
        keys: base.0.iter().map(|(key, _)| key.clone()).collect(),
        expected: Tensors::read(&folder, "expected.safetensors"),
    }
}
