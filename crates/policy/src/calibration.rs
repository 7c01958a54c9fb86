//! `router_calibration.json` beside a merged checkpoint: where each task's own observations lie in its subspaces.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use skillweld_merged::layout::ROUTER_CALIBRATION;
use skillweld_router::Calibration;
use skillweld_store::replace_file;

use crate::PolicyError;
use crate::backend::Result;

const FORMAT_VERSION: u64 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format_version: u64,
    tasks: BTreeMap<String, Calibration>,
}

/// Writes calibrations of all tasks beside the merged checkpoint in `dir`; policies opened after that compare by
/// them. What was there is replaced in one step.
///
/// # Errors
/// [`PolicyError::Store`] when the file cannot be written.
///
/// # Panics
/// When there are not as many calibrations as tasks.
pub fn write_calibrations(dir: &Path, tasks: &[String], calibrations: &[Calibration]) -> Result<()> {
    assert_eq!(tasks.len(), calibrations.len(), "one calibration a task");
    let tasks = tasks.iter().cloned().zip(calibrations.iter().cloned()).collect();
    let path = dir.join(ROUTER_CALIBRATION);
    let fail = |error: serde_json::Error| problem(&path, &error.to_string());
    let mut text =
        serde_json::to_string_pretty(&File { format_version: FORMAT_VERSION, tasks }).map_err(fail)?;
    text.push('\n');
    Ok(replace_file(&path, text.as_bytes())?)
}

/// One a task, in the order of `tasks`, which have so many directions in their subspaces; `None` where the checkpoint is not calibrated.
pub(crate) fn read(dir: &Path, tasks: &[String], directions: &[usize]) -> Result<Option<Vec<Calibration>>> {
    let path = dir.join(ROUTER_CALIBRATION);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(&path, &error.to_string())),
    };
    let file: File = serde_json::from_str(&text).map_err(|error| problem(&path, &error.to_string()))?;
    if file.format_version != FORMAT_VERSION {
        return Err(problem(&path, &format!("format version {} is not known", file.format_version)));
    }
    let of = |(task, &width): (&String, &usize)| {
        let found = file.tasks.get(task).filter(|calibration| calibration.is_usable(width)).cloned();
        let wanted = || format!("not {width} means and deviations above zero of task `{task}`");
        found.ok_or_else(|| problem(&path, &wanted()))
    };
    tasks.iter().zip(directions).map(of).collect::<Result<_>>().map(Some)
}

fn problem(path: &Path, problem: &str) -> PolicyError {
    let problem = format!("{problem}; calibrate again, or delete the file to route by raw scores");
    PolicyError::Checkpoint { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tasks(count: usize) -> Vec<String> {
        (0..count).map(|task| format!("task {task}")).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(numbers in proptest::collection::vec(proptest::collection::vec((-1e3f64..1e3, 1e-3f64..1e3), 1..4), 1..5)) {
            let dir = tempfile::tempdir().unwrap();
            let widths: Vec<usize> = numbers.iter().map(Vec::len).collect();
            let calibrations: Vec<_> = numbers
                .into_iter()
                .map(|of| of.into_iter().unzip())
                .map(|(mean, deviation)| Calibration { mean, deviation })
                .collect();
            let tasks = tasks(calibrations.len());
            prop_assert_eq!(read(dir.path(), &tasks, &widths).unwrap(), None);
            write_calibrations(dir.path(), &tasks, &calibrations).unwrap();
            let found = read(dir.path(), &tasks, &widths).unwrap().unwrap();
            prop_assert_eq!(found.len(), calibrations.len());
            for (found, written) in found.iter().zip(&calibrations) {
                // The reader of JSON rounds decimals to within one step of f64.
                let near = |a: f64, b: f64| (a - b).abs() <= f64::EPSILON * b.abs();
                let all = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b));
                prop_assert!(all(&found.mean, &written.mean) && all(&found.deviation, &written.deviation));
            }
        }
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ROUTER_CALIBRATION);
        for (text, said) in [
            ("{", "EOF"),
            (r#"{"format_version": 1, "tasks": {}}"#, "format version 1"),
            (r#"{"format_version": 2, "tasks": {}}"#, "`task 0`"),
            (r#"{"format_version": 2, "tasks": {"task 0": {"mean": [1], "deviation": [0]}}}"#, "`task 0`"),
            (
                r#"{"format_version": 2, "tasks": {"task 0": {"mean": [1, 2], "deviation": [1, 2]}}}"#,
                "1 means",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(dir.path(), &tasks(1), &[1]).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("calibrate again"), "{error}");
        }
    }
}
