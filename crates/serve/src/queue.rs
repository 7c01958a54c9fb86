use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A bounded queue between the connections and the one thread that infers.
///
/// A connection has at most one job in it and puts the next one in at the end when the last is done. First come, first
/// served is therefore round robin over the clients: whoever sends without pause still waits for all others in between.
pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    limit: usize,
}

struct State<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

/// Something that may have become pointless while it waited.
pub(crate) trait Abandoned {
    /// Whether nobody waits for it any more.
    fn abandoned(&self) -> bool;
}

/// Why a job was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl<J: Abandoned> Queue<J> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false }),
            changed: Condvar::new(),
            limit: limit.max(1),
        }
    }

    pub(crate) fn push(&self, job: J) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.jobs.len() >= self.limit {
            // Clients that left must not keep others out.
            state.jobs.retain(|job| !job.abandoned());
        }
        if state.jobs.len() >= self.limit {
            return Err(Refused::Full);
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next job that somebody still wants; none when the queue is closed.
    pub(crate) fn pop(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            match state.jobs.pop_front() {
                Some(job) if job.abandoned() => {}
                Some(job) => return Some(job),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Drops what waits; nothing comes in or out any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing in here panics with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    struct Job(u32, bool);

    impl Abandoned for Job {
        fn abandoned(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn jobs_leave_in_order_and_abandoned_ones_do_not() {
        let queue = Queue::new(3);
        for job in [Job(1, false), Job(2, true), Job(3, false)] {
            queue.push(job).unwrap();
        }
        assert_eq!(queue.pop().unwrap().0, 1);
        assert_eq!(queue.pop().unwrap().0, 3);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_full_queue_refuses_unless_somebody_left() {
        let queue = Queue::new(2);
        queue.push(Job(1, false)).unwrap();
        queue.push(Job(2, false)).unwrap();
        assert_eq!(queue.push(Job(3, false)), Err(Refused::Full));
        queue.pop().unwrap();
        queue.push(Job(4, true)).unwrap();
        queue.push(Job(5, false)).unwrap();
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.push(Job(6, false)), Err(Refused::Full));
    }

    #[test]
    fn closing_wakes_who_waits_and_drops_the_rest() {
        let queue = Arc::new(Queue::<Job>::new(2));
        let waiting = std::thread::spawn({
            let queue = queue.clone();
            move || queue.pop().is_none()
        });
        std::thread::sleep(Duration::from_millis(20));
        queue.close();
        assert!(waiting.join().unwrap());
        assert_eq!(queue.push(Job(1, false)), Err(Refused::Closed));
    }
}
