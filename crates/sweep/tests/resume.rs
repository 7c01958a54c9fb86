//! Sweeps that are interrupted anywhere end as those that are not.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use proptest::prelude::*;
use skillweld_merge::recipe::{Draft, Recipe};
use skillweld_sweep::{
    Axis, Definition, Engine, EvalCommand, Outcome, Point, Score, Sweep, SweepError, Watch,
};

const RECIPE: &str = "merge_method: linear\nmodels: [{model: a, parameters: {weight: '${a}'}}]\n";

/// Scores by label and seed alone; gives up when its evaluations are used up.
struct Fake {
    left: Mutex<usize>,
    /// Evaluated points and seeds.
    seen: Mutex<Vec<(String, u64)>>,
    fails: fn(&str, u64) -> bool,
}

impl Fake {
    fn with(evaluations: usize) -> Self {
        Self { left: Mutex::new(evaluations), seen: Mutex::default(), fails: |_, _| false }
    }
}

fn score(label: &str, seed: u64) -> f64 {
    label.bytes().map(u64::from).sum::<u64>() as f64 + seed as f64 * 0.125
}

impl Engine for Fake {
    fn evaluate(
        &self,
        point: &Point,
        seeds: &[u64],
        _: &(dyn Fn() -> bool + Sync),
        done: &mut dyn FnMut(u64, Outcome) -> Result<(), SweepError>,
    ) -> Result<(), SweepError> {
        let label = point.label();
        for &seed in seeds {
            {
                let mut left = self.left.lock().unwrap();
                *left = left.checked_sub(1).ok_or(SweepError::Stopped)?;
            }
            self.seen.lock().unwrap().push((label.clone(), seed));
            let metrics = [("steps".to_owned(), seed as f64)].into_iter().collect();
            let outcome = match (self.fails)(&label, seed) {
                true => Outcome::Failed("no robot".to_owned()),
                false => Outcome::Scored(Score { score: score(&label, seed), metrics }),
            };
            done(seed, outcome)?;
        }
        Ok(())
    }
}

fn watch() -> Watch<'static> {
    Watch { cancelled: &|| false, told: &|_| {} }
}

fn open(dir: &Path, sets: &[&str], eval: &str, seeds: u64, restart: bool) -> Result<Sweep, SweepError> {
    let axes = sets.iter().map(|set| Axis::parse(set).unwrap()).collect();
    let definition = Definition::new(&Draft::new(RECIPE), axes, &EvalCommand::parse(eval).unwrap(), &[]);
    Sweep::open(dir, definition, seeds, restart)
}

/// Runs once and writes the results.
fn run(dir: &Path, engine: &Fake, seeds: u64, parallel: usize) -> Result<(), SweepError> {
    let sweep = open(dir, SETS, EVAL, seeds, false).unwrap();
    let result = sweep.run(engine, parallel, watch());
    sweep.write_results(&sweep.summary(false)).unwrap();
    result
}

const SETS: &[&str] = &["a=0.1:0.3:0.1", "b=x,y"];
const EVAL: &str = "score {checkpoint}";

fn results(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let kept = entries.filter(|path| !path.ends_with("sweep.json") && !path.ends_with(".lock"));
    kept.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn interrupted_sweeps_end_as_others_and_evaluate_nothing_twice(
        stops in proptest::collection::vec(0usize..8, 0..5),
        seeds in 1u64..4,
        parallel in 1usize..4,
    ) {
        let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(whole.path(), &Fake::with(usize::MAX), seeds, 1).unwrap();
        let mut seen = Vec::new();
        for evaluations in stops.into_iter().chain([usize::MAX]) {
            let engine = Fake::with(evaluations);
            let result = run(pieces.path(), &engine, seeds, parallel);
            seen.extend(engine.seen.into_inner().unwrap());
            prop_assert_eq!(result.is_ok(), seen.len() == 6 * seeds as usize);
        }
        prop_assert_eq!(results(pieces.path()), results(whole.path()));
        seen.sort();
        let evaluated = seen.len();
        seen.dedup();
        prop_assert_eq!((seen.len(), evaluated), (6 * seeds as usize, 6 * seeds as usize));
    }
}

