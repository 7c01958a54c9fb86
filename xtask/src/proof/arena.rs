//! Merges and evaluates, each once: what is there, of the same inputs and the same program, is taken.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use skillweld_rate::Rate;

use super::recipe::{Member, Recipe, SUITES};
use crate::process::{command, line, output, run as run_command};

/// Below `target/proof`.
const MERGED: &str = "merged";
const RESULTS: &str = "results";
/// Beside a merged checkpoint whose router is calibrated.
const CALIBRATION: &str = "router_calibration.json";
const DEMOS: &str = "demos";
/// Hash of the program that made all of it.
const PROGRAM: &str = "program";

/// A policy that is not there.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        write!(
            f,
            "`{name}` is not there: `cargo xtask train {name}` trains it, `cargo xtask ship {name}` puts it there"
        )
    }
}

pub(crate) struct Arena {
    skillweld: PathBuf,
    dir: PathBuf,
    /// Shipped policies.
    experts: PathBuf,
}

/// What an evaluation found.
#[derive(Deserialize)]
pub(crate) struct Scores {
    pub(super) all: Rate,
    /// By suite and by task.
    pub(crate) groups: BTreeMap<String, Rate>,
    /// Of merged policies whose tasks are named as suites: how often the suite's own ran.
    pub(super) router: Option<Rate>,
    /// Which expert ran in which suite, of those.
    #[serde(default)]
    pub(super) routed: Vec<Routed>,
}

/// A task of the suites, as `skillweld sim tasks --json` says it.
#[derive(Deserialize)]
pub(super) struct Task {
    pub(super) suite: String,
    pub(super) id: String,
}

/// How often an expert ran in a suite.
#[derive(Deserialize)]
pub(crate) struct Routed {
    pub(super) suite: String,
    pub(super) expert: String,
    pub(super) trials: u64,
}

impl Scores {
    /// Of every suite, of all, and of the router; empty where nothing was tried.
    pub(crate) fn cells(&self) -> Vec<String> {
        let suites = SUITES.iter().map(|suite| self.groups.get(*suite).copied());
        let all = suites.chain([Some(self.all), self.router]);
        all.map(|rate| rate.map_or_else(String::new, |rate| rate.to_string())).collect()
    }
}

impl Arena {
    /// In `dir`, which is emptied of what another program or other plugins made.
    pub(crate) fn new(skillweld: PathBuf, dir: PathBuf, experts: PathBuf) -> Result<Self> {
        let (program, file) = (hash_program(&skillweld)?, dir.join(PROGRAM));
        if fs::read_to_string(&file).map_or(true, |there| there != program) {
            for made in [MERGED, RESULTS, DEMOS] {
                remove(&dir.join(made))?;
            }
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            fs::write(&file, program).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { skillweld, dir, experts })
    }

    /// A shipped policy.
    ///
    /// # Errors
    /// [`Missing`] where it has not been shipped.
    pub(super) fn expert(&self, name: &str) -> Result<PathBuf> {
        let folder = self.experts.join(name);
        ensure!(folder.exists(), Missing(name.to_owned()));
        Ok(folder)
    }

    /// All tasks.
    pub(super) fn tasks(&self) -> Result<Vec<Task>> {
        let text = output(command(&self.skillweld).args(["sim", "tasks", "--json"]))?;
        serde_json::from_str(&text).context("`skillweld sim tasks --json` lists no tasks")
    }

    /// Where a merged checkpoint lies.
    pub(crate) fn merged(&self, name: &str) -> PathBuf {
        self.dir.join(MERGED).join(name)
    }

    /// The checkpoint of a recipe.
    pub(super) fn merge(&self, name: &str, recipe: &Recipe) -> Result<PathBuf> {
        let names = recipe.members.iter().map(|member| member.expert.as_str());
        let inputs = std::iter::once(recipe.base).chain(names).map(|name| self.expert(name));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let text = format!("# Of {}\n{}", hash(&inputs)?, recipe.text(&self.experts));
        self.made(&format!("{name}.yaml"), &text, name, |merge, file| {
            merge.arg("merge").arg(file).arg(self.merged(name)).arg("--quiet");
        })
    }

    /// What lies between two policies; `words`: how far to go.
    pub(super) fn retain(
        &self,
        name: &str,
        (base, finetuned): (&Path, &Path),
        words: &str,
    ) -> Result<PathBuf> {
        let text = format!("{} {words}", hash(&[base.to_owned(), finetuned.to_owned()])?);
        self.made(&format!("{name}.of"), &text, name, |retain, _| {
            retain.arg("retain").arg("--base").arg(base).arg("--finetuned").arg(finetuned);
            retain.args(words.split(' ')).args(["--statistics", "finetuned"]).arg(self.merged(name));
        })
    }

    /// A checkpoint that is made of what `text` says, which is kept beside it in `key`: made again where that has changed. `words` adds
    /// those of the command.
    fn made(
        &self,
        key: &str,
        text: &str,
        name: &str,
        words: impl FnOnce(&mut Command, &Path),
    ) -> Result<PathBuf> {
        let folder = self.dir.join(MERGED);
        let (out, file) = (self.merged(name), folder.join(key));
        if !out.exists() || fs::read_to_string(&file).map_or(true, |there| there != text) {
            remove(&out)?;
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            let mut make = command(&self.skillweld);
            words(&mut make, &file);
            run_command(&mut make)?;
        }
        Ok(out)
    }

