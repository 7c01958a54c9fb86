/// A list that stays on the stack up to `N` items: a plugin is called for every block of every tensor, so the usual
/// handful of experts must not cost an allocation each time.
pub(crate) struct Few<T, const N: usize> {
    stack: [T; N],
    len: usize,
    heap: Vec<T>,
}

impl<T: Copy, const N: usize> Few<T, N> {
    /// Collects `items`; `blank` fills the unused places and is never seen.
    pub(crate) fn collect(blank: T, items: impl ExactSizeIterator<Item = T>) -> Self {
        let mut few = Self { stack: [blank; N], len: items.len(), heap: Vec::new() };
        if few.len > N {
            few.heap = items.collect();
        } else {
            for (place, item) in few.stack.iter_mut().zip(items) {
                *place = item;
            }
        }
        few
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        if self.len > N { &self.heap } else { &self.stack[..self.len] }
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn holds_few_and_many() {
        for count in [0, 1, 4, 5, 100] {
            assert_eq!(Few::<usize, 4>::collect(9, 0..count).as_slice(), (0..count).collect::<Vec<_>>());
        }
    }
}
