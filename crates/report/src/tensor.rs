//! Models as they lie on disk, one tensor at a time: weights, an adapter on its base, one task of a merged checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skillweld_linalg::gemm;
use skillweld_merged::{Scratch, TaskWeight};
use skillweld_store::{Adapter, AdapterDelta, Checkpoint, ExpertFiles, StoreError};
use skillweld_tensor::{LowRank, TensorError, TensorView};

/// Elements of a slab, about: what a thread takes at once.
pub(crate) const SLAB: usize = 1 << 20;

/// The values of one tensor, wherever they come from.
#[derive(Debug)]
pub(crate) enum Tensor<'a> {
    /// As stored.
    Stored(TensorView<'a>),
    /// Stored, plus a product of factors.
    Adapted {
        /// What the adapter was trained on.
        stored: TensorView<'a>,
        /// B·A.
        factors: LowRank,
    },
    /// Under one task's mask.
    Task(TaskWeight<'a>),
}

impl<'a> Tensor<'a> {
    /// What has the tensor's dtype and shape.
    pub(crate) fn stored(&self) -> TensorView<'a> {
        match self {
            Tensor::Stored(view) | Tensor::Adapted { stored: view, .. } => *view,
            Tensor::Task(weight) => weight.weight.stored(),
        }
    }

    /// Bytes that are the values, where they are stored as such.
    pub(crate) fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Tensor::Stored(view) => Some(view.bytes()),
            Tensor::Adapted { .. } | Tensor::Task(_) => None,
        }
    }

    /// The elements of whole rows, in f32.
    ///
    /// # Errors
    /// A dtype without arithmetic.
    ///
    /// # Panics
    /// When the rows reach past the end, or begin within a byte of a mask: [`row_slabs`] cuts them so that they do not.
    pub(crate) fn decode(
        &self,
        rows: &Rows,
        out: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) -> Result<(), TensorError> {
        let Range { start, end } = rows.elements();
        out.resize(end - start, 0.0);
        match self {
            Tensor::Stored(view) => view.decode_block(start, out).map(drop),
            Tensor::Task(weight) => weight.decode_block(start, out, scratch),
            Tensor::Adapted { stored, factors } => {
                product(factors, rows, out);
                let product = out.clone();
                stored.decode_block(start, out)?;
                out.iter_mut().zip(product).for_each(|(value, product)| *value += product);
                Ok(())
            }
        }
    }
}

/// Rows of B·A.
pub(crate) fn product(factors: &LowRank, rows: &Rows, out: &mut [f32]) {
    let (k, [_, n]) = (factors.rank(), factors.shape());
    // Row-major without gaps: `LowRank` keeps both factors so.
    let (Some(b), Some(a)) = (factors.b().as_slice(), factors.a().as_slice()) else { return };
    let m = rows.rows.len();
    gemm(1.0, &b[rows.rows.start * k..rows.rows.end * k], a, out, (m, k, n));
}

/// Some rows of a tensor seen as a matrix: its first dimension, and all others flattened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: usize,
}

impl Rows {
    /// The flattened tensor's elements.
    pub(crate) fn elements(&self) -> Range<usize> {
        self.rows.start * self.columns..self.rows.end * self.columns
    }
}

/// Cuts a tensor into slabs of whole rows, each beginning at a multiple of eight elements.
pub(crate) fn row_slabs(shape: &[usize]) -> Vec<Rows> {
    let (rows, columns) = match shape {
        [] => (1, 1),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    };
    if rows * columns == 0 {
        return Vec::new();
    }
    let height = (SLAB / columns).next_multiple_of(8).max(8);
    (0..rows).step_by(height).map(|start| Rows { rows: start..rows.min(start + height), columns }).collect()
}

/// A model: weights, or an adapter on them.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) weights: Arc<Checkpoint>,
    pub(crate) adapter: Option<Adapter>,
    /// Key of the weights → the adapter's name for it.
    targets: BTreeMap<String, String>,
}

