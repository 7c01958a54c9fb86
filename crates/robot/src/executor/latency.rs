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

    /// What `share` (0 … 1) of the recent inferences did not exceed; zero before the first.
    pub(super) fn percentile(&self, share: f64) -> Duration {
        let mut sorted: Vec<_> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
    }

    pub(super) fn all(&self) -> &Durations {
        &self.all
    }
}
