//! Merges and evaluates on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use skillweld_merge::recipe::{Model, Recipe};
use skillweld_merge::{BaseMode, Control, MergeError, Models, Plan, RunOptions};
use skillweld_plugin_host::Registry;

use crate::evaluation::evaluate;
use crate::ledger::{Outcome, POINTS};
use crate::sweep::Engine;
use crate::{EvalCommand, Point, SweepError};

/// What becomes of checkpoints once they are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Points {
    /// They are removed; nothing waits for the disk.
    #[default]
    Temporary,
    /// They stay in the sweep's folder, as `skillweld merge` writes them.
    Kept,
}

/// How points are merged.
#[derive(Clone, Copy)]
pub struct LocalOptions<'a> {
    /// Threads, and how merges are watched and stopped.
    pub control: Control<'a>,
    /// What becomes of them.
    pub points: Points,
}

/// Merges points one after the other, for each takes all threads, and evaluates them side by side. Models are opened once,
/// and what plans have found out about them serves all points.
pub struct Local<'a> {
    recipes: Vec<Recipe>,
    /// Opened models, and which of them each point takes.
    models: Vec<Models>,
    models_of: Vec<usize>,
    registry: &'a Registry,
    command: &'a EvalCommand,
    options: LocalOptions<'a>,
    dir: PathBuf,
    merging: Mutex<()>,
}

impl<'a> Local<'a> {
    /// Opens all models and plans every point, so that none is refused in the middle of the night. `dir` is the sweep's
    /// folder; nothing is written yet.
    ///
    /// # Errors
    /// [`SweepError::Merge`] with the first point that cannot be merged.
    pub fn new(
        dir: &Path,
        (points, recipes): (&[Point], Vec<Recipe>),
        registry: &'a Registry,
        command: &'a EvalCommand,
        options: LocalOptions<'a>,
    ) -> Result<Self, SweepError> {
        let (mut models, mut lists): (Vec<Models>, Vec<&Recipe>) = (Vec::new(), Vec::new());
        let mut models_of = Vec::with_capacity(points.len());
        for (point, recipe) in points.iter().zip(&recipes) {
            let known = lists.iter().position(|other| same_models(other, recipe));
            models_of.push(match known {
                Some(known) => known,
                None => {
                    lists.push(recipe);
                    models.push(Models::open(recipe).map_err(at(point))?);
                    models.len() - 1
                }
            });
        }
        // Evaluations may run anywhere.
        let dir = std::path::absolute(dir).map_err(SweepError::io("find", dir))?;
        let local =
            Self { recipes, models, models_of, registry, command, options, dir, merging: Mutex::new(()) };
        for point in points {
            let plan = local.plan(point)?;
            let check = || {
                plan.check()?;
                plan.check_output(&local.checked_place(point), local.run_options(&plan))
            };
            check().map_err(at(point))?;
        }
        Ok(local)
    }

    fn plan(&self, point: &Point) -> Result<Plan<'_>, SweepError> {
        let (recipe, models) = (&self.recipes[point.index], &self.models[self.models_of[point.index]]);
        Plan::new(recipe, models, self.registry, &self.options.control).map_err(at(point))
    }

    /// Where the point's checkpoint is written.
    fn place(&self, point: &Point) -> PathBuf {
        match self.options.points {
            Points::Temporary => self.dir.join(POINTS).join(point.index.to_string()),
            Points::Kept => self.dir.join("points").join(point.index.to_string()),
        }
    }

    /// As [`place`](Self::place), before what a killed process has left in the folder is removed.
    fn checked_place(&self, point: &Point) -> PathBuf {
        match self.options.points {
            Points::Temporary => self.dir.join(POINTS).join("new"),
            Points::Kept => self.place(point),
        }
    }

    fn run_options(&self, plan: &Plan<'_>) -> RunOptions {
        let temporary = self.options.points == Points::Temporary;
        // Links save writing Θ₀ again; merges without masks have nothing to save. Whoever evaluates finds all weights there.
        let links = temporary && plan.check_base(BaseMode::Link).is_ok();
        let base = if links { BaseMode::Link } else { BaseMode::Copy };
        RunOptions { force: !temporary, base, temporary }
    }

    /// Merges a point into `out` as `skillweld merge` does, in place of an earlier output.
    ///
    /// # Errors
    /// [`SweepError::Merge`].
    pub fn keep(&self, point: &Point, out: &Path) -> Result<(), SweepError> {
        let options = RunOptions { force: true, ..RunOptions::default() };
        self.plan(point)?.run(out, options, &self.options.control).map_err(at(point)).map(drop)
    }
}

/// Both recipes name the same models by the same names.
fn same_models(a: &Recipe, b: &Recipe) -> bool {
    let measured = |model: &Model| model.statistics.as_ref().map(|(path, _)| path.clone());
    let same = |a: &Model, b: &Model| {
        (&a.name, &a.path, &a.adapter, measured(a)) == (&b.name, &b.path, &b.adapter, measured(b))
    };
    a.base == b.base
        && a.models.len() == b.models.len()
        && a.models.iter().zip(&b.models).all(|(a, b)| same(a, b))
}

fn at(point: &Point) -> impl Fn(MergeError) -> SweepError {
    let point = point.label();
    move |source| match source {
        MergeError::Cancelled => SweepError::Stopped,
        source => SweepError::Merge { point: point.clone(), source: Box::new(source) },
    }
}

/// Removes a checkpoint when its turn is over, however it ends.
struct Removed<'p>(&'p Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next start.
        let _ = fs::remove_dir_all(self.0);
    }
}

impl Engine for Local<'_> {
    fn evaluate(
        &self,
        point: &Point,
        seeds: &[u64],
        cancelled: &(dyn Fn() -> bool + Sync),
        done: &mut dyn FnMut(u64, Outcome) -> Result<(), SweepError>,
    ) -> Result<(), SweepError> {
        let out = self.place(point);
        let _removed = (self.options.points == Points::Temporary).then(|| Removed(&out));
        {
            let _turn = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
            if cancelled() {
                return Err(SweepError::Stopped);
            }
            let plan = self.plan(point)?;
            plan.run(&out, self.run_options(&plan), &self.options.control).map_err(at(point))?;
        }
        let label = point.label();
        for &seed in seeds {
            done(seed, evaluate(self.command, (&out, seed, &label), cancelled)?)?;
        }
        Ok(())
    }
}
