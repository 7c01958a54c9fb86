//! Works off the points that have no score yet.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use skillweld_merge::recipe::{Draft, Recipe};

use crate::ledger::{Definition, Ledger, Outcome, POINTS, Trial};
use crate::results;
use crate::summary::Summary;
use crate::{Point, SweepError, grid};

/// Makes the checkpoint of a point and evaluates it.
pub trait Engine: Sync {
    /// Evaluates `point` once for each of `seeds` and hands every outcome to `done` as soon as it is there. May be called
    /// for several points at once.
    ///
    /// # Errors
    /// What makes going on senseless: a full disk, a cluster that is gone, [`SweepError::Stopped`] once `cancelled` says
    /// so. An evaluation that fails is an [`Outcome`]. Nothing of the point stays behind.
    fn evaluate(
        &self,
        point: &Point,
        seeds: &[u64],
        cancelled: &(dyn Fn() -> bool + Sync),
        done: &mut dyn FnMut(u64, Outcome) -> Result<(), SweepError>,
    ) -> Result<(), SweepError>;
}

/// What happens while a sweep runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A point's turn has come.
    Begun(&'a Point),
    /// It was evaluated.
    Evaluated(&'a Point, u64, &'a Outcome),
}

/// How a sweep is watched and stopped.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Asks to stop.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
    /// Told what happens, by any thread.
    pub told: &'a (dyn Fn(&Event<'_>) + Sync),
}

/// A sweep in its folder.
#[derive(Debug)]
pub struct Sweep {
    points: Vec<Point>,
    seeds: u64,
    ledger: Mutex<Ledger>,
}

impl Sweep {
    /// The recipe at each of the points: before anything is written, all of them have to be recipes.
    ///
    /// # Errors
    /// [`SweepError::Recipe`] with the first point that is none.
    pub fn recipes(draft: &Draft, points: &[Point]) -> Result<Vec<Recipe>, SweepError> {
        let recipe = |point: &Point| {
            draft
                .recipe(&point.borrowed())
                .map_err(|source| SweepError::Recipe { point: point.label(), source: Box::new(source) })
        };
        points.iter().map(recipe).collect()
    }

    /// Opens the sweep in `dir`, which is made if it is not there; `restart` forgets what was evaluated. Each point is
    /// evaluated `seeds` times.
    ///
    /// # Errors
    /// [`SweepError::Changed`] for a folder whose sweep is about something else, [`SweepError::Folder`] for one that is no
    /// sweep's or in use, [`SweepError::Axis`], [`SweepError::Io`].
    pub fn open(dir: &Path, definition: Definition, seeds: u64, restart: bool) -> Result<Self, SweepError> {
        let points = grid(&definition.axes)?;
        Ok(Self { points, seeds, ledger: Mutex::new(Ledger::open(dir, definition, restart)?) })
    }

    /// Every combination of values.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// How many evaluations there are in all, and how many of them have a score.
    pub fn progress(&self) -> (usize, usize) {
        let all = self.points.len() * usize::try_from(self.seeds).unwrap_or(usize::MAX);
        (all, all - self.pending().iter().map(|(_, seeds)| seeds.len()).sum::<usize>())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Trials are only ever added whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Points with the seeds that have no score. What failed is tried again: whoever starts anew has mended something.
    fn pending(&self) -> Vec<(&Point, Vec<u64>)> {
        let ledger = self.ledger();
        let missing = |point: &Point| {
            let label = point.label();
            let scored = |seed: &u64| matches!(ledger.outcome(&label, *seed), Some(Outcome::Scored(_)));
            (0..self.seeds).filter(|seed| !scored(seed)).collect::<Vec<_>>()
        };
        let all = self.points.iter().map(|point| (point, missing(point)));
        all.filter(|(_, seeds)| !seeds.is_empty()).collect()
    }

    /// Evaluates whatever has no score yet, `parallel` points at once.
    ///
    /// # Errors
    /// [`SweepError::Stopped`], and whatever the engine cannot go on from; what was evaluated until then is written down.
    pub fn run(&self, engine: &dyn Engine, parallel: usize, watch: Watch<'_>) -> Result<(), SweepError> {
        let pending = self.pending();
        let next = AtomicUsize::new(0);
        let given_up = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let cancelled = || (watch.cancelled)() || given_up.load(Ordering::Relaxed);
        let work = || {
            while !cancelled() {
                let Some((point, seeds)) = pending.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                (watch.told)(&Event::Begun(point));
                let mut done = |seed, outcome: Outcome| {
                    let trial = Trial { point: point.label(), seed, outcome };
                    self.ledger().record(trial.clone())?;
                    (watch.told)(&Event::Evaluated(point, seed, &trial.outcome));
                    Ok(())
                };
                if let Err(error) = engine.evaluate(point, seeds, &cancelled, &mut done) {
                    given_up.store(true, Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    // Those that were only stopped by another's failure have nothing to say.
                    if failure.as_ref().is_none_or(|known| matches!(known, SweepError::Stopped)) {
                        *failure = Some(error);
                    }
                }
            }
        };
        let checkpoints = self.ledger().dir().join(POINTS);
        fs::create_dir_all(&checkpoints).map_err(SweepError::io("create", &checkpoints))?;
        std::thread::scope(|scope| {
            for _ in 1..parallel.min(pending.len()) {
                scope.spawn(work);
            }
            work();
        });
        // Whatever may still lie in it is removed by the next start.
        let _ = fs::remove_dir(&checkpoints);
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None if self.untried() > 0 => Err(SweepError::Stopped),
            None => Ok(()),
        }
    }

    /// Evaluations that nobody has begun with.
    fn untried(&self) -> usize {
        let ledger = self.ledger();
        let of = |point: &Point| {
            let label = point.label();
            (0..self.seeds).filter(|seed| ledger.outcome(&label, *seed).is_none()).count()
        };
        self.points.iter().map(of).sum()
    }

    /// What is known of every point; the least score is the best one if `minimize` says so.
    pub fn summary(&self, minimize: bool) -> Summary {
        let ledger = self.ledger();
        Summary::new(&self.points, self.seeds, minimize, |point, seed| ledger.outcome(point, seed).cloned())
    }

    /// Writes `results.csv`, `results.json` and, for one or two fields, `sweep.svg` into the folder.
    ///
    /// # Errors
    /// [`SweepError::Io`].
    pub fn write_results(&self, summary: &Summary) -> Result<(), SweepError> {
        let ledger = self.ledger();
        results::write(ledger.dir(), ledger.definition(), self.seeds, summary)
    }
}
