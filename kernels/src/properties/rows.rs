//! Matrices for properties: on the host, on a target, and back.

use proptest::test_runner::TestCaseError;
use skillweld_gpu::ops::{RowsView, RowsViewMut, padded};
use skillweld_gpu::{Array, Memory, Target};
use skillweld_tensor::Dtype;

use super::failed;
use super::random::{bytes_of, floats_of, values};

/// A matrix of random values, rounded to a dtype.
pub(super) struct HostRows {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) dtype: Dtype,
    pub(super) values: Vec<f32>,
}

impl HostRows {
    pub(super) fn new(rows: usize, columns: usize, dtype: Dtype, seed: u64) -> Self {
        Self::of(rows, columns, dtype, &values(rows * columns, seed))
    }

    pub(super) fn of(rows: usize, columns: usize, dtype: Dtype, values: &[f32]) -> Self {
        Self { rows, columns, dtype, values: floats_of(dtype, &bytes_of(dtype, values)) }
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.columns + column])
    }

    pub(super) fn upload<T: Target>(&self, target: &T) -> Result<Array<T::Memory>, TestCaseError> {
        let stride = padded(self.columns);
        let mut wide = vec![0.0; self.rows * stride];
        for (wide, row) in wide.chunks_mut(stride.max(1)).zip(self.values.chunks(self.columns.max(1))) {
            wide[..self.columns].copy_from_slice(row);
        }
        target.array_of(self.dtype, &bytes_of(self.dtype, &wide)).map_err(failed)
    }

    pub(super) fn view<'a, M: Memory>(&self, array: &'a Array<M>) -> RowsView<'a> {
        RowsView::new(array.view(), self.rows, self.columns).expect("an array of its size")
    }
}

/// Room for a result, NaN until it is written.
pub(super) struct Output<M> {
    array: Array<M>,
    rows: usize,
    columns: usize,
}

impl<M: Memory> Output<M> {
    pub(super) fn new<T: Target<Memory = M>>(
        target: &T,
        rows: usize,
        columns: usize,
        dtype: Dtype,
    ) -> Result<Self, TestCaseError> {
        let mut array = target.array(dtype, rows * padded(columns)).map_err(failed)?;
        target.fill(array.memory_mut(), 0xff).map_err(failed)?;
        Ok(Self { array, rows, columns })
    }

    pub(super) fn view(&mut self) -> RowsViewMut<'_> {
        RowsViewMut::new(self.array.view_mut(), self.rows, self.columns).expect("an array of its size")
    }

    /// Its values, row by row; fails unless all that follows them in their rows is zero.
    pub(super) fn values<T: Target<Memory = M>>(&self, target: &T) -> Result<Vec<f32>, TestCaseError> {
        let stride = padded(self.columns);
        let all = floats_of(self.array.dtype(), &target.read(&self.array).map_err(failed)?);
        let mut values = Vec::new();
        for (index, row) in all.chunks(stride.max(1)).enumerate() {
            if row[self.columns..].iter().any(|&value| value != 0.0) {
                return Err(TestCaseError::fail(format!("row {index} is not followed by zeros: {row:?}")));
            }
            values.extend_from_slice(&row[..self.columns]);
        }
        Ok(values)
    }
}

/// How far rounding to a dtype moves a value, relative.
pub(super) fn rounding(dtype: Dtype) -> f64 {
    if dtype == Dtype::BF16 { 2f64.powi(-8) } else { 2f64.powi(-24) }
}

/// Fails unless every value is `expected(index)` but for its tolerance: (value, tolerance).
pub(super) fn close(
    what: &str,
    actual: &[f32],
    expected: impl Fn(usize) -> (f64, f64),
) -> Result<(), TestCaseError> {
    for (index, &actual) in actual.iter().enumerate() {
        let (expected, tolerance) = expected(index);
        let error = (f64::from(actual) - expected).abs();
        if error.is_nan() || error > tolerance {
            let problem = format!("{what}: element {index} is {actual}, not {expected} ± {tolerance:.1e}");
            return Err(TestCaseError::fail(problem));
        }
    }
    Ok(())
}

/// BF16 or F32.
pub(super) fn float() -> impl proptest::strategy::Strategy<Value = Dtype> {
    use proptest::prelude::*;
    prop_oneof![Just(Dtype::BF16), Just(Dtype::F32)]
}
