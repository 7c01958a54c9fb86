use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use crate::backend::{Matrix, Result};

/// Buffers of dropped matrices: fresh pages for every operation would cost as much as many a norm.
#[derive(Debug, Default)]
pub(super) struct Pool(crate::pool::Pool<Vec<f32>>);

/// Activations in f32, row by row.
#[derive(Debug)]
pub struct CpuMatrix {
    rows: usize,
    columns: usize,
    /// At least rows · columns values; the rest is of an earlier matrix.
    buffer: Vec<f32>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A matrix whose values are not said; NaN in debug builds.
    pub(super) fn matrix(self: &Arc<Self>, rows: usize, columns: usize) -> CpuMatrix {
        let len = rows * columns;
        let mut buffer = self.0.take(len).unwrap_or_else(|| vec![0.0; len]);
        if cfg!(debug_assertions) {
            buffer.fill(f32::NAN);
        }
        CpuMatrix { rows, columns, buffer, pool: Arc::clone(self) }
    }
}

impl Drop for CpuMatrix {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.0.put(buffer.len(), buffer);
    }
}

impl Deref for CpuMatrix {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.rows * self.columns]
    }
}

impl DerefMut for CpuMatrix {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.rows * self.columns]
    }
}

impl CpuMatrix {
    /// One row.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self[row * self.columns..(row + 1) * self.columns]
    }

    /// The whole as an array.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        ArrayView2::from_shape((self.rows, self.columns), self).unwrap_or_else(|_| no_fit())
    }

    pub(super) fn view_mut(&mut self) -> ArrayViewMut2<'_, f32> {
        let shape = (self.rows, self.columns);
        ArrayViewMut2::from_shape(shape, self).unwrap_or_else(|_| no_fit())
    }
}

/// The slice has exactly as many values as the shape asks for.
fn no_fit() -> ! {
    unreachable!("a matrix holds rows × columns values")
}

impl Matrix for CpuMatrix {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn to_host(&self) -> Result<Array2<f32>> {
        Ok(self.view().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_for_matrices_of_about_their_size() {
        let pool = Arc::new(Pool::default());
        let first = pool.matrix(4, 8);
        let place = first.as_ptr();
        drop(first);
        assert_ne!(pool.matrix(2, 2).as_ptr(), place);
        let again = pool.matrix(5, 5);
        assert_eq!((again.as_ptr(), again.len()), (place, 25));
        assert!(!cfg!(debug_assertions) || again.iter().all(|value| value.is_nan()));
    }
}
