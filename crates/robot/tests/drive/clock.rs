use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skillweld_robot::Clock;

/// A clock that stands still until someone sleeps or advances it. Clones show the same time: a minute of control is tested in
/// milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct VirtualClock {
    start: Instant,
    passed_ns: Arc<AtomicU64>,
}

impl VirtualClock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), passed_ns: Arc::default() }
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.passed_ns.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }

    /// How much time has passed since the clock was made.
    pub(crate) fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed_ns.load(Ordering::SeqCst))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.start + self.passed()
    }

    fn nap(&self, time: Duration) {
        self.advance(time);
    }

    /// Moves only forward.
    fn sleep_until(&self, deadline: Instant) {
        let passed = deadline.saturating_duration_since(self.start);
        self.passed_ns.fetch_max(passed.as_nanos() as u64, Ordering::SeqCst);
    }
}
