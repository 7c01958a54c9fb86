//! Policies with an action head and a projector in files of their own, and adapters.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::{Path, PathBuf};

use skillweld_policy::Policy;
use skillweld_retain::{Alphas, Interpolation, Keep};
use skillweld_store::{Checkpoint, ExpertFiles};
use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{fails, linear, registry, retain, tensors, values};

/// `base` without an action expert; `spatial` and `object`, whole policies; `goal`, an adapter.
fn policies() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let forms = [ExpertForm::Full, ExpertForm::Full, ExpertForm::Adapter];
    PrismaticSpec::tiny().write_all(dir.path(), &forms).unwrap();
    let root = dir.path().to_owned();
    (dir, move |name| root.join(name))
}

fn keeping(keep: Keep, alpha: Alphas) -> Interpolation {
    Interpolation { statistics: Some(keep), ..Interpolation::linear(alpha) }
}

fn part(dir: &Path, name: &str) -> PathBuf {
    let files = ExpertFiles::discover(dir).unwrap();
    files.parts().find(|(part, _)| *part == name).unwrap().1.to_owned()
}

#[test]
fn side_files_follow_the_alpha_of_actions_and_the_result_runs() {
    let (_dir, at) = policies();
    let (base, finetuned, out) = (at("spatial"), at("object"), at("out"));
    let alpha = Alphas { vision: 0.2, language: 0.4, action: 0.75, other: 0.9 };
    let done = retain(&base, &finetuned, &keeping(Keep::Finetuned, alpha), &out).unwrap();
    for name in ["action_head", "proprio_projector"] {
        let [base, finetuned, merged] = [&base, &finetuned, &out].map(|dir| values(&part(dir, name)));
        assert_eq!(merged.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
        for (key, merged) in &merged {
            for (i, merged) in merged.iter().enumerate() {
                let (b, f) = (f64::from(base[key][i]), f64::from(finetuned[key][i]));
                // Everything is f32 here: two factors, two products, a sum.
                let bound = 4.0 * 2f64.powi(-24) * (b.abs() + f.abs());
                assert!((f64::from(*merged) - (0.25 * b + 0.75 * f)).abs() <= bound, "{name} {key}[{i}]");
            }
        }
        let hash = Checkpoint::open(part(&out, name)).unwrap().content_hash();
        assert_eq!(done.result[name], hash.to_hex().as_str());
    }
    assert_eq!(done.result["weights"], Checkpoint::open(&out).unwrap().content_hash().to_hex().as_str());
    assert!(!out.join("action_expert.safetensors").exists());
    // It is a plain policy with the statistics of the finetuned one.
    let policy = Policy::open(&out).unwrap();
    assert_eq!(policy.tasks(), ["libero_object_no_noops"]);
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    assert!(config.contains("libero_object_no_noops") && !config.contains("libero_spatial_no_noops"));
}

#[test]
fn what_the_base_does_not_have_is_the_finetuned_policys() {
    let (_dir, at) = policies();
    for (finetuned, name) in [("spatial", "full"), ("goal", "adapter")] {
        let (base, finetuned, out) = (at("base"), at(finetuned), at(name));
        fails(retain(&base, &finetuned, &linear(0.5), &at("x")), &["config.json: norm_stats"]);
        let interpolation = keeping(Keep::Finetuned, Alphas::all(0.5));
        let (registry, control) = (registry(), support::control(2));
        let pair = skillweld_retain::Pair::open(&base, &finetuned, &interpolation).unwrap();
        let step = pair.plan(registry, &control).unwrap();
        let notes = step.summary().notes;
        assert!(notes.iter().any(|note| note.contains("the base does not")), "{notes:?}");
        step.run(&out, false, &control).unwrap();
        for part_name in ["action_head", "proprio_projector"] {
            assert!(tensors(&part(&out, part_name)) == tensors(&part(&finetuned, part_name)));
        }
        Policy::open(&out).unwrap();
    }
    let queries = "action_queries.weight";
    assert!(tensors(&at("full"))[queries] == tensors(&at("spatial"))[queries]);
}

#[test]
fn an_adapter_goes_as_far_as_its_merged_weights() {
    let (dir, at) = policies();
    // The same expert in both forms, but for rounding.
    let whole = at("whole");
    PrismaticSpec::tiny().write_expert(&whole, 2, ExpertForm::Full).unwrap();
    let interpolation = keeping(Keep::Finetuned, Alphas::all(0.5));
    let [from_adapter, from_whole] = ["a", "w"].map(|name| dir.path().join(name));
    let done = retain(&at("base"), &at("goal"), &interpolation, &from_adapter).unwrap();
    retain(&at("base"), &whole, &interpolation, &from_whole).unwrap();
    assert!(done.finetuned.contains_key("adapter") && !done.finetuned.contains_key("weights"));
    let (adapter, whole, base) = (values(&from_adapter), values(&from_whole), values(&at("base")));
    let mut moved = 0;
    for (key, adapter) in &adapter {
        for (i, adapter) in adapter.iter().enumerate() {
            let other = whole[key][i];
            // The whole weights were rounded to bf16 once more, by half of 2⁻⁷ of their size; both results once.
            let base = base.get(key).map_or(0.0, |base| base[i]);
            let bound = 2f32.powi(-7) * (adapter.abs() + other.abs() + base.abs());
            assert!((adapter - other).abs() <= bound, "{key}[{i}]: {adapter} {other}");
            moved += usize::from(*adapter != base);
        }
    }
    assert!(moved > 10_000, "{moved}");
}

#[test]
fn a_finetuned_policy_without_its_head_is_refused() {
    let (_dir, at) = policies();
    let head = part(&at("object"), "action_head");
    std::fs::remove_file(head).unwrap();
    let interpolation = keeping(Keep::Base, Alphas::all(0.5));
    fails(
        retain(&at("spatial"), &at("object"), &interpolation, &at("x")),
        &["missing in finetuned", "model.fc1.bias"],
    );
    assert!(!at("x").exists());
}

#[test]
fn language_only_takes_all_else_from_the_finetuned_policy() {
    let (_dir, at) = policies();
    let (base, finetuned, out) = (at("spatial"), at("object"), at("out"));
    retain(&base, &finetuned, &keeping(Keep::Base, Alphas::LANGUAGE_ONLY), &out).unwrap();
    let (merged, ours) = (tensors(&out), tensors(&finetuned));
    let mut between = 0;
    for (key, tensor) in &merged {
        if key.starts_with("language_model.") {
            between += usize::from(*tensor != ours[key]);
        } else {
            assert!(*tensor == ours[key], "{key}");
        }
    }
    assert!(between > 100, "{between}");
    assert!(tensors(&part(&out, "action_head")) == tensors(&part(&finetuned, "action_head")));
}
