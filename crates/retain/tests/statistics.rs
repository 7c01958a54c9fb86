//! Normalisation statistics: refused where they differ, kept whole where somebody has said whose.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use skillweld_retain::{Interpolation, Keep};
use skillweld_synth::{PolicyFamily, PolicySpec};
use support::{f32_tensor, fails, files, linear, retain, rewrite, tensors};

fn policies(family: PolicyFamily, data_sets: [&str; 2]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let [base, finetuned] = ["base", "stove"].map(|name| dir.path().join(name));
    let spec = PolicySpec::tiny(family);
    spec.write_base(&base, data_sets[0]).unwrap();
    spec.write_expert(&finetuned, 0, data_sets[1]).unwrap();
    (dir, base, finetuned)
}

fn keep(keep: Keep) -> Interpolation {
    Interpolation { statistics: Some(keep), ..linear(0.5) }
}

/// Files of statistics in a policy's folder.
fn of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files(dir);
    files.retain(|path, _| {
        let path = path.to_string_lossy();
        path.contains("norm_stats") || path.contains("processor") || path.contains("metadata")
    });
    files
}

#[test]
fn every_family_keeps_the_statistics_that_were_asked_for() {
    for (family, field) in [
        (PolicyFamily::Pi0, "assets/kitchen/norm_stats.json"),
        (PolicyFamily::Pi05, "policy_postprocessor: action.mean"),
        (PolicyFamily::SmolVla, "policy_postprocessor: action.mean"),
        (PolicyFamily::Groot, "experiment_cfg/metadata.json: kitchen"),
    ] {
        let (dir, base, finetuned) = policies(family, ["kitchen", "workshop"]);
        let out = |name: &str| dir.path().join(name);
        fails(retain(&base, &finetuned, &linear(0.5), &out("x")), &[field, "--statistics base"]);
        assert!(!out("x").exists());
        for (whose, policy) in [(Keep::Base, &base), (Keep::Finetuned, &finetuned)] {
            let path = out(&format!("keep-{}", whose.name()));
            let done = retain(&base, &finetuned, &keep(whose), &path).unwrap();
            assert!(!of(policy).is_empty() && of(&path) == of(policy), "{family:?}: {:?}", of(&path).keys());
            assert_eq!(done.statistics, Some(whose));
            let expected = if whose == Keep::Base { &done.base } else { &done.finetuned };
            assert_eq!(done.result["statistics"], expected["statistics"]);
        }
    }
}

#[test]
fn statistics_that_agree_or_that_one_side_lacks_need_no_word() {
    let (dir, base, finetuned) = policies(PolicyFamily::SmolVla, ["kitchen", "kitchen"]);
    let out = |name: &str| dir.path().join(name);
    assert_eq!(retain(&base, &finetuned, &linear(0.5), &out("alike")).unwrap().statistics, Some(Keep::Base));
    for path in of(&base).keys() {
        fs::remove_file(base.join(path)).unwrap();
    }
    let done = retain(&base, &finetuned, &linear(0.5), &out("one")).unwrap();
    assert_eq!(done.statistics, Some(Keep::Finetuned));
    assert!(of(&out("one")) == of(&finetuned));
    fails(
        retain(&base, &finetuned, &keep(Keep::Base), &out("x")),
        &["--statistics base", "no normalisation statistics"],
    );
}

#[test]
fn numbers_count_and_not_how_they_are_written() {
    let (dir, base, finetuned) = policies(PolicyFamily::Pi0, ["kitchen", "kitchen"]);
    let write =
        |policy: &Path, text: &str| fs::write(policy.join("assets/kitchen/norm_stats.json"), text).unwrap();
    write(&base, r#"{"norm_stats": {"state": {"mean": [0.0, 1.5], "std": [1, 1]}}}"#);
    write(&finetuned, r#"{"norm_stats":{"state":{"std":[1.0,1.0],"mean":[0,1.5]}}}"#);
    retain(&base, &finetuned, &linear(0.5), &dir.path().join("alike")).unwrap();
    write(&finetuned, r#"{"norm_stats":{"state":{"std":[1.0,1.0],"mean":[0,1.25]}}}"#);
    let words = ["norm_stats.json: norm_stats.state.mean[1]", "is 1.5 in the base and 1.25 in the finetuned"];
    fails(retain(&base, &finetuned, &linear(0.5), &dir.path().join("x")), &words);
}

#[test]
fn buffers_in_the_weights_are_never_interpolated() {
    const MEAN: &str = "normalize_inputs.buffer_observation_state.mean";
    let (dir, base, finetuned) = policies(PolicyFamily::Pi0, ["kitchen", "kitchen"]);
    let with = |policy: &Path, values: &[f32]| {
        rewrite(policy, |all| drop(all.insert(MEAN.to_owned(), f32_tensor(values))));
    };
    let out = |name: &str| dir.path().join(name);
    with(&base, &[0.25, 0.5]);
    with(&finetuned, &[0.25, 1.0]);
    fails(retain(&base, &finetuned, &linear(0.5), &out("x")), &[MEAN, "[0.25, 0.5]", "[0.25, 1]"]);
    for (whose, policy) in [(Keep::Base, &base), (Keep::Finetuned, &finetuned)] {
        retain(&base, &finetuned, &keep(whose), &out(&format!("keep-{}", whose.name()))).unwrap();
        assert!(tensors(&out(&format!("keep-{}", whose.name())))[MEAN] == tensors(policy)[MEAN]);
    }
    // Another robot's state: other sizes are no obstacle.
    with(&finetuned, &[0.25, 1.0, 2.0]);
    retain(&base, &finetuned, &keep(Keep::Finetuned), &out("wider")).unwrap();
    assert!(tensors(&out("wider"))[MEAN] == tensors(&finetuned)[MEAN]);
    rewrite(&finetuned, |all| drop(all.remove(MEAN)));
    retain(&base, &finetuned, &keep(Keep::Base), &out("only")).unwrap();
    assert!(tensors(&out("only"))[MEAN] == tensors(&base)[MEAN]);
}