impl Model {
    /// `weights`, with `adapter` on them.
    ///
    /// # Errors
    /// An adapter that cannot be read, or does not fit the weights.
    pub(crate) fn new(weights: Arc<Checkpoint>, adapter: Option<&Path>) -> Result<Self, StoreError> {
        let adapter = adapter.map(Adapter::open).transpose()?;
        let targets = adapter.as_ref().map(|adapter| adapter.check_targets(&weights)).transpose()?;
        let targets = targets.unwrap_or_default();
        let targets = targets.into_iter().map(|(stored, target)| (stored, target.to_owned())).collect();
        Ok(Self { weights, adapter, targets })
    }

    /// Stored keys, and those that an adapter adds.
    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        self.weights.keys().chain(self.targets.keys().map(String::as_str)).collect()
    }

    /// # Errors
    /// Factors of a dtype without arithmetic.
    pub(crate) fn tensor(&self, key: &str) -> Result<Option<Tensor<'_>>, StoreError> {
        let stored_key = self.weights.resolve(key);
        let stored = stored_key.and_then(|key| self.weights.get(key));
        let target = self.targets.get(key).or_else(|| self.targets.get(stored_key?));
        let (Some(adapter), Some(target)) = (&self.adapter, target) else {
            return Ok(stored.map(Tensor::Stored));
        };
        Ok(match (adapter.delta(target)?, stored) {
            (Some(AdapterDelta::Replace(view)), _) => Some(Tensor::Stored(view)),
            (Some(AdapterDelta::LowRank(factors)), Some(stored)) => Some(Tensor::Adapted { stored, factors }),
            (_, stored) => stored.map(Tensor::Stored),
        })
    }
}

/// The adapter that makes up a model's folder, if it holds no weights: the folder itself, or `lora_adapter/` in it.
pub(crate) fn lone_adapter(path: &Path) -> Option<PathBuf> {
    let is_adapter = |dir: &Path| dir.join("adapter_config.json").is_file();
    if is_adapter(path) {
        return Some(path.to_owned());
    }
    let nested = ExpertFiles::discover(path).ok()?.lora_adapter()?.to_owned();
    matches!(Checkpoint::open(path), Err(StoreError::NoWeights { .. } | StoreError::OnlyAdapter { .. }))
        .then_some(nested)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;
    use skillweld_tensor::Dtype;

    proptest! {
        #[test]
        fn slabs_of_rows_cover_a_tensor_once(rows in 1..5000usize, columns in 1..5000usize) {
            let slabs = row_slabs(&[rows, columns]);
            let mut next = 0;
            for slab in &slabs {
                let elements = slab.elements();
                prop_assert_eq!((elements.start, elements.start % 8), (next, 0));
                prop_assert!(elements.len() <= SLAB + 8 * columns);
                next = elements.end;
            }
            prop_assert_eq!(next, rows * columns);
        }

        #[test]
        fn an_adapted_tensor_is_the_stored_one_plus_the_product(m in 1..20usize, n in 1..6usize, r in 1..4usize) {
            // Small integers: every product and sum is exact.
            let value = |i: usize| ((i * 31) % 11) as f32 - 5.0;
            let b = Array2::from_shape_fn((m, r), |(i, j)| value(i * r + j));
            let a = Array2::from_shape_fn((r, n), |(i, j)| value(100 + i * n + j));
            let factors = LowRank::new(b, a).unwrap();
            let stored: Vec<f32> = (0..m * n).map(value).collect();
            let bytes: Vec<u8> = stored.iter().flat_map(|x| x.to_le_bytes()).collect();
            let shape = [m, n];
            let expected: Vec<f32> = stored.iter().zip(factors.to_dense()).map(|(a, b)| a + b).collect();
            let tensor = Tensor::Adapted { stored: TensorView::new(Dtype::F32, &shape, &bytes).unwrap(), factors };
            let mut out = Vec::new();
            for start in (0..m).step_by(8) {
                let rows = Rows { rows: start..m.min(start + 8), columns: n };
                tensor.decode(&rows, &mut out, &mut Scratch::default()).unwrap();
                prop_assert_eq!(&out[..], &expected[rows.elements()]);
            }
        }
    }

    #[test]
    fn scalars_have_a_slab_and_empty_tensors_none() {
        assert_eq!(row_slabs(&[]), [Rows { rows: 0..1, columns: 1 }]);
        assert_eq!(row_slabs(&[0, 7]), []);
        assert_eq!(row_slabs(&[3, 0]), []);
    }
}
