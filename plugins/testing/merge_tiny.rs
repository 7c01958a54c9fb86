//! Reads `merge-tiny`: inputs and outputs of the published code, kept with the tests of `merge`.
#![allow(clippy::unwrap_used, dead_code, reason = "included by tests only, each of which reads a part")]

#[path = "tensors.rs"]
mod tensors;

use std::path::Path;

use tensors::Tensors;

/// The fixture: task vectors of each expert by key, and what is expected of them.
pub(crate) struct MergeTiny {
    /// Sorted.
    pub(crate) keys: Vec<String>,
    /// By key.
    pub(crate) shapes: Vec<Vec<usize>>,
    /// `<expert>.<key>.lora_{A,B}`.
    factors: Tensors,
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
    let experts =
        base.0.iter().map(|(key, _, base)| files.iter().map(|f| task_vector(f, key, base)).collect());
    MergeTiny {
        experts: experts.collect(),
        keys: base.0.iter().map(|(key, ..)| key.clone()).collect(),
        shapes: base.0.iter().map(|(_, shape, _)| shape.clone()).collect(),
        factors: Tensors::read(&folder, "lora_factors.safetensors"),
        expected: Tensors::read(&folder, "expected.safetensors"),
    }
}

impl MergeTiny {
    /// B, A and the rank of expert `k`'s task vector of a matrix.
    pub(crate) fn factors(&self, k: usize, key: &str) -> (&[f32], &[f32], usize) {
        let factor = |name: &str| self.factors.get(&format!("{k}.{key}.{name}"));
        let (b, a) = (factor("lora_B"), factor("lora_A"));
        let [rows, _] = self.shapes[self.keys.iter().position(|other| other == key).unwrap()][..] else {
            panic!("{key} is no matrix")
        };
        (b, a, b.len() / rows)
    }
}

/// ‖a − b‖ / ‖b‖.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|&b| b.into()))
}
