//! Reads `merge-tiny`: inputs and outputs of the published code, kept with the tests of `merge`.
#![allow(clippy::unwrap_used, reason = "included by tests only")]

use std::path::Path;

use safetensors::SafeTensors;

/// A file's tensors by name, flattened.
pub(crate) struct Tensors(Vec<(String, Vec<f32>)>);

impl Tensors {
    fn read(folder: &Path, file: &str) -> Self {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |tensor: safetensors::tensor::TensorView<'_>| match tensor.dtype() {
            safetensors::Dtype::U8 => tensor.data().iter().map(|&x| f32::from(x)).collect(),
            _ => {
                tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
        };
        let mut tensors: Vec<_> =
            file.tensors().into_iter().map(|(name, tensor)| (name, values(tensor))).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Self(tensors)
    }

    /// The tensor called `name`.
    pub(crate) fn get(&self, name: &str) -> &[f32] {
        &self.0.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
    }
}

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
