//! Successes of so many trials, as `skillweld eval run --json` says them.

use std::fmt;

use serde::Deserialize;

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Rate {
    pub(super) successes: u64,
    pub(super) trials: u64,
}

impl Rate {
    /// Of all trials: what averages are where all have as many.
    pub(super) fn of(rates: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> u64| rates.iter().map(of).sum();
        Self { successes: sum(|rate| rate.successes), trials: sum(|rate| rate.trials) }
    }

    pub(super) fn share(self) -> f64 {
        self.successes as f64 / self.trials.max(1) as f64
    }

    /// Wilson's, of 95 %.
    pub(super) fn interval(self) -> [f64; 2] {
        let (n, p) = (self.trials.max(1) as f64, self.share());
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + (Z / (2.0 * n)).powi(2)).sqrt();
        [middle - half, middle + half].map(|end| (end / (1.0 + Z * Z / n)).clamp(0.0, 1.0))
    }
}

impl fmt::Display for Rate {
    /// Percent, and the interval.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.interval().map(|x| 100.0 * x);
        write!(f, "{:.1} ({low:.0}–{high:.0})", 100.0 * self.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wilson's interval of 8 in 10, from the literature: 0.490 to 0.943.
    #[test]
    fn rates_of_all_and_their_intervals() {
        let [one, other] = [(3, 4), (5, 6)].map(|(successes, trials)| Rate { successes, trials });
        let both = Rate::of(&[one, other]);
        assert_eq!(both.to_string(), "80.0 (49–94)");
        assert_eq!(Rate { successes: 0, trials: 10 }.to_string(), "0.0 (0–28)");
    }
}
