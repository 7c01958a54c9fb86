//! How much later than others a server's image comes.

use std::time::{Duration, Instant};

/// A server's clock may be slower than this machine's by this share; quartz is so by a tenth of it. Else a stream would seem older
/// and older from day to day.
const DRIFT: f64 = 1e-4;

/// What the stamps of a connection's images, each of which says when it was made by the server's clock, say of their ages.
///
/// The two clocks do not show the same time, but they go equally fast: an image that comes longer after its stamp than the quickest
/// one has waited somewhere for the difference.
#[derive(Default)]
pub(crate) struct Delay {
    last: Option<Last>,
}

struct Last {
    arrived: Instant,
    /// In seconds, by the server's clock.
    stamp_s: f64,
    /// How long it had waited.
    age_s: f64,
}

impl Delay {
    /// When the image that has `arrived` was taken, as far as its stamp says it, in seconds by the server's clock.
    pub(crate) fn captured(&mut self, arrived: Instant, stamp_s: f64) -> Instant {
        let age_s = match &self.last {
            // Earlier than the one before: the server's clock was set.
            Some(last) if stamp_s >= last.stamp_s => {
                let passed_s = arrived.saturating_duration_since(last.arrived).as_secs_f64();
                (last.age_s + passed_s * (1.0 - DRIFT) - (stamp_s - last.stamp_s)).max(0.0)
            }
            _ => 0.0,
        };
        self.last = Some(Last { arrived, stamp_s, age_s });
        arrived.checked_sub(Duration::from_secs_f64(age_s)).unwrap_or(arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ages, in seconds, of images that arrive at these times with these stamps.
    fn ages(images: impl IntoIterator<Item = (f64, f64)>) -> Vec<f64> {
        let begun = Instant::now() + Duration::from_secs(1_000_000);
        let mut delay = Delay::default();
        let age = |(arrived_s, stamp_s): (f64, f64)| {
            let arrived = begun + Duration::from_secs_f64(arrived_s);
            (arrived - delay.captured(arrived, stamp_s)).as_secs_f64()
        };
        images.into_iter().map(age).collect()
    }

    #[track_caller]
    fn assert_ages(images: &[(f64, f64)], expected: &[f64]) {
        let found = ages(images.iter().copied());
        let fits = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-3);
        assert!(fits && found.len() == expected.len(), "{found:?} instead of {expected:?}");
    }

    #[test]
    fn the_quickest_is_new_and_others_are_older_by_what_they_took_longer() {
        assert_ages(&[(0.0, 50.0), (0.3, 50.1), (0.4, 50.2), (0.45, 50.3)], &[0.0, 0.2, 0.2, 0.15]);
        // The first had waited: the second, which came quicker, shows it, and counts from there.
        assert_ages(&[(0.0, 50.0), (0.1, 50.3), (0.4, 50.4)], &[0.0, 0.0, 0.2]);
    }

    #[test]
    fn an_image_that_comes_again_and_again_ages() {
        assert_ages(&[(0.0, 7.0), (1.0, 7.0), (2.0, 7.0)], &[0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_clock_that_is_set_begins_anew() {
        assert_ages(&[(0.0, 50.0), (0.5, 50.1), (0.6, 3.0), (0.9, 3.1)], &[0.0, 0.4, 0.0, 0.2]);
        assert_ages(&[(0.0, 50.0), (0.5, 50.1), (0.6, 1e12), (0.9, 1e12 + 0.1)], &[0.0, 0.4, 0.0, 0.2]);
    }

    #[test]
    fn a_clock_that_is_a_little_slow_makes_nothing_old() {
        // A day, at five images a second, of a clock that loses eight seconds.
        let day = (0..432_000).map(|image| (f64::from(image) * 0.2, f64::from(image) * 0.2 * (1.0 - 9e-5)));
        assert!(ages(day).into_iter().all(|age| age < 1e-6));
    }
}
