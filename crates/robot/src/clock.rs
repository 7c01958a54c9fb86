use std::time::{Duration, Instant};

use crate::Scheduling;

/// How much of a wait is spent awake by a thread with real-time priority: 2 ms of a period of 33 are 6 % of one core.
const AWAKE: Duration = Duration::from_millis(2);

/// Where the control loop takes its time from: the machine's clock, or one that a test moves.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;

    /// Returns about `time` later.
    fn nap(&self, time: Duration);

    /// Returns at `deadline`, or at once if that has passed.
    fn sleep_until(&self, deadline: Instant);
}

/// The machine's monotonic clock.
///
/// On Linux it sleeps with `clock_nanosleep` and an absolute deadline, so that a thread that is preempted between reading the
/// clock and going to sleep still wakes in time; elsewhere relatively, again until the time has come.
///
/// A processor that has gone to sleep, a virtual one above all, comes back milliseconds late now and then. A thread with
/// real-time priority is therefore woken [`AWAKE`] early and waits for the rest without sleeping; another would use up its
/// slice of time that way, and be made to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MonotonicClock {
    awake: Duration,
    /// One moment on both clocks: an `Instant` cannot be asked for the kernel's number.
    #[cfg(target_os = "linux")]
    anchor: (Instant, Duration),
}

impl MonotonicClock {
    /// The machine's clock, for a thread that is woken like this.
    pub(crate) fn new(scheduling: Scheduling) -> Self {
        Self {
            awake: if scheduling == Scheduling::RealTime { AWAKE } else { Duration::ZERO },
            #[cfg(target_os = "linux")]
            anchor: linux::anchor(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn nap(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn sleep_until(&self, deadline: Instant) {
        let early = deadline.checked_sub(self.awake).unwrap_or(deadline);
        // A signal may end a sleep early, so it is repeated until the time has come.
        while let Some(left) = early.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            #[cfg(target_os = "linux")]
            linux::sleep(self.anchor, early, left);
            #[cfg(not(target_os = "linux"))]
            std::thread::sleep(left);
        }
        while Instant::now() < deadline {
            std::hint::spin_loop();
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::time::{Duration, Instant};

    use rustix::io::Errno;
    use rustix::thread::{ClockId, clock_nanosleep_absolute};
    use rustix::time::{Timespec, clock_gettime};

    /// The same moment as an `Instant` and as the kernel's monotonic time.
    pub(super) fn anchor() -> (Instant, Duration) {
        let read = || {
            let before = Instant::now();
            let kernel = clock_gettime(ClockId::Monotonic);
            let kernel =
                Duration::new(kernel.tv_sec.unsigned_abs(), u32::try_from(kernel.tv_nsec).unwrap_or(0));
            (before.elapsed(), (before, kernel))
        };
        // The shortest of a few readings was not preempted in between.
        let (mut shortest, mut anchor) = read();
        for _ in 0..8 {
            let (took, moment) = read();
            if took < shortest {
                (shortest, anchor) = (took, moment);
            }
        }
        anchor
    }

    pub(super) fn sleep((instant, kernel): (Instant, Duration), deadline: Instant, left: Duration) {
        let absolute = kernel + deadline.saturating_duration_since(instant);
        let slept = i64::try_from(absolute.as_secs()).map_err(|_| Errno::INVAL).and_then(|seconds| {
            let request = Timespec { tv_sec: seconds, tv_nsec: absolute.subsec_nanos().into() };
            clock_nanosleep_absolute(ClockId::Monotonic, &request)
        });
        if slept.is_err_and(|error| error != Errno::INTR) {
            std::thread::sleep(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_never_wakes_early() {
        for scheduling in [Scheduling::Ordinary, Scheduling::RealTime] {
            let clock = MonotonicClock::new(scheduling);
            for microseconds in [0, 1, 50, 999, 2_000, 15_000] {
                let deadline = clock.now() + Duration::from_micros(microseconds);
                clock.sleep_until(deadline);
                let late = clock.now().checked_duration_since(deadline).expect("not before the deadline");
                // Far more than a busy machine needs: a wrong anchor would be off by the machine's uptime.
                assert!(late < Duration::from_secs(2), "{late:?} late");
            }
            clock.sleep_until(clock.now() - Duration::from_millis(1));
        }
    }
}
