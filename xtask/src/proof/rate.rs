//! Successes of so many trials, as `skillweld eval run --json` says them.

use std::fmt;

use serde::Deserialize;

#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Rate {
    pub(super) share: f64,
    /// Wilson's.
    pub(super) interval_95: [f64; 2],
}

impl fmt::Display for Rate {
    /// Percent, and the interval.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.interval_95.map(|x| 100.0 * x);
        write!(f, "{:.1} ({low:.0}–{high:.0})", 100.0 * self.share)
    }
}
