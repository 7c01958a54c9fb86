use skillweld_linalg::gemm;
use skillweld_store::{Adapter, AdapterDelta, StoreError};
use skillweld_tensor::{LowRank, TensorView};

/// Where one model's values of one tensor come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Stored as they are.
    Stored(TensorView<'a>),
    /// Stored weights of another model plus a low-rank adapter: Θ + B·A.
    Adapted {
        /// What the adapter was trained on.
        stored: TensorView<'a>,
        /// Whose task vector is added.
        adapter: &'a Adapter,
        /// The adapter's name for this tensor.
        target: &'a str,
    },
}

impl<'a> Source<'a> {
    /// The stored part.
    pub(crate) fn stored(&self) -> TensorView<'a> {
        match self {
            Source::Stored(view) | Source::Adapted { stored: view, .. } => *view,
        }
    }

    /// There is an adapter.
    pub(crate) fn is_adapted(&self) -> bool {
        matches!(self, Source::Adapted { .. })
    }

    /// The adapter's factors, decoded now; `None` without adapter.
    ///
    /// # Errors
    /// Factors of a dtype without arithmetic.
    pub(crate) fn factors(&self) -> Result<Option<LowRank>, StoreError> {
        let Source::Adapted { adapter, target, .. } = self else { return Ok(None) };
        Ok(match adapter.delta(target)? {
            Some(AdapterDelta::LowRank(factors)) => Some(factors),
            Some(AdapterDelta::Replace(_)) | None => None,
        })
    }

    /// True when the stored part is the very tensor of `base`, not a copy of it.
    pub(crate) fn is_on(&self, base: Option<&TensorView<'_>>) -> bool {
        base.is_some_and(|base| same_bytes(base, &self.stored()))
    }

    /// Dimensions, outermost first.
    pub(crate) fn shape(&self) -> &'a [usize] {
        self.stored().shape()
    }
}

/// True when two views look at the same memory.
pub(crate) fn same_bytes(a: &TensorView<'_>, b: &TensorView<'_>) -> bool {
    std::ptr::eq(a.bytes(), b.bytes()) && a.dtype() == b.dtype()
}

/// Elements `offset .. offset + out.len()` of the flattened product B·A, into `out`.
///
/// The rows that the range touches are multiplied out, then cut: `rows` is scratch that grows to whole rows.
pub(crate) fn product_block(factors: &LowRank, offset: usize, out: &mut [f32], rows: &mut Vec<f32>) {
    let [_, n] = factors.shape();
    if out.is_empty() {
        return;
    }
    let (first_row, end_row) = (offset / n, (offset + out.len()).div_ceil(n));
    let (m, k) = (end_row - first_row, factors.rank());
    // Row-major without gaps: `LowRank` keeps both factors so.
    let (Some(b), Some(a)) = (factors.b().as_slice(), factors.a().as_slice()) else { return };
    let b = &b[first_row * k..end_row * k];
    if first_row * n == offset && m * n == out.len() {
        return gemm(1.0, b, a, out, (m, k, n));
    }
    rows.resize(m * n, 0.0);
    gemm(1.0, b, a, rows, (m, k, n));
    out.copy_from_slice(&rows[offset - first_row * n..][..out.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_block_of_a_product_is_that_part_of_the_whole(
            (m, r, n) in (1..9usize, 1..4usize, 1..9usize), cut in 0.0..1.0f64, end in 0.0..1.0f64, seed in any::<u16>(),
        ) {
            // Small integers: every product and sum is exact, so the comparison is too.
            let value = |i: usize| ((i * 31 + usize::from(seed)) % 11) as f32 - 5.0;
            let b = Array2::from_shape_fn((m, r), |(i, j)| value(i * r + j));
            let a = Array2::from_shape_fn((r, n), |(i, j)| value(100 + i * n + j));
            let factors = LowRank::new(b, a).unwrap();
            let whole: Vec<f32> = factors.to_dense().into_iter().collect();
            let offset = (cut * (m * n) as f64) as usize;
            let len = (end * (m * n - offset) as f64).ceil() as usize;
            let mut out = vec![f32::NAN; len];
            product_block(&factors, offset, &mut out, &mut Vec::new());
            prop_assert_eq!(&out[..], &whole[offset..offset + len]);
        }
    }
}
