//! Which normalisation statistics a merge needs, and in which forms it takes them.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use skillweld_merged::MergedCheckpoint;
use support::heads::{dry_run, experts, head};
use support::merge;

/// Statistics of the `index`-th expert's data set.
fn own(index: usize) -> Value {
    json!({"action": {"mean": [index], "std": [1]}, "proprio": {"mean": [0.5], "std": [1]}, "num_transitions": 9})
}

fn write(root: &Path, index: usize, statistics: &Value) {
    std::fs::write(root.join(format!("e{index}/dataset_statistics.json")), statistics.to_string()).unwrap();
}

/// Merges two experts with these statistics and reads back those of every task.
fn merged(statistics: &[Value; 2]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &[head(0, 8), head(1, 8)]) + "action_expert: {head_blocks: 1}\n";
    statistics.iter().enumerate().for_each(|(i, statistics)| write(dir.path(), i, statistics));
    let out = dir.path().join("merged");
    merge(dir.path(), &recipe, &out, 1).unwrap();
    let merged = MergedCheckpoint::open(&out).unwrap();
    (0..2).map(|task| json!(merged.statistics(task).unwrap())).collect()
}

#[test]
fn statistics_may_stand_alone_or_under_the_name_of_a_data_set() {
    for action_only in [true, false] {
        let own = |i: usize| if action_only { json!({"action": own(i)["action"]}) } else { own(i) };
        // Read back, one data set's statistics stand under the task's name or that of the data set.
        assert_eq!(merged(&[own(0), own(1)]), [json!({"e0": own(0)}), json!({"e1": own(1)})]);
        assert_eq!(
            merged(&[json!({"spatial": own(0)}), own(1)]),
            [json!({"e0": own(0)}), json!({"e1": own(1)})]
        );
    }
    // Among several the task's name decides, whatever it is.
    let several = json!({"e1": own(7), "e0": own(5)});
    assert_eq!(merged(&[several.clone(), several]), [json!({"e0": own(5)}), json!({"e1": own(7)})]);
}

/// Two experts, the first of which has statistics of data sets that nobody can tell apart.
fn unclear(root: &Path) -> String {
    let recipe = experts(root, &[head(0, 8), head(1, 8)]);
    write(root, 0, &json!({"bridge": own(0), "fractal": own(1)}));
    write(root, 1, &own(1));
    recipe
}

#[test]
fn a_plain_merge_needs_no_statistics() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = unclear(dir.path());
    let notes = dry_run(dir.path(), &recipe).unwrap().notes.join("\n");
    assert!(
        notes.contains("dataset_statistics.json is left out") && notes.contains("(bridge, fractal)"),
        "{notes}"
    );
    std::fs::remove_file(dir.path().join("e0/dataset_statistics.json")).unwrap();
    let notes = dry_run(dir.path(), &recipe).unwrap().notes.join("\n");
    assert!(notes.contains("no dataset_statistics.json in the folder of e0"), "{notes}");
    let out = dir.path().join("merged");
    merge(dir.path(), &recipe, &out, 1).unwrap();
    assert!(!out.join("dataset_statistics.json").exists());
    assert!(MergedCheckpoint::open(&out).unwrap().statistics(0).is_none());
}

#[test]
fn a_merge_that_keeps_tasks_apart_is_refused_without_them_already_by_the_plan() {
    for kept in ["mask: tall\n", "action_expert: {head_blocks: 1}\n", "router: {rank: 2}\n"] {
        let dir = tempfile::tempdir().unwrap();
        let recipe = unclear(dir.path()) + kept;
        let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
        assert!(text.contains("(bridge, fractal); name the task"), "{kept}{text}");
        std::fs::remove_file(dir.path().join("e0/dataset_statistics.json")).unwrap();
        let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
        assert!(text.contains("no dataset_statistics.json in the folder of e0"), "{kept}{text}");
    }
}
