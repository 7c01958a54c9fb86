use std::path::Path;

use serde_json::{Value, json};
use skillweld_merge::{ActionKind, Control, Plan, PlanSummary, Report, RunOptions};
use skillweld_merged::layout::RETAIN_PROVENANCE;
use skillweld_store::{OutputDir, write_json};

use crate::contents::{add_statistics, of_input};
use crate::recipe::{BASE, FINETUNED};
use crate::statistics::Statistics;
use crate::{Contents, Keep, Pair, RetainError, parts};

/// Version of `skillweld_retain.json`.
const FORMAT_VERSION: u64 = 1;

/// One interpolation, planned.
#[derive(Debug)]
pub struct Step<'a> {
    pub(crate) pair: &'a Pair,
    pub(crate) plan: Plan<'a>,
}

/// What [`Step::run`] did.
#[derive(Debug, Clone)]
pub struct Done {
    /// Tensors by what happened to them.
    pub report: Report,
    /// What the pretrained policy consisted of.
    pub base: Contents,
    /// What the finetuned one did.
    pub finetuned: Contents,
    /// What came out.
    pub result: Contents,
    /// Whose normalisation statistics came along, where there are any.
    pub statistics: Option<Keep>,
}

impl Step<'_> {
    /// Everything in the plan, for printing.
    pub fn summary(&self) -> PlanSummary {
        let mut summary = self.plan.summary();
        summary.tasks.retain(|task| task != BASE);
        summary.method = self.pair.interpolation.method.name().to_owned();
        let unknown = summary
            .tensors
            .iter()
            .filter(|line| line.modality == "other" && line.action == ActionKind::Merged);
        let unknown: Vec<&str> = unknown.map(|line| line.key.as_str()).collect();
        if let Some(first) = unknown.first() {
            let more =
                if unknown.len() > 1 { format!(" and {} more", unknown.len() - 1) } else { String::new() };
            let alpha = self.pair.interpolation.alpha.other;
            summary.notes.push(format!(
                "of no known modality, and so interpolated with the general α = {alpha}: {first}{more}"
            ));
        }
        summary.notes.extend(self.pair.note.clone());
        summary
    }

    /// Elements that workers will report as done: the measure of progress.
    pub fn work(&self) -> u64 {
        self.plan.work()
    }

    /// Fails if any tensor is refused.
    ///
    /// # Errors
    /// [`MergeError::Refused`](skillweld_merge::MergeError::Refused) with every refused tensor and why.
    pub fn check(&self) -> Result<(), RetainError> {
        Ok(self.plan.check()?)
    }

    /// Refuses an output that [`run`](Self::run) would refuse.
    ///
    /// # Errors
    /// As [`Plan::check_output`].
    pub fn check_output(&self, out: &Path, force: bool) -> Result<(), RetainError> {
        Ok(self.plan.check_output(out, RunOptions { force, ..RunOptions::default() })?)
    }

    /// Writes the interpolated policy to `out`, which appears complete or not at all; with `force` in the place of an
    /// earlier output of Skillweld.
    ///
    /// # Errors
    /// Whatever fails on the way. Inputs and an earlier output are then as they were.
    pub fn run(&self, out: &Path, force: bool, control: &Control<'_>) -> Result<Done, RetainError> {
        self.check()?;
        self.check_output(out, force)?;
        let dir = OutputDir::create(out, force)?;
        let paths = [&self.pair.base, &self.pair.finetuned].map(|path| Some(path.as_path()));
        let done = self.write(dir.path(), paths, control)?;
        check_cancelled(control)?;
        dir.commit()?;
        Ok(done)
    }

    /// Writes the policy into the folder `dir`. Its provenance names base and finetuned policy by `paths`, if at all.
    pub(crate) fn write(
        &self,
        dir: &Path,
        paths: [Option<&Path>; 2],
        control: &Control<'_>,
    ) -> Result<Done, RetainError> {
        let Pair { base_statistics, finetuned_statistics, keep, .. } = self.pair;
        let written = self.plan.write(dir, control)?;
        let mut result = parts::write(dir)?;
        let model = written.provenance["outputs_blake3"]["model"].as_str();
        result.extend(model.map(|hash| ("weights".to_owned(), hash.to_owned())));
        match keep {
            Some(Keep::Base) => base_statistics.write(dir)?,
            Some(Keep::Finetuned) => finetuned_statistics.write(dir)?,
            None => {}
        }
        add_statistics(&mut result, &Statistics::open(dir)?);
        let done = Done {
            base: of_input(&written.provenance, BASE, base_statistics),
            finetuned: of_input(&written.provenance, FINETUNED, finetuned_statistics),
            report: written.report,
            result,
            statistics: *keep,
        };
        let provenance = self.provenance(&done, &written.provenance["methods"], paths);
        write_json(&dir.join(RETAIN_PROVENANCE), &provenance)?;
        Ok(done)
    }

    /// What `skillweld_retain.json` says: nothing that depends on time, machine or thread count.
    fn provenance(&self, done: &Done, methods: &Value, [base, finetuned]: [Option<&Path>; 2]) -> Value {
        let input = |path: Option<&Path>, contents: &Contents| match path {
            Some(path) => json!({"path": path, "blake3": contents}),
            None => json!({"blake3": contents}),
        };
        json!({
            "format_version": FORMAT_VERSION,
            "skillweld_version": env!("CARGO_PKG_VERSION"),
            "interpolation": self.pair.interpolation,
            "base": input(base, &done.base),
            "finetuned": input(finetuned, &done.finetuned),
            "statistics": done.statistics,
            "methods": methods,
            "result_blake3": done.result,
            "report": done.report,
        })
    }
}

/// Fails once the user has asked to stop.
pub(crate) fn check_cancelled(control: &Control<'_>) -> Result<(), RetainError> {
    if (control.hooks.cancelled)() { Err(skillweld_merge::MergeError::Cancelled.into()) } else { Ok(()) }
}
