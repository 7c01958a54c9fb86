use std::collections::VecDeque;
use std::time::Duration;

use crate::Durations;

/// Inferences that say how long the next will take.
const RECENT: usize = 32;

/// How long inferences take.
#[derive(Debug, Default)]
pub(super) struct Latency {
    recent: VecDeque<Duration>,
    all: Durations,
}

impl Latency {
    /// The very first inference loads and compiles: it says nothing about the others, once there is another.
    pub(super) fn record(&mut self, took: Duration) {
        if self.recent.len() == RECENT || self.all.count() == 1 {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
        self.all.record(took);
    }

    /// The slowest of the recent inferences; zero before the first.
    pub(super) fn slowest(&self) -> Duration {
        self.recent.iter().max().copied().unwrap_or_default()
    }

    pub(super) fn all(&self) -> &Durations {
        &self.all
    }
}