    /// Calibrates a router by demonstrations of what each expert was trained on.
    fn calibrate(&self, merged: &Path, members: &[Member]) -> Result<()> {
        if merged.join(CALIBRATION).exists() {
            return Ok(());
        }
        let mut calibrate = command(&self.skillweld);
        calibrate.arg("calibrate-router").arg(merged);
        for Member { name, own, .. } in members {
            let demos = self.dir.join(DEMOS).join(folder_of(own));
            // Goes on where it was; has nothing to do where it ended.
            let mut show = command(&self.skillweld);
            output(show.args(["sim", "demos"]).arg(&demos).args(own.split(' ')).args(["--episodes", "10"]))?;
            calibrate.arg("--task").arg(format!("{name}={}", demos.display()));
        }
        println!("$ {}", line(&calibrate));
        output(&mut calibrate)?;
        Ok(())
    }

    /// Merges a recipe, calibrates its router, if it has one, and rolls it out.
    pub(crate) fn score(&self, name: &str, recipe: &Recipe, words: &str) -> Result<Scores> {
        let merged = self.merge(name, recipe)?;
        if recipe.routes {
            self.calibrate(&merged, &recipe.members)?;
            return self.evaluate(name, &merged, words);
        }
        // Its tasks are one policy: experts of one base have one set of statistics.
        let any = recipe.members.first().context("a merge of nothing")?;
        self.evaluate(name, &merged, &format!("{words} --skill {}", any.name))
    }

    /// The same, each suite's own task given instead of routed: what merging alone loses.
    pub(super) fn score_given(&self, name: &str, recipe: &Recipe, words: &str) -> Result<Scores> {
        let merged = self.merge(name, recipe)?;
        let mut scores =
            Scores { all: Rate::default(), groups: BTreeMap::new(), router: None, routed: Vec::new() };
        for Member { name: task, own, .. } in &recipe.members {
            let found = self.evaluate(name, &merged, &format!("{own} {words} --skill {task}"))?;
            scores.all = [scores.all, found.all].into_iter().sum();
            scores.groups.extend(found.groups);
        }
        Ok(scores)
    }

    /// `name`: of the policy, an adapter being one on the shipped base; `words`: options of `skillweld eval run` that say which trials.
    pub(crate) fn evaluate(&self, name: &str, policy: &Path, words: &str) -> Result<Scores> {
        self.evaluate_on(name, (policy, &self.expert("base")?), words)
    }

    /// The same, with the base that an adapter is on.
    pub(crate) fn evaluate_on(
        &self,
        name: &str,
        (policy, base): (&Path, &Path),
        words: &str,
    ) -> Result<Scores> {
        let results = self.dir.join(RESULTS).join(name).join(folder_of(words));
        let (key, found) = (results.join("of"), results.join("found.json"));
        let wanted = format!("{words}\n{}", hash(&[policy.to_owned(), base.to_owned()])?);
        if fs::read_to_string(&key).map_or(true, |there| there != wanted) {
            remove(&results)?;
            fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
            fs::write(&key, &wanted).with_context(|| format!("cannot write {}", key.display()))?;
        }
        if !found.exists() {
            let mut eval = command(&self.skillweld);
            eval.args(["eval", "run"]).arg(policy);
            if is_adapter(policy) {
                eval.arg("--base").arg(base);
            }
            eval.args(words.split(' ')).arg("--json").arg("--out").arg(results.join("trials"));
            println!("$ {}", line(&eval));
            let text = output(&mut eval)?;
            fs::write(&found, text).with_context(|| format!("cannot write {}", found.display()))?;
        }
        let text = fs::read(&found).with_context(|| format!("cannot read {}", found.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no result", found.display()))
    }
}

/// Whether a policy needs its base beside it.
pub(crate) fn is_adapter(policy: &Path) -> bool {
    policy.join("lora_adapter").exists()
}

/// A folder's name for options, however many.
fn folder_of(words: &str) -> String {
    blake3::hash(words.as_bytes()).to_hex()[..16].to_owned()
}

/// Of the program and the plugins beside it.
fn hash_program(skillweld: &Path) -> Result<String> {
    let folder = skillweld.parent().context("a program without a folder")?;
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        file == skillweld
            || (name.contains("skillweld_plugin") && name.ends_with(std::env::consts::DLL_SUFFIX))
    });
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.to_string_lossy().as_bytes());
        hasher.update(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn remove(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display())),
        false => Ok(()),
    }
}

/// Of everything that is in some folders.
fn hash(folders: &[PathBuf]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    folders.iter().try_for_each(|folder| hash_all(folder, &mut hasher))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Names and contents, in the order of names.
fn hash_all(folder: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_all(&path, hasher)?;
        } else {
            hasher.update(path.to_string_lossy().as_bytes());
            hasher.update(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(())
}