#[test]
fn results_are_the_same_numbers_in_every_file() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &Fake::with(usize::MAX), 2, 1).unwrap();
    let csv = fs::read_to_string(dir.path().join("results.csv")).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "a,b,runs,failed,mean,std,min,max,best,steps");
    assert_eq!(rows.len(), 7);
    let label = "a=0.3,b=y";
    let [first, second] = [0, 1].map(|seed| score(label, seed));
    let std = ((first - second).powi(2) / 2.0).sqrt();
    assert_eq!(rows[6], format!("0.3,y,2,0,{},{std},{first},{second},1,0.5", (first + second) / 2.0));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("results.json")).unwrap()).unwrap();
    assert_eq!(json["best"], label);
    assert_eq!(json["points"][5]["mean"], (first + second) / 2.0);
    assert_eq!(json["points"][5]["scores"]["1"], second);
    let svg = fs::read_to_string(dir.path().join("sweep.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("0.3"));
}

#[test]
fn what_failed_is_tried_again_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let failing =
        Fake { fails: |label, seed| label.starts_with("a=0.2") && seed == 1, ..Fake::with(usize::MAX) };
    run(dir.path(), &failing, 2, 1).unwrap();
    let sweep = open(dir.path(), SETS, EVAL, 2, false).unwrap();
    assert_eq!(sweep.progress(), (12, 10));
    let summary = sweep.summary(false);
    assert_eq!(summary.failed(), 2);
    assert_eq!(summary.points[2].failed[&1], "no robot");
    drop(sweep);
    let again = Fake::with(usize::MAX);
    run(dir.path(), &again, 2, 1).unwrap();
    assert_eq!(*again.seen.lock().unwrap(), [("a=0.2,b=x".to_owned(), 1), ("a=0.2,b=y".to_owned(), 1)]);
    assert_eq!(open(dir.path(), SETS, EVAL, 2, false).unwrap().summary(false).failed(), 0);
}

#[test]
fn more_seeds_add_to_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &Fake::with(usize::MAX), 1, 1).unwrap();
    let more = Fake::with(usize::MAX);
    run(dir.path(), &more, 3, 1).unwrap();
    assert!(more.seen.lock().unwrap().iter().all(|(_, seed)| *seed > 0));
    assert_eq!(more.seen.lock().unwrap().len(), 12);
}

#[test]
fn another_sweep_in_the_folder_is_refused_until_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &Fake::with(2), 1, 1).unwrap_err();
    let refused = |sets: &[&str], eval: &str| open(dir.path(), sets, eval, 1, false).unwrap_err().to_string();
    let said = refused(&["a=0.1:0.4:0.1", "b=x,y"], EVAL);
    assert!(
        said.contains("other values (--set a=0.1,0.2,0.3 --set b=x,y)") && said.contains("--restart"),
        "{said}"
    );
    assert!(said.contains("2 evaluations"), "{said}");
    assert!(refused(SETS, "other {checkpoint}").contains("--eval 'score {checkpoint}'"));
    let axes = SETS.iter().map(|set| Axis::parse(set).unwrap()).collect();
    let other = Draft::new(format!("{RECIPE}seed: 1\n"));
    let command = EvalCommand::parse(EVAL).unwrap();
    let said = Sweep::open(dir.path(), Definition::new(&other, axes, &command, &[]), 1, false)
        .unwrap_err()
        .to_string();
    assert!(said.contains("another recipe"), "{said}");
    let anew = open(dir.path(), SETS, "other {checkpoint}", 1, true).unwrap();
    assert_eq!(anew.progress(), (6, 0));
}

/// A model that is trained further under its old name has other scores.
#[test]
fn models_that_have_changed_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("a.safetensors");
    let recipe =
        Recipe::parse(&format!("merge_method: linear\nmodels: [{{model: {}}}]", model.display())).unwrap();
    let sweep = dir.path().join("sweep");
    let open = || {
        let axes = vec![Axis::parse("alpha=1,2").unwrap()];
        let command = EvalCommand::parse(EVAL).unwrap();
        let recipes = std::slice::from_ref(&recipe);
        Sweep::open(&sweep, Definition::new(&Draft::new(RECIPE), axes, &command, recipes), 1, false)
    };
    std::fs::write(&model, "1234").unwrap();
    drop(open().unwrap());
    drop(open().unwrap());
    std::fs::write(&model, "12345").unwrap();
    let said = open().unwrap_err().to_string();
    assert!(said.contains("a.safetensors has been written") && said.contains("--restart"), "{said}");
}

#[test]
fn folders_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refused = || open(dir.path(), SETS, EVAL, 1, true).unwrap_err().to_string();
    fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
    assert!(refused().contains("`thesis.tex` lies in it"), "{}", refused());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::remove_file(dir.path().join("thesis.tex")).unwrap();
    let held = open(dir.path(), SETS, EVAL, 1, false).unwrap();
    assert!(refused().contains("in use by another sweep"), "{}", refused());
    drop(held);
    fs::write(dir.path().join("sweep.json"), "{").unwrap();
    let said = open(dir.path(), SETS, EVAL, 1, false).unwrap_err().to_string();
    assert!(said.contains("cannot be read") && said.contains("--restart"), "{said}");
    // Checkpoints of a killed process go with the next start.
    fs::create_dir_all(dir.path().join(".points/3")).unwrap();
    fs::write(dir.path().join(".points/3/model.safetensors"), "half").unwrap();
    open(dir.path(), SETS, EVAL, 1, true).unwrap();
    assert!(!dir.path().join(".points").exists());
}
