use skillweld_chart::{Chart, ChartError};
use skillweld_rate::Rate;
use skillweld_suites::Suite;

use crate::trial::suite_of;
use crate::{Trial, TrialResult, rate};

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// A suite's name, a task's, or a perturbation's; of trials under several perturbations `goal light:strong`.
    pub name: String,
    /// What its trials have in common.
    pub kind: GroupKind,
    /// Its successes.
    pub rate: Rate,
}

/// What the trials of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// Their suite.
    Suite,
    /// Their task.
    Task,
    /// What is unlike training, for example `light:strong`.
    Perturbation,
}

/// Everything of a suite, then its tasks, in the order of the suites; then those of other benchmarks, in the order in which they
/// were run. Where there are several perturbations, of which `none` may be one: everything under each of them, then its suites.
/// Only what was tried.
pub fn groups(all: &[TrialResult]) -> Vec<Group> {
    let mut perturbations: Vec<String> = Vec::new();
    for name in all.iter().map(|result| result.trial.perturbation_name()) {
        if !perturbations.contains(&name) {
            perturbations.push(name);
        }
    }
    if let [] | [_] = perturbations[..] {
        return suites_and_tasks(all);
    }
    let under = |name: &String| {
        let those: Vec<_> =
            all.iter().filter(|result| result.trial.perturbation_name() == *name).cloned().collect();
        let whole = Group { name: name.clone(), kind: GroupKind::Perturbation, rate: rate(&those) };
        let suites = suites_and_tasks(&those).into_iter().filter(|group| group.kind == GroupKind::Suite);
        let named = suites.map(|group| Group { name: format!("{} {name}", group.name), ..group });
        [vec![whole], named.collect()].concat()
    };
    perturbations.iter().flat_map(under).collect()
}

