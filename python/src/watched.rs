//! Work that Python waits for.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use skillweld_linalg::Threads;
use skillweld_merge::Control;
use skillweld_plugin_host::{HostHooks, Level};

/// Between two looks at signals and progress.
const PERIOD: Duration = Duration::from_millis(50);

/// What the work and its watcher share.
#[derive(Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
    log: Mutex<Vec<(u8, String)>>,
}

/// Lines that plugins logged: the level as Python's `logging` counts, and the text.
pub(crate) type Log = Vec<(u8, String)>;

/// Runs `work` on another thread. It is told to call its second argument with the number of elements that there will be.
/// Meanwhile this thread calls `progress(done, total)`, and asks the work to stop if that raises or a signal does
/// (KeyboardInterrupt); the exception comes out once the work has ended.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    threads: Option<NonZeroUsize>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Control<'_>, &dyn Fn(u64)) -> PyResult<T> + Send,
) -> PyResult<(T, Log)> {
    let shared = Shared::default();
    let (sender, receiver) = channel();
    // Shared with the closure that waits without the interpreter's lock.
    let receiver = Mutex::new(receiver);
    let result = std::thread::scope(|scope| {
        let shared = &shared;
        scope.spawn(move || {
            let cancelled = || shared.stop.load(Ordering::Relaxed);
            let log = |level: Level, text: &str| {
                let level = match level {
                    Level::Error => 40,
                    Level::Warning => 30,
                    Level::Info => 20,
                    Level::Debug => 10,
                };
                let mut lines = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push((level, text.to_owned()));
            };
            let hooks = HostHooks { log: &log, progress: &|_| {}, cancelled: &cancelled };
            let advance = |elements| {
                shared.done.fetch_add(elements, Ordering::Relaxed);
            };
            let threads = threads.map_or_else(Threads::available, Threads::new);
            let control = Control { threads, hooks, advance: &advance };
            let total = |elements| shared.total.store(elements, Ordering::Relaxed);
            // The receiver outlives this thread.
            let _ = sender.send(work(&control, &total));
        });
        let mut raised = None;
        loop {
            let received =
                py.detach(|| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PERIOD));
            let ended = !matches!(received, Err(RecvTimeoutError::Timeout));
            if raised.is_none()
                && let Err(exception) = py.check_signals().and_then(|()| tell(progress, shared, &received))
            {
                shared.stop.store(true, Ordering::Relaxed);
                raised = Some(exception);
            }
            match (received, raised.take_if(|_| ended)) {
                (Ok(_), Some(exception)) => return Err(exception),
                (Ok(result), None) => return result,
                (Err(RecvTimeoutError::Timeout), _) => {}
                // The thread has panicked, and the scope says so.
                (Err(RecvTimeoutError::Disconnected), _) => {
                    return Err(crate::Error::new_err("stopped by a panic"));
                }
            }
        }
    })?;
    Ok((result, shared.log.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Calls `progress`, if it is known how much there is to do. At the end of work that succeeded all is done.
fn tell<T, E>(
    progress: Option<&Bound<'_, PyAny>>,
    shared: &Shared,
    received: &Result<PyResult<T>, E>,
) -> PyResult<()> {
    let total = shared.total.load(Ordering::Relaxed);
    let Some(progress) = progress.filter(|_| total > 0) else { return Ok(()) };
    let done = match received {
        Ok(Ok(_)) => total,
        _ => shared.done.load(Ordering::Relaxed).min(total),
    };
    progress.call1((done, total)).map(drop)
}
