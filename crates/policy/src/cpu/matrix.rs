use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use crate::backend::{Matrix, Result};

/// Buffers of dropped matrices, kept for the next: fresh pages for every operation would cost as much as many a norm.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Free>);

/// A buffer that so many matrices have been made without is given back: several forwards of the published models, each of
/// about 1500 matrices. One forward that was larger than the others thus leaves nothing behind for long.
const KEPT_FOR: u64 = 8192;

#[derive(Debug, Default)]
struct Free {
    /// When a buffer was dropped, by `made`; the oldest first.
    buffers: Vec<(u64, Vec<f32>)>,
    /// Matrices so far.
    made: u64,
}

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
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.made += 1;
        let made = free.made;
        let old = free.buffers.iter().take_while(|(dropped, _)| dropped + KEPT_FOR < made).count();
        free.buffers.drain(..old);
        // A buffer much too large is left for something that needs it.
        let fitting = free
            .buffers
            .iter()
            .enumerate()
            .filter(|(_, (_, buffer))| (len..=2 * len).contains(&buffer.len()));
        let best = fitting.min_by_key(|(_, (_, buffer))| buffer.len()).map(|(index, _)| index);
        let buffer = best.map(|index| free.buffers.remove(index).1);
        drop(free);
        let mut buffer = buffer.unwrap_or_else(|| vec![0.0; len]);
        if cfg!(debug_assertions) {
            buffer.fill(f32::NAN);
        }
        CpuMatrix { rows, columns, buffer, pool: Arc::clone(self) }
    }
}

impl Drop for CpuMatrix {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = free.made;
        free.buffers.push((now, buffer));
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

    #[test]
    fn buffers_that_nobody_needs_are_given_back() {
        let pool = Arc::new(Pool::default());
        let kept = || pool.0.lock().unwrap().buffers.iter().map(|(_, buffer)| buffer.len()).sum::<usize>();
        drop(pool.matrix(1000, 1000));
        for _ in 0..KEPT_FOR {
            drop(pool.matrix(3, 7));
        }
        assert_eq!(kept(), 1_000_021);
        drop(pool.matrix(3, 7));
        assert_eq!(kept(), 21);
    }
}
