//! Buffers that begin on a cache line, so that a vector never straddles two.

use std::ops::{Deref, DerefMut};

const LINE_BYTES: usize = 64;

/// `len` values on a boundary of 64 bytes.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    pub(crate) fn zeros(len: usize) -> Self {
        let mut aligned = Self { values: Vec::new(), start: 0, len: 0 };
        aligned.resize(len);
        aligned
    }

    /// Holds `len` values from now on; which ones is not said. Memory grows and is kept.
    pub(crate) fn resize(&mut self, len: usize) {
        let room = LINE_BYTES / size_of::<T>();
        if self.values.len() < len + room {
            self.values = vec![T::default(); len + room];
            // An allocation that cannot be aligned would only be slower.
            self.start = self.values.as_ptr().align_offset(LINE_BYTES).min(room);
        }
        self.len = len;
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.len]
    }
}
