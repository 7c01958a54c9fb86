//! Threads that stay: starting one costs tens of microseconds, as much as a small product takes.
//!
//! A *job* is a closure that several threads run at once, sharing its parts out among themselves ([`crate::Threads`]
//! does so with a counter). The caller always takes part and takes back the invitations that nobody has accepted when it
//! finds no part left, so a job inside a job never waits for a thread that waits for it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an idle thread looks for work before it sleeps. Waking one up takes longer than many a part of a forward
/// pass between two products, sleeping late costs a processor that nobody else wants at most this long.
const SPIN: Duration = Duration::from_micros(50);

static POOL: Pool = Pool {
    queue: Mutex::new(Queue { jobs: VecDeque::new(), workers: 0 }),
    invitations: AtomicUsize::new(0),
    wake: Condvar::new(),
};

struct Pool {
    queue: Mutex<Queue>,
    /// Sum of `open` over the queue, for those who spin.
    invitations: AtomicUsize,
    wake: Condvar,
}

struct Queue {
    /// Jobs that wish for more threads.
    jobs: VecDeque<Arc<Job>>,
    workers: usize,
}

struct Job {
    /// Borrowed from the caller of [`run`], who does not return before `open` and `running` are zero.
    task: &'static (dyn Fn() + Sync),
    /// Threads that may still join. Changed only under the queue's lock.
    open: AtomicUsize,
    /// Threads at work. Raised only under the queue's lock.
    running: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    finished: (Mutex<()>, Condvar),
}

/// Runs `task` on the calling thread and on up to `helpers` others at once, and returns when none is in it any more.
///
/// A panic in any of them is passed on, the caller's own first.
pub(crate) fn run(helpers: usize, task: &(dyn Fn() + Sync)) {
    if helpers == 0 {
        return task();
    }
    // SAFETY: only the lifetime changes. The job is out of every thread's reach before this function returns or unwinds:
    // `Retract` takes it from the queue and waits until no thread runs it, also while a panic of `task()` unwinds.
    #[allow(unsafe_code, reason = "a borrowed closure for threads that outlive it; `Retract` waits for them")]
    let task_everywhere =
        unsafe { std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(task) };
    let job = Arc::new(Job {
        task: task_everywhere,
        open: AtomicUsize::new(helpers),
        running: AtomicUsize::new(0),
        panic: Mutex::new(None),
        finished: (Mutex::new(()), Condvar::new()),
    });
    let retract = Retract(&job);
    POOL.post(&job, helpers);
    task();
    drop(retract);
    if let Some(panic) = lock(&job.panic).take() {
        resume_unwind(panic);
    }
}

impl Pool {
    fn post(&'static self, job: &Arc<Job>, helpers: usize) {
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(Arc::clone(job));
        self.invitations.fetch_add(helpers, Ordering::Release);
        while queue.workers < helpers {
            let name = format!("skillweld-{}", queue.workers + 1);
            // With fewer threads than wished for the caller does more of the work itself.
            match std::thread::Builder::new().name(name).spawn(|| self.work()) {
                Ok(_) => queue.workers += 1,
                Err(_) => break,
            }
        }
        drop(queue);
        if helpers == 1 {
            self.wake.notify_one();
        } else {
            self.wake.notify_all();
        }
    }

    /// What each thread of the pool does for ever.
    fn work(&self) {
        loop {
            let job = self.join_job();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job.task)) {
                lock(&job.panic).get_or_insert(panic);
            }
            // The lock makes sure that the caller is either before its check or already waiting.
            let guard = lock(&job.finished.0);
            job.running.fetch_sub(1, Ordering::Release);
            job.finished.1.notify_all();
            drop(guard);
        }
    }

    /// Waits for a job that wishes for threads, and joins it.
    fn join_job(&self) -> Arc<Job> {
        spin_until(|| self.invitations.load(Ordering::Acquire) > 0);
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.front().map(Arc::clone) {
                job.running.fetch_add(1, Ordering::Relaxed);
                self.invitations.fetch_sub(1, Ordering::Relaxed);
                if job.open.fetch_sub(1, Ordering::Relaxed) == 1 {
                    queue.jobs.pop_front();
                }
                return job;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// On drop nobody joins the job any more and nobody is left in it.
struct Retract<'a>(&'a Arc<Job>);

impl Drop for Retract<'_> {
    fn drop(&mut self) {
        let job = self.0;
        let mut queue = lock(&POOL.queue);
        let open = job.open.swap(0, Ordering::Relaxed);
        if open > 0 {
            queue.jobs.retain(|other| !Arc::ptr_eq(other, job));
            POOL.invitations.fetch_sub(open, Ordering::Relaxed);
        }
        drop(queue);
        spin_until(|| job.running.load(Ordering::Acquire) == 0);
        let mut guard = lock(&job.finished.0);
        while job.running.load(Ordering::Acquire) > 0 {
            guard = job.finished.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn spin_until(reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() && start.elapsed() < SPIN {
        std::hint::spin_loop();
    }
}

/// No code that can panic runs under these locks, so a poisoned one still guards consistent data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
