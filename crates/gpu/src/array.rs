use std::marker::PhantomData;
use std::ops::Range;

use skillweld_tensor::Dtype;

use crate::error::require;
use crate::{Memory, Result};

/// Elements of one dtype in a target's memory.
#[derive(Debug)]
pub struct Array<M> {
    memory: M,
    dtype: Dtype,
    numel: usize,
}

impl<M: Memory> Array<M> {
    pub(crate) fn new(memory: M, dtype: Dtype, numel: usize) -> Self {
        Self { memory, dtype, numel }
    }

    /// Elements in memory that was another's before; what they hold is not said.
    ///
    /// # Errors
    /// Memory that is too short.
    pub fn in_memory(memory: M, dtype: Dtype, numel: usize) -> Result<Self> {
        let fits = dtype.byte_len(numel).is_some_and(|bytes| bytes <= memory.byte_len());
        require(fits, "an array", || {
            format!("{numel} elements of {dtype} do not fit into {} bytes", memory.byte_len())
        })?;
        Ok(Self::new(memory, dtype, numel))
    }

    /// The memory under it, to be used again.
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.numel
    }

    /// Bytes that the elements take.
    pub fn byte_len(&self) -> usize {
        (self.numel * self.dtype.bits()).div_ceil(8)
    }

    /// The memory under it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The memory under it, to write to.
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// All elements, to read.
    pub fn view(&self) -> View<'_> {
        View { address: self.memory.address(), dtype: self.dtype, numel: self.numel, array: PhantomData }
    }

    /// All elements, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut { address: self.memory.address(), dtype: self.dtype, numel: self.numel, array: PhantomData }
    }
}

/// Some elements of an array, to read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(crate) address: u64,
    pub(crate) dtype: Dtype,
    pub(crate) numel: usize,
    array: PhantomData<&'a ()>,
}

impl View<'_> {
    /// Where the first of them lies, as kernels see it.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The same elements without their borrow: who holds it owns the array too, and keeps it as long.
    pub(crate) fn unbound<'b>(self) -> View<'b> {
        View { address: self.address, dtype: self.dtype, numel: self.numel, array: PhantomData }
    }

    /// These of its elements.
    ///
    /// # Panics
    /// When the range does not lie within the view.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.numel, "{range:?} of {} elements", self.numel);
        let address = self.address + (range.start * self.dtype.bits() / 8) as u64;
        Self { address, numel: range.len(), ..self }
    }

    /// The same bytes as elements of another dtype; what is no whole one is left off.
    #[must_use]
    pub fn of_dtype(self, dtype: Dtype) -> Self {
        Self { dtype, numel: self.numel * self.dtype.bits() / dtype.bits(), ..self }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.numel
    }
}

/// Some elements of an array, to write.
#[derive(Debug)]
pub struct ViewMut<'a> {
    pub(crate) address: u64,
    pub(crate) dtype: Dtype,
    pub(crate) numel: usize,
    array: PhantomData<&'a mut ()>,
}

impl<'a> ViewMut<'a> {
    /// The same elements without their borrow, as [`View::unbound`].
    pub(crate) fn unbound<'b>(self) -> ViewMut<'b> {
        ViewMut { address: self.address, dtype: self.dtype, numel: self.numel, array: PhantomData }
    }

    /// The same elements, to read.
    pub fn as_view(&self) -> View<'_> {
        View { address: self.address, dtype: self.dtype, numel: self.numel, array: PhantomData }
    }

    /// The same bytes as elements of another dtype; what is no whole one is left off.
    #[must_use]
    pub fn of_dtype(self, dtype: Dtype) -> Self {
        Self { dtype, numel: self.numel * self.dtype.bits() / dtype.bits(), ..self }
    }

    /// These of its elements.
    ///
    /// # Panics
    /// When the range does not lie within the view.
    pub fn slice_mut(&mut self, range: Range<usize>) -> ViewMut<'_> {
        let View { address, dtype, numel, .. } = self.as_view().slice(range);
        ViewMut { address, dtype, numel, array: PhantomData }
    }

    /// Both sides of element `middle`.
    ///
    /// # Panics
    /// When it lies past the end.
    pub fn split_at(self, middle: usize) -> (ViewMut<'a>, ViewMut<'a>) {
        assert!(middle <= self.numel, "element {middle} of {}", self.numel);
        let address = self.address + (middle * self.dtype.bits() / 8) as u64;
        let after = ViewMut { address, dtype: self.dtype, numel: self.numel - middle, array: PhantomData };
        (ViewMut { numel: middle, ..self }, after)
    }

    /// Parts of `numel` elements each, one after the other; what is no whole part is left off.
    ///
    /// # Panics
    /// When `numel` is 0.
    pub fn chunks(self, numel: usize) -> Vec<ViewMut<'a>> {
        let part = |i: usize| {
            let address = self.address + (i * numel * self.dtype.bits() / 8) as u64;
            ViewMut { address, dtype: self.dtype, numel, array: PhantomData }
        };
        (0..self.numel / numel).map(part).collect()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.numel
    }
}
