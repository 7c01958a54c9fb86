use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use skillweld_robot::ChunkSource;
use skillweld_suites::{Env, SuiteError};

use crate::{EvalError, Rollout, Trial, TrialResult};

impl Rollout {
    /// Many trials side by side: every source runs one after the other, the next that nobody has begun. `done` gets each result on
    /// the calling thread, in the order in which they end, and says whether to go on; trials that are under way by then are still
    /// finished. A trial's result depends neither on its source nor on what ran before it. `watch` is shown every trial as in
    /// [`run_watched`](Self::run_watched), on the threads that run them.
    ///
    /// # Errors
    /// The first of any trial, after which none is begun; or of `done`.
    pub fn run_all(
        &self,
        trials: &[Trial],
        sources: &mut [Box<dyn ChunkSource>],
        task: Option<&str>,
        watch: impl Fn(&Trial, &mut Env) -> Result<(), SuiteError> + Sync,
        mut done: impl FnMut(TrialResult) -> Result<ControlFlow<()>, EvalError>,
    ) -> Result<(), EvalError> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let (send, results) = mpsc::channel();
        std::thread::scope(|scope| {
            for source in sources {
                let (send, next, stop, watch) = (send.clone(), &next, &stop, &watch);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        let result = self.run_watched(trial, source.as_mut(), task, |env| watch(trial, env));
                        if result.is_err() {
                            stop.store(true, Ordering::Relaxed);
                        }
                        // Nobody listens any more once something failed.
                        if send.send(result).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let mut outcome = Ok(());
            for result in results {
                let verdict = result.and_then(&mut done);
                if !matches!(verdict, Ok(ControlFlow::Continue(()))) {
                    stop.store(true, Ordering::Relaxed);
                }
                outcome = outcome.and(verdict.map(|_| ()));
            }
            outcome
        })
    }
}
