use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many threads a job runs on. The only place that starts them.
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
        let first = std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(worker)).collect();
            let own = worker();
            let others = others.into_iter().filter_map(|handle| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            own.into_iter().chain(others).min_by_key(|(index, _)| *index)
        });
        first.map_or(Ok(()), |(_, error)| Err(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

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
}
