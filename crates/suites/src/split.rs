/// Beyond every index.
const SEEN: u64 = 1 << 32;

/// What a layout is for. Layouts of different splits have different seeds, so nothing is chosen or reported on what was
/// trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Split {
    /// To record demonstrations in.
    #[default]
    Training,
    /// To choose between models and settings.
    Selection,
    /// To report, once: none of them was looked at while the shipped experts were made.
    Final,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Training, Self::Selection, Self::Final];

    /// In lower case, for file names and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Selection => "selection",
            Self::Final => "final",
        }
    }

    /// The seed of a layout: the remainder by three is the split, so no two pairs of split and index share one.
    pub const fn seed(self, index: u32) -> u64 {
        // The first final layouts were looked at too often, and count no more.
        let first = if matches!(self, Self::Final) { SEEN } else { 0 };
        (first + index as u64) * 3 + self as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn seeds_never_collide(a: u32, b: u32, s in 0..3usize, t in 0..3usize) {
            let same = (s, a) == (t, b);
            prop_assert_eq!(Split::ALL[s].seed(a) == Split::ALL[t].seed(b), same);
        }
    }

    #[test]
    fn the_first_and_the_last_seeds_are_all_different() {
        let indices = (0..2000).chain(u32::MAX - 2000..=u32::MAX);
        let seeds: std::collections::HashSet<u64> =
            indices.flat_map(|index| Split::ALL.map(|split| split.seed(index))).collect();
        assert_eq!(seeds.len(), 3 * 4001);
    }
}
