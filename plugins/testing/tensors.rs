//! Reads golden files: inputs and outputs of other programs.
#![allow(clippy::unwrap_used, reason = "included by tests only")]

use std::path::Path;

use safetensors::SafeTensors;

/// A file's tensors by name, with their shapes, flattened.
pub(crate) struct Tensors(pub(crate) Vec<(String, Vec<usize>, Vec<f32>)>);

impl Tensors {
    /// The tensors of `file` in `folder`.
    pub(crate) fn read(folder: &Path, file: &str) -> Self {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |tensor: safetensors::tensor::TensorView<'_>| match tensor.dtype() {
            safetensors::Dtype::U8 => tensor.data().iter().map(|&x| f32::from(x)).collect(),
            _ => {
                tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
        };
        let shape = |tensor: &safetensors::tensor::TensorView<'_>| tensor.shape().to_vec();
        let mut tensors: Vec<_> =
            file.tensors().into_iter().map(|(name, tensor)| (name, shape(&tensor), values(tensor))).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Self(tensors)
    }

    /// The tensor called `name`.
    pub(crate) fn get(&self, name: &str) -> &[f32] {
        &self.0.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("no {name}")).2
    }
}
