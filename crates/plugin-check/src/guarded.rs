/// A buffer between two bands of known content: a write outside it is seen.
pub(crate) struct Guarded<T> {
    all: Vec<T>,
    band: T,
}

/// Items on each side; more than any vector unit stores at once.
const BAND_LEN: usize = 64;

impl<T: Copy + PartialEq> Guarded<T> {
    /// `content` between bands of `band`, a value that equals itself and is an unlikely result.
    pub(crate) fn new(content: &[T], band: T) -> Self {
        let mut all = vec![band; BAND_LEN];
        all.extend_from_slice(content);
        all.resize(content.len() + 2 * BAND_LEN, band);
        Self { all, band }
    }

    pub(crate) fn content(&self) -> &[T] {
        &self.all[BAND_LEN..self.all.len() - BAND_LEN]
    }

    pub(crate) fn content_mut(&mut self) -> &mut [T] {
        let end = self.all.len() - BAND_LEN;
        &mut self.all[BAND_LEN..end]
    }

    pub(crate) fn is_intact(&self) -> bool {
        let (before, rest) = self.all.split_at(BAND_LEN);
        let after = &rest[rest.len() - BAND_LEN..];
        // The bands were written by code that the compiler cannot see: it must not assume what is in them.
        std::hint::black_box(before).iter().chain(std::hint::black_box(after)).all(|item| *item == self.band)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_beside_the_content_is_seen() {
        let mut buffer = Guarded::new(&[1.0, 2.0], 7.0);
        buffer.content_mut().fill(0.0);
        assert!(buffer.is_intact());
        assert_eq!(buffer.content(), [0.0, 0.0]);
        buffer.all[BAND_LEN + 2] = 0.0;
        assert!(!buffer.is_intact());
    }
}
