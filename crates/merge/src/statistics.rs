//! The normalisation statistics of every task.

use serde_json::{Map, Value};
use skillweld_merged::is_one_data_set;
use skillweld_merged::layout::STATISTICS;

use crate::MergeError;
use crate::models::Models;
use crate::recipe::Recipe;
use crate::side_files::read_object;

/// Statistics of every task under the task's name, as `dataset_statistics.json` of a single policy holds them under its
/// dataset's. A merge that keeps nothing by task leaves them out with a note where they are not `needed` and not clear.
///
/// # Errors
/// Statistics that are needed and cannot be told apart, or that only some of the tasks have.
pub(crate) fn of_tasks(
    recipe: &Recipe,
    models: &Models,
    needed: bool,
    notes: &mut Vec<String>,
) -> Result<Option<Map<String, Value>>, MergeError> {
    match gather(recipe, models) {
        Err(problem) if !needed => {
            notes.push(format!("{STATISTICS} is left out: {problem}"));
            Ok(None)
        }
        other => other,
    }
}

fn gather(recipe: &Recipe, models: &Models) -> Result<Option<Map<String, Value>>, MergeError> {
    if let Some(chosen) = recipe.statistics.map(|index| &models.all[index]) {
        // As they stand there, and the same for every task.
        let Some(path) = &chosen.files.dataset_statistics else { return Ok(None) };
        let datasets = read_object(path)?;
        let of_task = |index: usize| (models.all[index].name.clone(), Value::Object(datasets.clone()));
        return Ok(Some(recipe.tasks().map(of_task).collect()));
    }
    let mut all = Map::new();
    let mut missing = Vec::new();
    for model in recipe.tasks().map(|index| &models.all[index]) {
        let Some(path) = &model.files.dataset_statistics else {
            missing.push(model.name.as_str());
            continue;
        };
        let datasets = read_object(path)?;
        // Alone, or of the dataset named like the task, or of the only one; otherwise nobody can tell which is meant.
        let own = if is_one_data_set(&datasets) {
            Value::Object(datasets)
        } else if let Some(own) =
            datasets.get(&model.name).or_else(|| datasets.values().next().filter(|_| datasets.len() == 1))
        {
            own.clone()
        } else {
            let names: Vec<&str> = datasets.keys().map(String::as_str).collect();
            return Err(MergeError::Expert(format!(
                "{} holds statistics of several datasets ({}); name the task (`name:` in the recipe) like the one it uses",
                path.display(),
                names.join(", ")
            )));
        };
        all.insert(model.name.clone(), own);
    }
    if all.is_empty() || missing.is_empty() {
        return Ok((!all.is_empty()).then_some(all));
    }
    Err(MergeError::Expert(format!(
        "no {STATISTICS} in the folder of {}, though other experts have one; each task needs its own",
        missing.join(", ")
    )))
}