fn suites_and_tasks(all: &[TrialResult]) -> Vec<Group> {
    let known = Suite::ALL.into_iter().flat_map(Suite::tasks).map(|task| task.id);
    let mut tasks: Vec<&str> = Vec::new();
    for task in known.chain(all.iter().map(|result| result.trial.task.as_str())) {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let mut suites: Vec<&str> = Vec::new();
    for &task in &tasks {
        if !suites.contains(&suite_of(task)) {
            suites.push(suite_of(task));
        }
    }
    let of = |wanted: &dyn Fn(&str) -> bool| rate(all.iter().filter(|result| wanted(&result.trial.task)));
    let mut groups = Vec::new();
    for suite in suites {
        let rate = of(&|task| suite_of(task) == suite);
        groups.push(Group { name: suite.to_owned(), kind: GroupKind::Suite, rate });
        groups.extend(tasks.iter().filter(|task| suite_of(task) == suite).map(|&task| Group {
            name: task.to_owned(),
            kind: GroupKind::Task,
            rate: of(&|id| id == task),
        }));
    }
    groups.retain(|group| group.rate.trials > 0);
    groups
}

/// Tasks of a merged policy that ran in a suite, and how often, in the order in which they first did.
pub fn routed(all: &[TrialResult]) -> Vec<(&str, &str, u64)> {
    let mut counts: Vec<(&str, &str, u64)> = Vec::new();
    for group in suites_and_tasks(all).iter().filter(|group| group.kind == GroupKind::Suite) {
        for result in all.iter().filter(|result| result.trial.suite() == group.name) {
            let Some(ran) = result.routed.as_deref() else { continue };
            match counts.iter_mut().find(|(suite, task, _)| *suite == group.name && *task == ran) {
                Some((.., count)) => *count += 1,
                None => counts.push((result.trial.suite(), ran, 1)),
            }
        }
    }
    counts
}

/// How often the task that ran was the one named as the trial's suite; none where no task that ran bears a suite's name.
pub fn router_accuracy(all: &[TrialResult]) -> Option<Rate> {
    let ran = || all.iter().filter_map(|result| Some((result.trial.suite(), result.routed.as_deref()?)));
    let is_suite = |name: &str| Suite::ALL.into_iter().any(|suite| suite.name() == name);
    if !ran().any(|(_, task)| is_suite(task)) {
        return None;
    }
    Some(ran().map(|(suite, task)| suite == task).collect())
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
        let perturbation = trial.perturbation.map(|_| trial.perturbation_name());
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

/// A bar a group, as SVG.
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
        .spread(groups.iter().map(|group| group.rate.interval().map(|end| 100.0 * end).into()))
        .y_range(0.0, 100.0)
        .size(220 + 60 * groups.len() as u32, 320)
        .to_svg()
}

#[cfg(test)]
mod tests {
    use skillweld_suites::{PerturbationKind, Strength};

    use super::*;

    /// Of (task, what ran, success).
    fn results(trials: &[(&str, &str, bool)]) -> Vec<TrialResult> {
        let line = |(task, ran, success): &(&str, &str, bool)| {
            format!(
                r#"{{"trial": {{"task": "{task}", "split": "final", "index": 0}}, "success": {success}, "steps": 9,
                    "inferences": 2, "routed": "{ran}", "latencies_ms": [1.5, 2.5]}}"#
            )
        };
        trials.iter().map(|trial| serde_json::from_str(&line(trial)).unwrap()).collect()
    }

    /// Also of benchmarks that this crate does not run, whose lines say less of a trial and more of its outcome.
    #[test]
    fn suites_come_before_their_tasks_and_ours_before_others() {
        let all = results(&[
            ("libero-goal_3", "goal", true),
            ("goal_push", "goal", false),
            ("libero-goal_0", "long", true),
            ("goal_open", "goal", true),
            ("libero-goal_3", "goal", false),
        ]);
        let found: Vec<(String, u64, u64)> = groups(&all)
            .into_iter()
            .map(|group| (group.name, group.rate.successes, group.rate.trials))
            .collect();
        let expected = [
            ("goal", 1, 2),
            ("goal_open", 1, 1),
            ("goal_push", 0, 1),
            ("libero-goal", 2, 3),
            ("libero-goal_3", 1, 2),
            ("libero-goal_0", 1, 1),
        ];
        assert_eq!(found, expected.map(|(name, successes, trials)| (name.to_owned(), successes, trials)));
        assert_eq!(
            routed(&all),
            [("goal", "goal", 2), ("libero-goal", "goal", 2), ("libero-goal", "long", 1)]
        );
    }

    #[test]
    fn perturbations_are_counted_over_tasks() {
        let mut all = results(&[
            ("goal_push", "goal", true),
            ("goal_open", "goal", false),
            ("goal_open", "goal", true),
            ("goal_push", "goal", true),
        ]);
        let names = |all: &[TrialResult]| {
            let of = groups(all).into_iter().filter(|group| group.kind == GroupKind::Perturbation);
            of.map(|group| (group.name, group.rate.successes, group.rate.trials)).collect::<Vec<_>>()
        };
        // As they should be: nothing to tell apart.
        assert_eq!(names(&all), []);
        for result in &mut all[1..3] {
            result.trial.perturbation = Some((PerturbationKind::Light, Strength::Strong));
        }
        assert_eq!(names(&all), [("none".to_owned(), 2, 2), ("light:strong".to_owned(), 1, 2)]);
        let all: Vec<(String, u64)> =
            groups(&all).into_iter().map(|group| (group.name, group.rate.successes)).collect();
        let expected = [("none", 2), ("goal none", 2), ("light:strong", 1), ("goal light:strong", 1)];
        assert_eq!(all, expected.map(|(name, successes)| (name.to_owned(), successes)));
    }

    #[test]
    fn a_router_is_right_where_the_suites_own_task_ran() {
        let all = results(&[
            ("goal_push", "goal", false),
            ("long_both_tray", "goal", true),
            ("object_can", "object", true),
        ]);
        assert_eq!(router_accuracy(&all), Some(Rate { successes: 2, trials: 3 }));
        // Tasks that are named otherwise are neither right nor wrong.
        assert_eq!(router_accuracy(&results(&[("goal_push", "pick", true)])), None);
        assert_eq!(router_accuracy(&[]), None);
    }
}
