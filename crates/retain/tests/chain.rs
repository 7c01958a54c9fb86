//! Skills one after the other: added, looked at, replayed, undone.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use skillweld_retain::{Alphas, Interpolation, Keep, Ledger, Method, RetainError, State, Undo, Verdict};
use skillweld_synth::{PolicyFamily, PolicySpec};
use support::{add, control, fails, files, linear, registry, rewrite, tensors, values};

const SPEC: fn() -> PolicySpec = || PolicySpec::tiny(PolicyFamily::Pi0);
const DATA_SET: &str = "kitchen";

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// `base`, and fine-tunes `stove`, `drawer` and `cups` of it.
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        SPEC().write_base(&bench.at("base"), DATA_SET).unwrap();
        for (index, name) in ["stove", "drawer", "cups"].into_iter().enumerate() {
            SPEC().write_expert(&bench.at(name), index, DATA_SET).unwrap();
        }
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.at("state")
    }

    /// A state with two skills, the second by DARE.
    fn two_skills(keep_previous: bool) -> Self {
        let bench = Self::new();
        add(&bench.state(), Some(&bench.at("base")), &bench.at("stove"), linear(0.8), false).unwrap();
        let dare = Interpolation { method: Method::DareSlerp, density: Some(0.7), seed: 4, ..linear(0.6) };
        add(&bench.state(), None, &bench.at("drawer"), dare, keep_previous).unwrap();
        bench
    }

    fn replay(&self, name: &str) -> Result<PathBuf, RetainError> {
        let (registry, control) = (registry(), control(2));
        let ledger = Ledger::read(&self.state())?;
        let out = self.at(name);
        State::replay(&ledger, &out, false, registry, (&control, &|_, _, _, _| {}))?;
        Ok(out)
    }

    fn undo(&self) -> Result<Undo, RetainError> {
        let (registry, control) = (registry(), control(2));
        State::open(&self.state())?.undo(registry, (&control, &|_, _, _, _| {}))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn skills_follow_the_recursion() {
    let bench = Bench::new();
    let ledger = State::begin(&bench.state(), &bench.at("base")).unwrap().save().unwrap();
    assert_eq!((ledger.skills.len(), ledger.base.path), (0, bench.at("base").canonicalize().unwrap()));
    assert!(tensors(&bench.state().join("checkpoint")) == tensors(&bench.at("base")));
    let skills = [("stove", 0.8), ("drawer", 0.5), ("cups", 0.25)];
    for (name, alpha) in skills {
        let before = values(&bench.state().join("checkpoint"));
        let skill = add(&bench.state(), None, &bench.at(name), linear(alpha), false).unwrap();
        assert_eq!(skill.name, name);
        let (after, finetuned) = (values(&bench.state().join("checkpoint")), values(&bench.at(name)));
        for (key, after) in &after {
            for (i, after) in after.iter().enumerate() {
                let (b, f) = (f64::from(before[key][i]), f64::from(finetuned[key][i]));
                let exact = (1.0 - alpha) * b + alpha * f;
                let bound = 2f64.powi(-8) * exact.abs() + 3.0 * 2f64.powi(-24) * (b.abs() + f.abs());
                assert!((f64::from(*after) - exact).abs() <= bound, "{name} {key}[{i}]");
            }
        }
    }
    let ledger = Ledger::read(&bench.state()).unwrap();
    assert_eq!(
        ledger.skills.iter().map(|skill| skill.name.as_str()).collect::<Vec<_>>(),
        ["stove", "drawer", "cups"]
    );
    assert_eq!(State::verify(&bench.state(), &ledger), [""; 0]);
    assert_eq!(bench.names(), ["base", "cups", "drawer", "state", "stove"]);
}

#[test]
fn a_replay_gives_every_byte_again() {
    let bench = Bench::two_skills(false);
    let again = bench.replay("again").unwrap();
    assert!(files(&again) == files(&bench.state().join("checkpoint")));
    assert!(files(&again).contains_key(Path::new("skillweld_retain.json")));
    // And from a state that was begun apart.
    let other = bench.at("other");
    State::begin(&other, &bench.at("base")).unwrap().save().unwrap();
    add(&other, None, &bench.at("stove"), linear(0.8), false).unwrap();
    let dare = Interpolation { method: Method::DareSlerp, density: Some(0.7), seed: 4, ..linear(0.6) };
    add(&other, None, &bench.at("drawer"), dare, true).unwrap();
    assert!(files(&other.join("checkpoint")) == files(&again));
    assert_eq!(Ledger::read(&other).unwrap(), Ledger::read(&bench.state()).unwrap());
}

#[test]
fn the_first_input_that_changed_is_named() {
    let bench = Bench::two_skills(false);
    for (name, whose) in [("drawer", "skill drawer"), ("stove", "skill stove"), ("base", "the base")] {
        // One bit of one weight.
        rewrite(&bench.at(name), |all| all.get_mut("action_in_proj.bias").unwrap().2[0] ^= 1);
        let error = fails(bench.replay("again"), &["weights of", whose, "has changed"]);
        assert!(matches!(error, RetainError::InputChanged { .. }));
        assert!(!bench.at("again").exists());
        let problems = State::verify(&bench.state(), &Ledger::read(&bench.state()).unwrap());
        assert!(problems.iter().any(|problem| problem.contains(whose)), "{problems:?}");
    }
    fs::remove_dir_all(bench.at("stove")).unwrap();
    fails(bench.replay("again"), &["skill stove", "is not there"]);
    // A skill on top of a checkpoint that somebody has changed would not be what the ledger says.
    let before = files(&bench.state());
    rewrite(&bench.state().join("checkpoint"), |all| all.get_mut("action_in_proj.bias").unwrap().2[0] ^= 1);
    fails(
        add(&bench.state(), None, &bench.at("cups"), linear(0.5), false),
        &["weights of the current checkpoint", "has changed"],
    );
    assert_eq!(files(&bench.state()).len(), before.len());
    assert_eq!(Ledger::read(&bench.state()).unwrap().skills.len(), 2);
}

#[test]
fn undo_goes_back_one_skill_to_the_byte() {
    for keep_previous in [false, true] {
        let bench = Bench::new();
        add(&bench.state(), Some(&bench.at("base")), &bench.at("stove"), linear(0.8), keep_previous).unwrap();
        let one = files(&bench.state());
        add(&bench.state(), None, &bench.at("drawer"), linear(0.6), keep_previous).unwrap();
        assert_eq!(bench.state().join("previous").exists(), keep_previous);
        if keep_previous {
            // The finetuned policies need not be there any more.
            fs::rename(bench.at("stove"), bench.at("gone")).unwrap();
        }
        let undone = bench.undo().unwrap();
        assert_eq!((undone.skill.name.as_str(), undone.from_previous), ("drawer", keep_previous));
        assert!(files(&bench.state()) == one);
        if keep_previous {
            fs::rename(bench.at("gone"), bench.at("stove")).unwrap();
        }
        bench.undo().unwrap();
        assert!(tensors(&bench.state().join("checkpoint")) == tensors(&bench.at("base")));
        assert!(Ledger::read(&bench.state()).unwrap().skills.is_empty());
        fails(bench.undo(), &["no skill that could be undone"]);
        fails(bench.replay("x"), &["without skills"]);
        // It goes on from there.
        add(&bench.state(), None, &bench.at("stove"), linear(0.8), keep_previous).unwrap();
        assert!(files(&bench.state()) == one);
        assert_eq!(bench.names(), ["base", "cups", "drawer", "state", "stove"]);
    }
}

#[test]
fn a_kept_checkpoint_that_was_changed_is_made_again() {
    let bench = Bench::two_skills(true);
    let replayed = {
        let other = bench.at("other");
        add(&other, Some(&bench.at("base")), &bench.at("stove"), linear(0.8), false).unwrap();
        files(&other.join("checkpoint"))
    };
    rewrite(&bench.state().join("previous"), |all| all.get_mut("action_in_proj.bias").unwrap().2[0] ^= 1);
    assert!(!bench.undo().unwrap().from_previous);
    assert!(files(&bench.state().join("checkpoint")) == replayed);
}

#[test]
fn it_is_seen_where_a_skill_started() {
    let bench = Bench::new();
    let first = add(&bench.state(), Some(&bench.at("base")), &bench.at("stove"), linear(0.8), false).unwrap();
    assert_eq!(
        first.started_from.verdict,
        Verdict::Unknown,
        "one policy alone has nothing to be compared with"
    );
    // Finetuned from the pretrained policy, and not from the state's checkpoint.
    let second = add(&bench.state(), None, &bench.at("drawer"), linear(0.8), false).unwrap();
    assert_eq!(second.started_from.verdict, Verdict::Contradicted, "{}", second.started_from.evidence);
    bench.undo().unwrap();
    // Finetuned from the checkpoint: a copy, of which a few weights have moved.
    let finetuned = bench.at("tuned");
    let copy = |provenance: bool| {
        let _ = fs::remove_dir_all(&finetuned);
        for (path, bytes) in files(&bench.state().join("checkpoint")) {
            if provenance || path != Path::new("skillweld_retain.json") {
                fs::create_dir_all(finetuned.join(&path).parent().unwrap()).unwrap();
                fs::write(finetuned.join(&path), bytes).unwrap();
            }
        }
        rewrite(&finetuned, |all| all.get_mut("action_in_proj.bias").unwrap().2[0] ^= 1);
    };
    for provenance in [false, true] {
        copy(provenance);
        let tuned = add(&bench.state(), None, &finetuned, linear(0.8), false).unwrap();
        assert_eq!(tuned.started_from.verdict, Verdict::Confirmed, "{}", tuned.started_from.evidence);
        assert_eq!(tuned.started_from.evidence.contains("skillweld_retain.json"), provenance);
        bench.undo().unwrap();
    }
    // The same skill again lies near the checkpoint that it is a part of, but is not finetuned from it.
    let again = add(&bench.state(), None, &bench.at("stove"), linear(0.8), false).unwrap();
    assert_eq!(again.started_from.verdict, Verdict::Contradicted);
    assert!(
        again.started_from.evidence.contains("0.000 to the policy of skill stove"),
        "{}",
        again.started_from.evidence
    );
    bench.undo().unwrap();
    // Trained from an earlier checkpoint of the chain, whose provenance came along.
    copy(true);
    add(&bench.state(), None, &bench.at("cups"), linear(0.5), false).unwrap();
    let stale = add(&bench.state(), None, &finetuned, linear(0.8), false).unwrap();
    assert_eq!(stale.started_from.verdict, Verdict::Contradicted, "{}", stale.started_from.evidence);
}

#[test]
fn what_is_no_state_is_refused_and_nothing_is_lost() {
    let bench = Bench::two_skills(false);
    let open = |name: &str| State::open(&bench.at(name));
    fails(open("nowhere"), &["no state of skills", "retain init"]);
    fails(open("base"), &["no state of skills", "retain.json"]);
    let ledger = bench.state().join("retain.json");
    let text = fs::read_to_string(&ledger).unwrap();
    let before = files(&bench.state());
    for (from, to, words) in [
        ("\"format_version\": 1", "\"format_version\": 2", &["format_version is 2", "newer Skillweld"][..]),
        ("\"format_version\": 1", "\"format_version\": null", &["format_version is null"]),
        ("\"skills\"", "\"skils\"", &["is damaged", "skils"]),
        ("{", "", &["is damaged"]),
    ] {
        fs::write(&ledger, text.replacen(from, to, 1)).unwrap();
        fails(open("state"), words);
        fails(bench.replay("x"), words);
    }
    fs::write(&ledger, &text).unwrap();
    // Foreign files would go with the old folder.
    fs::write(bench.state().join("notes.txt"), "mine").unwrap();
    fails(bench.undo(), &["notes.txt", "would be lost"]);
    fs::remove_file(bench.state().join("notes.txt")).unwrap();
    fails(State::begin(&bench.state(), &bench.at("base")), &["is a state already"]);
    fails(State::begin(&bench.at("stove"), &bench.at("base")), &["holds something already"]);
    fails(State::begin(&bench.at("base/inside"), &bench.at("base")), &["inside it"]);
    let inside = bench.state().join("checkpoint");
    fails(add(&bench.state(), None, &inside, linear(0.5), false), &["lies inside"]);
    fails(State::begin(&bench.at("x"), &bench.at("base/model.safetensors")), &["no folder"]);
    assert!(files(&bench.state()) == before);
}

#[test]
fn only_one_process_changes_a_state_at_a_time() {
    let bench = Bench::two_skills(false);
    let held = State::open(&bench.state()).unwrap();
    fails(State::open(&bench.state()), &["being changed by another process"]);
    drop(held);
    State::open(&bench.state()).unwrap();
}

#[test]
fn names_and_options_are_kept_in_the_ledger() {
    let bench = Bench::new();
    SPEC().write_expert(&bench.at("workshop/stove"), 5, "workshop").unwrap();
    let alpha = Alphas { vision: 1.0, language: 0.8, action: 1.0, other: 1.0 };
    add(&bench.state(), Some(&bench.at("base")), &bench.at("stove"), Interpolation::linear(alpha), false)
        .unwrap();
    let other = bench.at("workshop/stove");
    fails(add(&bench.state(), None, &other, linear(0.5), false), &["statistics differ"]);
    let kept = Interpolation { statistics: Some(Keep::Finetuned), ..linear(0.5) };
    let skill = add(&bench.state(), None, &other, kept.clone(), false).unwrap();
    assert_eq!((skill.name.as_str(), &skill.interpolation), ("stove-2", &kept));
    let ledger = Ledger::read(&bench.state()).unwrap();
    assert_eq!(ledger.skills[0].interpolation.alpha, alpha);
    assert_eq!(ledger.skills[1], skill);
    bench.replay("again").unwrap();
}
