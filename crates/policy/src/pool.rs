use std::sync::{Mutex, PoisonError};

/// A buffer that so many others have been asked for without it is given back: several forwards of the published models,
/// each of about 1500 matrices. One forward that was larger than the others thus leaves nothing behind for long.
const KEPT_FOR: u64 = 8192;

/// Buffers that are not in use, kept for whoever needs one of about their length.
#[derive(Debug)]
pub(crate) struct Pool<B>(Mutex<Free<B>>);

#[derive(Debug)]
struct Free<B> {
    /// When a buffer came, by `asked`, and its length; the oldest first.
    buffers: Vec<(u64, usize, B)>,
    /// Buffers asked for so far.
    asked: u64,
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self(Mutex::new(Free { buffers: Vec::new(), asked: 0 }))
    }
}

impl<B> Pool<B> {
    /// The shortest buffer of at least `len`; one more than twice as long is left for something that needs it.
    pub(crate) fn take(&self, len: usize) -> Option<B> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.asked += 1;
        let asked = free.asked;
        let old = free.buffers.iter().take_while(|(came, ..)| came + KEPT_FOR < asked).count();
        free.buffers.drain(..old);
        let fitting =
            free.buffers.iter().enumerate().filter(|(_, (_, has, _))| (len..=2 * len).contains(has));
        let best = fitting.min_by_key(|(_, (_, has, _))| *has).map(|(index, _)| index);
        best.map(|index| free.buffers.remove(index).2)
    }

    /// Keeps a buffer of this length.
    pub(crate) fn put(&self, len: usize, buffer: B) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = free.asked;
        free.buffers.push((now, len, buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_that_fits_is_given() {
        let pool = Pool::default();
        for len in [10, 30, 12, 21] {
            pool.put(len, len);
        }
        assert_eq!(pool.take(11), Some(12));
        assert_eq!(pool.take(11), Some(21));
        assert_eq!(pool.take(11), None, "30 is more than twice as long");
        assert_eq!(pool.take(15), Some(30));
    }

    #[test]
    fn buffers_that_nobody_needs_are_given_back() {
        let pool = Pool::default();
        let kept = || pool.0.lock().unwrap().buffers.len();
        pool.put(1_000_000, ());
        for _ in 0..KEPT_FOR {
            assert!(pool.take(21).is_none());
        }
        assert_eq!(kept(), 1);
        assert!(pool.take(21).is_none());
        assert_eq!(kept(), 0);
    }
}
