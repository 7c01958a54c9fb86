//! How often something succeeds, and how sure that is.
//!
//! ```
//! use skillweld_rate::Rate;
//!
//! let rate: Rate = [true, true, false, true].into_iter().collect();
//! assert_eq!(rate.to_string(), "75.0 (30–95)");
//! ```

use std::fmt;
use std::iter::Sum;

use serde::{Deserialize, Serialize};

/// The 97.5 % point of the normal distribution: intervals are of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Successes of so many trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Trials that succeeded.
    pub successes: u64,
    /// All of them.
    pub trials: u64,
}

impl Rate {
    /// Counts one more.
    pub fn count(&mut self, success: bool) {
        self.trials += 1;
        self.successes += u64::from(success);
    }

    /// Share of successes, 0 … 1; 0 without trials.
    pub fn share(self) -> f64 {
        if self.trials == 0 { 0.0 } else { self.successes as f64 / self.trials as f64 }
    }

    /// Wilson's interval of 95 % around the share, which stays within 0 … 1 and has a width also where all or none succeeded;
    /// 0 … 1 without trials.
    pub fn interval(self) -> [f64; 2] {
        if self.trials == 0 {
            return [0.0, 1.0];
        }
        let (n, p) = (self.trials as f64, self.share());
        let (scale, middle) = (1.0 / (1.0 + Z * Z / n), p + Z * Z / (2.0 * n));
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        // Where none or all succeeded, rounding would leave the share outside.
        [(scale * (middle - half)).clamp(0.0, p), (scale * (middle + half)).clamp(p, 1.0)]
    }

    /// Newcombe's interval of 95 % (1998, method 10) of this share less another of different trials: from Wilson's of both.
    pub fn difference(self, other: Self) -> [f64; 2] {
        let (p, q) = (self.share(), other.share());
        let ([a, b], [c, d]) = (self.interval(), other.interval());
        [p - q - (p - a).hypot(d - q), p - q + (b - p).hypot(q - c)]
    }
}

/// Of trials that succeeded or did not.
impl FromIterator<bool> for Rate {
    fn from_iter<I: IntoIterator<Item = bool>>(successes: I) -> Self {
        let mut rate = Self::default();
        successes.into_iter().for_each(|success| rate.count(success));
        rate
    }
}

/// Of all trials together.
impl Sum for Rate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        rates.fold(Self::default(), |all, one| Self {
            successes: all.successes + one.successes,
            trials: all.trials + one.trials,
        })
    }
}

/// In percent, with the interval.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.interval().map(|x| 100.0 * x);
        write!(f, "{:.1} ({low:.0}–{high:.0})", 100.0 * self.share())
    }
}

/// Two policies on the same trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Paired {
    /// Trials in which both succeeded.
    pub both: u64,
    /// Only the first.
    pub only_first: u64,
    /// Only the second.
    pub only_second: u64,
    /// Neither.
    pub neither: u64,
}

impl Paired {
    /// Counts a trial.
    pub fn count(&mut self, first: bool, second: bool) {
        *match (first, second) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.only_first,
            (false, true) => &mut self.only_second,
            (false, false) => &mut self.neither,
        } += 1;
    }

    /// Trials that both have.
    pub fn trials(self) -> u64 {
        self.both + self.only_first + self.only_second + self.neither
    }

    /// McNemar's exact test: how probable it is that trials in which they differ fall at least so unevenly, were both policies
    /// equally good. 1 where they never differ.
    pub fn p_value(self) -> f64 {
        let n = self.only_first + self.only_second;
        let least = self.only_first.min(self.only_second);
        // Σ C(n, k) / 2ⁿ for k ≤ least, twice, by logarithms: C(n, k) has more digits than f64.
        let mut log_term = -(n as f64) * std::f64::consts::LN_2;
        let mut sum = 0.0;
        for k in 0..=least {
            sum += log_term.exp();
            log_term += ((n - k) as f64 / (k + 1) as f64).ln();
        }
        (2.0 * sum).min(1.0)
    }
}

/// Of the successes of both, trial by trial.
impl FromIterator<(bool, bool)> for Paired {
    fn from_iter<I: IntoIterator<Item = (bool, bool)>>(trials: I) -> Self {
        let mut paired = Self::default();
        trials.into_iter().for_each(|(first, second)| paired.count(first, second));
        paired
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        let near = |rate: Rate, low: f64, high: f64| {
            let [l, h] = rate.interval();
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{rate:?}: {l} … {h}");
        };
        // R: binom::binom.wilson.
        near(Rate { successes: 8, trials: 10 }, 0.4902, 0.9433);
        near(Rate { successes: 0, trials: 10 }, 0.0, 0.2775);
        near(Rate { successes: 10, trials: 10 }, 0.7225, 1.0);
        assert_eq!(Rate::default().interval(), [0.0, 1.0]);
    }

    #[test]
    fn differences_have_newcombes_intervals() {
        let near = |first: (u64, u64), second: (u64, u64), low: f64, high: f64| {
            let rate = |(successes, trials)| Rate { successes, trials };
            let [l, h] = rate(first).difference(rate(second));
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{first:?} {second:?}: {l} … {h}");
        };
        // Newcombe 1998, table II, method 10, examples a, b and g.
        near((56, 70), (48, 80), 0.0524, 0.3339);
        near((9, 10), (3, 10), 0.1705, 0.8090);
        near((10, 10), (0, 20), 0.6791, 1.0);
    }

    #[test]
    fn rates_are_summed_and_shown() {
        let rates = [(3, 4), (5, 6)].map(|(successes, trials)| Rate { successes, trials });
        let all: Rate = rates.into_iter().sum();
        assert_eq!((all, all.to_string().as_str()), (Rate { successes: 8, trials: 10 }, "80.0 (49–94)"));
    }

    #[test]
    fn differences_are_as_probable_as_coins() {
        let paired = |only_first, only_second| Paired { only_first, only_second, ..Paired::default() };
        assert_eq!(paired(0, 0).p_value(), 1.0);
        assert!((paired(5, 0).p_value() - 0.0625).abs() < 1e-12);
        assert!((paired(8, 2).p_value() - 0.109_375).abs() < 1e-12);
        assert_eq!(paired(3, 3).p_value(), 1.0);
        assert!(paired(5000, 0).p_value() >= 0.0);
    }

    proptest! {
        #[test]
        fn the_share_is_within_its_interval_and_more_trials_narrow_it(
            trials in 1..400u64, share in 0.0..=1.0f64,
        ) {
            let rate = Rate { successes: (share * trials as f64).round() as u64, trials };
            let [low, high] = rate.interval();
            prop_assert!(0.0 <= low && low <= rate.share() && rate.share() <= high && high <= 1.0);
            let more = Rate { successes: rate.successes * 4, trials: trials * 4 };
            let [l, h] = more.interval();
            prop_assert!(h - l < high - low);
        }
    }
}
