use std::path::Path;

use skillweld_chart::Chart;
use skillweld_suites::Suite;

use crate::results::replace;
use crate::{EvalError, Rate, TrialResult};

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

/// Writes `results.csv`, a row a trial, and `success.svg`, a bar a suite and a task, into the folder. They depend on what came of the
/// trials alone, not on their order.
///
/// # Errors
/// What the disk says.
pub fn write_summary(folder: &Path, of: &str, all: &[TrialResult]) -> Result<(), EvalError> {
    replace(&folder.join("results.csv"), csv(all).as_bytes())?;
    let groups = groups(all);
    let percent = |group: &Group| 100.0 * group.rate.share();
    let bars = Chart::bars("Success", "% of trials")
        .description(of)
        .groups(groups.iter().map(|group| group.name.as_str()))
        .series("success", groups.iter().map(percent))
        .y_range(0.0, 100.0)
        .size(220 + 60 * groups.len() as u32, 320);
    // Nothing was tried: nothing to draw.
    match bars.to_svg() {
        Ok(svg) => replace(&folder.join("success.svg"), svg.as_bytes()),
        Err(_) => Ok(()),
    }
}

fn csv(all: &[TrialResult]) -> String {
    let mut rows: Vec<String> = all
        .iter()
        .map(|TrialResult { trial, success, steps, inferences, routed }| {
            let perturbation =
                trial.perturbation.map(|(kind, strength)| format!("{}:{}", kind.name(), strength.name()));
            [
                trial.task.clone(),
                trial.split.name().to_owned(),
                format!("{:04}", trial.index),
                perturbation.unwrap_or_default(),
                trial.embodiment.name().to_owned(),
                u8::from(*success).to_string(),
                steps.to_string(),
                inferences.to_string(),
                cell(routed.as_deref().unwrap_or_default()),
            ]
            .join(",")
        })
        .collect();
    rows.sort_unstable();
    "task,split,index,perturbation,embodiment,success,steps,inferences,routed\n".to_owned()
        + &rows.join("\n")
        + "\n"
}

/// RFC 4180: tasks of merged policies have any name.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}
