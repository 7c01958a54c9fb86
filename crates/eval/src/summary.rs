use skillweld_chart::{Chart, ChartError};
use skillweld_suites::Suite;

use crate::{Rate, Trial, TrialResult};

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// A suite's name, or a task's.
    pub name: String,
    /// Whether it is a suite.
    pub is_suite: bool,
    /// Its successes.
    pub rate: Rate,
}

/// Everything of a suite, then its tasks, in the order of the suites; only what was tried.
pub fn groups(all: &[TrialResult]) -> Vec<Group> {
    let of = |wanted: &dyn Fn(&str) -> bool| Rate::of(all.iter().filter(|result| wanted(&result.trial.task)));
    let mut groups = Vec::new();
    for suite in Suite::ALL {
        let tasks = suite.tasks();
        let rate = of(&|id| tasks.iter().any(|task| task.id == id));
        groups.push(Group { name: suite.name().to_owned(), is_suite: true, rate });
        groups.extend(tasks.iter().map(|task| Group {
            name: task.id.to_owned(),
            is_suite: false,
            rate: of(&|id| task.id == id),
        }));
    }
    groups.retain(|group| group.rate.trials > 0);
    groups
}

/// A row a trial. It depends on what came of the trials alone, not on their order.
///
/// # Errors
/// None that memory does not give.
pub fn results_csv(all: &[TrialResult]) -> Result<Vec<u8>, csv::Error> {
    let mut all: Vec<&TrialResult> = all.iter().collect();
    all.sort_by_cached_key(|result| {
        let Trial { task, split, index, perturbation, embodiment } = &result.trial;
        let perturbation = perturbation.map(|(kind, strength)| (kind.name(), strength));
        (task.clone(), split.name(), perturbation, embodiment.name(), *index)
    });
    let mut table = csv::Writer::from_writer(Vec::new());
    let headings = "task,split,index,perturbation,embodiment,success,steps,inferences,routed";
    table.write_record(headings.split(','))?;
    for TrialResult { trial, success, steps, inferences, routed } in all {
        let perturbation =
            trial.perturbation.map(|(kind, strength)| format!("{}:{}", kind.name(), strength.name()));
        table.write_record([
            trial.task.as_str(),
            trial.split.name(),
            &trial.index.to_string(),
            &perturbation.unwrap_or_default(),
            trial.embodiment.name(),
            if *success { "1" } else { "0" },
            &steps.to_string(),
            &inferences.to_string(),
            routed.as_deref().unwrap_or_default(),
        ])?;
    }
    table.into_inner().map_err(|error| error.into_error().into())
}

/// A bar a suite and a task, as SVG.
///
/// # Errors
/// [`ChartError`] where nothing was tried.
pub fn success_plot(of: &str, all: &[TrialResult]) -> Result<String, ChartError> {
    let groups = groups(all);
    let percent = |group: &Group| 100.0 * group.rate.share();
    Chart::bars("Success", "% of trials")
        .description(of)
        .groups(groups.iter().map(|group| group.name.as_str()))
        .series("success", groups.iter().map(percent))
        .y_range(0.0, 100.0)
        .size(220 + 60 * groups.len() as u32, 320)
        .to_svg()
}
