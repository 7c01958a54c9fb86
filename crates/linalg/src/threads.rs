use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::pool;

/// How many threads a job runs on: the calling one and others, which are started once and kept for the next job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// The calling thread alone.
    pub const ONE: Self = Self(NonZeroUsize::MIN);

    /// One for every core this process may use.
    pub fn available() -> Self {
        Self(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// Exactly `count` threads.
    pub const fn new(count: NonZeroUsize) -> Self {
        Self(count)
    }

    /// The number of threads.
    pub const fn count(self) -> usize {
        self.0.get()
    }

    /// Runs `work(&mut state, index)` for every `index < count`, each worker with its own `state` (scratch buffers).
    ///
    /// Indices are handed out in ascending order. The first error, by index, is returned; after any error no new
    /// index is started.
    ///
    /// # Errors
    /// Whatever `work` fails with.
    pub fn for_each<S, E: Send>(
        self,
        count: usize,
        new_state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut state = new_state();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return None;
                }
                if let Err(error) = work(&mut state, index) {
                    // Nobody starts another part. Parts below `index` are already running and report for themselves.
                    next.store(count, Ordering::Relaxed);
                    return Some((index, error));
                }
            }
        };
        let workers = self.count().min(count);
        let failures = Mutex::new(Vec::new());
        pool::run(workers.saturating_sub(1), &|| {
            if let Some(failure) = worker() {
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        });
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.into_iter().min_by_key(|(index, _)| *index).map_or(Ok(()), |(_, error)| Err(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;
    use std::time::Duration;

    fn threads(count: usize) -> Threads {
        Threads::new(NonZeroUsize::new(count).unwrap())
    }

    #[test]
    fn every_index_runs_exactly_once() {
        for count in [1, 2, 7] {
            let seen = Mutex::new(vec![0; 100]);
            let result = threads(count).for_each(
                100,
                || (),
                |(), i| {
                    seen.lock().unwrap()[i] += 1;
                    Ok::<_, ()>(())
                },
            );
            assert_eq!(result, Ok(()));
            assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1));
        }
    }

    #[test]
    fn the_first_error_by_index_wins_and_work_stops() {
        let started = AtomicUsize::new(0);
        let result = threads(3).for_each(
            1_000_000,
            || (),
            |(), i| {
                started.fetch_add(1, Ordering::Relaxed);
                if i >= 5 { Err(i) } else { Ok(()) }
            },
        );
        assert_eq!(result, Err(5));
        assert!(started.into_inner() < 1000);
    }

    #[test]
    fn jobs_inside_jobs_end() {
        let sum = AtomicUsize::new(0);
        for _ in 0..50 {
            let inner = |(): &mut (), i| threads(3).for_each(5, || (), |(), j| add(&sum, 10 * i + j));
            assert_eq!(threads(4).for_each(10, || (), inner), Ok(()));
        }
        // Σ over i < 10, j < 5 of 10 i + j, fifty times.
        assert_eq!(sum.into_inner(), 50 * (10 * 45 * 5 + 10 * 10));
    }

    fn add(sum: &AtomicUsize, value: usize) -> Result<(), ()> {
        sum.fetch_add(value, Ordering::Relaxed);
        Ok(())
    }

    #[test]
    fn callers_side_by_side_get_their_own_results() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..200 {
                        let sum = AtomicUsize::new(0);
                        assert_eq!(threads(3).for_each(round, || (), |(), i| add(&sum, i)), Ok(()));
                        assert_eq!(sum.into_inner(), (0..round).sum());
                    }
                });
            }
        });
    }

    #[test]
    fn several_threads_work_at_once() {
        // Two parts that wait for one another end only if two threads run them.
        let barrier = std::sync::Barrier::new(2);
        for _ in 0..20 {
            let meet = |(): &mut (), _| {
                barrier.wait();
                Ok::<_, ()>(())
            };
            let result = threads(2).for_each(2, || (), meet);
            assert_eq!(result, Ok(()));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for bad in [0, 7] {
            let attempt = catch_unwind(|| {
                threads(3).for_each(
                    8,
                    || (),
                    |(), i| {
                        assert_ne!(i, bad, "part {i} fails");
                        std::thread::sleep(Duration::from_millis(1));
                        Ok::<_, ()>(())
                    },
                )
            });
            let payload = attempt.unwrap_err();
            let message = payload.downcast_ref::<String>().unwrap();
            assert!(message.contains(&format!("part {bad} fails")), "{message}");
            every_index_runs_exactly_once();
        }
    }
}
