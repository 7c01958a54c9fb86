use std::time::{Duration, Instant};

/// Absolute deadlines: step n is due at start + n ÷ rate, whatever happened before, so that nothing drifts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    start: Instant,
    hz: f64,
    step: u64,
}

impl Pace {
    /// Step 0 is due at `start`.
    pub(crate) fn new(start: Instant, hz: f64) -> Self {
        Self { start, hz, step: 0 }
    }

    /// Number of the present step.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// When the present step is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.due(self.step, 0.0)
    }

    /// When `share` (0 … 1) of the present period has passed.
    pub(crate) fn within(&self, share: f64) -> Instant {
        self.due(self.step, share)
    }

    /// Goes to the next step at the end of this one's work, and says how many whole periods are left out.
    ///
    /// Work that ends less than half a period after the next deadline is followed at once by the next step; later than that,
    /// the nearest deadline ahead is waited for. So steps are at least half a period apart and never bunch up.
    pub(crate) fn advance(&mut self, now: Instant) -> u64 {
        let next = self.step + 1;
        let nearest = (now.saturating_duration_since(self.start).as_secs_f64() * self.hz).round() as u64;
        self.step = next.max(nearest);
        self.step - next
    }

    fn due(&self, step: u64, share: f64) -> Instant {
        self.start + Duration::from_secs_f64((step as f64 + share) / self.hz)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn deadlines_do_not_drift() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 30.0);
        // Every step is worked on for 20 ms after its deadline, for an hour.
        for _ in 0..108_000 {
            assert_eq!(pace.advance(pace.deadline() + Duration::from_millis(20)), 0);
        }
        assert_eq!(pace.deadline(), start + Duration::from_secs(3600));
    }

    #[test]
    fn missed_deadlines_skip_whole_periods() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(start, 10.0);
        assert_eq!(pace.advance(at(149)), 0, "less than half a period late: the next step comes at once");
        assert_eq!(pace.deadline(), at(100));
        assert_eq!(pace.advance(at(551)), 4, "steps 2 to 5 are left out");
        assert_eq!(pace.deadline(), at(600));
        assert_eq!(pace.within(0.5), at(650));
    }

    proptest! {
        #[test]
        fn steps_are_half_a_period_apart(work_ms in prop::collection::vec(0_u64..400, 1..60)) {
            let mut pace = Pace::new(Instant::now(), 20.0);
            let mut woken = pace.deadline();
            for work in work_ms {
                let done = woken + Duration::from_millis(work);
                let before = pace.step();
                let skipped = pace.advance(done);
                prop_assert_eq!(pace.step(), before + 1 + skipped);
                let next = done.max(pace.deadline());
                // Deadlines are rounded to nanoseconds.
                prop_assert!(next - woken >= Duration::from_nanos(24_999_998));
                prop_assert!(next - pace.deadline() <= Duration::from_nanos(25_000_002));
                woken = next;
            }
        }
    }
}
