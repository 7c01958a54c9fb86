use std::fmt;
use std::time::Duration;

/// Every power of two is cut into so many equal parts: a percentile is at most 1/32 too large.
const PARTS: u64 = 32;

/// How long something took, many times: counts in logarithmic bins, so that a day takes no more memory than a minute.
#[derive(Clone, Default, PartialEq)]
pub struct Durations {
    bins: Vec<u64>,
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Durations {
    /// Counts one more.
    pub fn record(&mut self, took: Duration) {
        let bin = bin(nanoseconds(took));
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, 0);
        }
        self.bins[bin] += 1;
        self.count += 1;
        self.sum += took;
        self.max = self.max.max(took);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest; zero of none.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The mean; zero of none.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.sum.as_secs_f64() / self.count.max(1) as f64)
    }

    /// The least duration that `share` (0 … 1) of all did not exceed, at most 1/32 too large; zero of none.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bin, count) in self.bins.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(last_of(bin)).min(self.max);
            }
        }
        self.max
    }

    /// The share (0 … 1) that took no longer than `limit`; those within 1/32 of it may be missing. 1 of none.
    pub fn share_within(&self, limit: Duration) -> f64 {
        if self.count == 0 || limit >= self.max {
            return 1.0;
        }
        let limit = nanoseconds(limit);
        let within: u64 =
            self.bins.iter().enumerate().take_while(|(bin, _)| last_of(*bin) <= limit).map(|(_, n)| n).sum();
        within as f64 / self.count as f64
    }
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durations")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p99", &self.percentile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Below 32 ns a bin each; above, the five bits after the leading one.
fn bin(ns: u64) -> usize {
    if ns < PARTS {
        return ns as usize;
    }
    let shift = ns.ilog2() - PARTS.ilog2();
    (u64::from(shift) * PARTS + (ns >> shift)) as usize
}

/// The largest number of nanoseconds in a bin.
fn last_of(bin: usize) -> u64 {
    let bin = bin as u64;
    if bin < PARTS {
        return bin;
    }
    let shift = bin / PARTS - 1;
    let leading = u128::from(bin - shift * PARTS) + 1;
    u64::try_from((leading << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bins_follow_one_another_without_gaps() {
        for number in 0..40 * PARTS as usize {
            assert_eq!(bin(last_of(number)), number);
            assert_eq!(bin(last_of(number) + 1), number + 1);
        }
        assert_eq!(last_of(bin(u64::MAX)), u64::MAX);
    }

    #[test]
    fn none_took_no_time() {
        let none = Durations::default();
        assert_eq!((none.count(), none.max(), none.mean()), (0, Duration::ZERO, Duration::ZERO));
        assert_eq!(none.percentile(0.999), Duration::ZERO);
        assert_eq!(none.share_within(Duration::ZERO), 1.0);
    }

    proptest! {
        #[test]
        fn as_a_sorted_list_says(
            mut list in prop::collection::vec(0_u64..50_000_000_000, 1..300),
            share in 0.0_f64..=1.0,
            limit in 0_u64..50_000_000_000,
        ) {
            let mut durations = Durations::default();
            list.iter().for_each(|ns| durations.record(Duration::from_nanos(*ns)));
            list.sort_unstable();
            let rank = ((share * list.len() as f64).ceil() as usize).clamp(1, list.len());
            let exact = list[rank - 1];
            let got = durations.percentile(share).as_nanos() as u64;
            prop_assert!(got >= exact && got <= exact + exact / PARTS, "{} for {}", got, exact);

            let within = |limit: u64| list.iter().filter(|ns| **ns <= limit).count() as f64 / list.len() as f64;
            let got = durations.share_within(Duration::from_nanos(limit));
            prop_assert!(got <= within(limit) && got >= within(limit - limit / PARTS), "{}", got);
            prop_assert_eq!(durations.max().as_nanos() as u64, list[list.len() - 1]);
        }
    }
}
