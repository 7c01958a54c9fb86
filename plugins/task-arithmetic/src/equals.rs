//! Which of the entries that equal a threshold are kept.

use std::cell::RefCell;

use skillweld_plugin_sdk::trim::AMONG_EQUALS;

use crate::join::TILE;

/// The random numbers of the tile worked on last: all experts take the same, tile by tile.
#[derive(Default)]
pub(crate) struct Numbers(RefCell<Option<(u64, [u32; TILE])>>);

impl Numbers {
    /// Calls `work` with the numbers of the tile that starts at element `start` of the tensor.
    pub(crate) fn with_tile(&self, start: u64, work: impl FnOnce(&[u32; TILE])) {
        let mut tile = self.0.borrow_mut();
        let (filled, numbers) = tile.get_or_insert((u64::MAX, [0; TILE]));
        if *filled != start {
            AMONG_EQUALS.fill(start, numbers);
            *filled = start;
        }
        work(numbers);
    }
}
