//! Whole merges, ours and the peer's taking turns on the same files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::agree::{self, Distance, Moved};
use super::inputs::{EXPERTS, Inputs};
use super::measure::{Cost, measure};
use super::recipes::{Agreement, MERGEVLA, PEER, Recipe, TRIM_DENSITY};
use super::report::{Report, Row};
use crate::process::{announce, command, output, target_dir};
use crate::{build, setup};

/// Start-ups of `skillweld --version` that the median is taken of.
const START_UPS: usize = 21;

pub(crate) fn run(rounds: usize, only: &[String], keep: Option<&str>) -> Result<()> {
    for name in only {
        let known = PEER.iter().chain([&MERGEVLA]).any(|recipe| recipe.name == name);
        ensure!(known, "no recipe `{name}`; see `cargo xtask bench --help`");
    }
    let bench = Bench {
        skillweld: build::release()?,
        mergekit: setup::install_mergekit()?,
        inputs: Inputs::prepare()?,
        out: target_dir().join("bench-out"),
        rounds,
    };
    let chosen = |recipe: &&Recipe| only.is_empty() || only.iter().any(|name| name == recipe.name);

    announce("inputs into the page cache");
    let mut models = vec!["base".to_owned()];
    models.extend((0..EXPERTS).map(|index| format!("expert{index}")));
    let mut cat = command("cat");
    output(cat.args(models.iter().map(|model| bench.inputs.weights(model))).stdout(Stdio::null()))?;

    let mut report = Report::new(rounds, only)?;
    for recipe in PEER.iter().filter(chosen) {
        announce(recipe.name);
        bench.against_mergekit(recipe, &mut report)?;
    }
    if chosen(&&MERGEVLA) {
        announce("MergeVLA: task arithmetic with masks, against plain task arithmetic");
        bench.mergevla(&mut report)?;
    }
    announce("start-up");
    let mut version = Row::new("start-up", "skillweld --version");
    for _ in 0..START_UPS {
        version.push(bench.measure(command(&bench.skillweld).arg("--version"))?);
    }
    report.rows.push(version);
    fs::remove_dir_all(&bench.out)?;
    report.publish(if only.is_empty() { Some("mergekit") } else { keep })
}

struct Bench {
    skillweld: PathBuf,
    mergekit: PathBuf,
    inputs: Inputs,
    out: PathBuf,
    rounds: usize,
}

impl Bench {
    fn against_mergekit(&self, recipe: &Recipe, report: &mut Report) -> Result<()> {
        let f32_recipe = self.recipe(recipe, "float32")?;
        let bf16_recipe = self.recipe(recipe, "bfloat16")?;
        let fast = ["--lazy-unpickle", "--async-write", "--write-threads", "2", "--num-threads", "2"];
        let mut rows = [
            Row::new(recipe.name, "floor"),
            Row::new(recipe.name, "skillweld"),
            Row::new(recipe.name, "mergekit f32"),
            Row::new(recipe.name, "mergekit f32, fast flags"),
            Row::new(recipe.name, "mergekit bf16, fast flags"),
        ];
        let contestants: [(&Path, &[&str]); 3] =
            [(&f32_recipe, &[]), (&f32_recipe, &fast), (&bf16_recipe, &fast)];
        for round in 0..self.rounds {
            for (contestant, (path, flags)) in contestants.into_iter().enumerate() {
                // Short runs swing more than long ones: floor and ours take a turn before each of the peer's.
                let (ours, theirs) = (self.fresh("skillweld")?, self.fresh("mergekit")?);
                let copy = self.out.join("copy");
                let mut floor = self.inputs.floor(recipe.models, &self.inputs.weights("base"), &copy);
                rows[0].push(self.measure(&mut floor)?);
                fs::remove_file(&copy)?;
                rows[1].push(self.measure(&mut self.merge(&f32_recipe, &ours, &[]))?);
                rows[2 + contestant].push(self.measure(&mut self.mergekit(path, &theirs, flags))?);
                if round == 0 && contestant == 0 {
                    let agreement = compare(recipe, &self.inputs, &ours, &theirs)?;
                    println!("  {agreement}");
                    report.agreements.push((recipe.name, agreement));
                }
            }
        }
        for row in rows {
            println!("  {row}");
            report.rows.push(row);
        }
        Ok(())
    }

    /// Both merges with one and two threads, on disk and, to see threads without the disk, in memory.
    fn mergevla(&self, report: &mut Report) -> Result<()> {
        let plain = PEER.iter().find(|recipe| recipe.name == "task_arithmetic").unwrap_or(&MERGEVLA);
        let memory = memory_disk();
        let mut rows = Vec::new();
        for round in 0..self.rounds {
            let mut index = 0;
            for (place, out) in [("disk", Some(self.out.clone())), ("memory", memory.clone())] {
                let Some(out) = out else { continue };
                for recipe in [plain, &MERGEVLA] {
                    for threads in ["1", "2"] {
                        let path = self.recipe(recipe, "float32")?;
                        let merged = out.join("skillweld-bench-merged");
                        remove(&merged)?;
                        let cost = self.measure(&mut self.merge(&path, &merged, &["--threads", threads]))?;
                        remove(&merged)?;
                        if round == 0 {
                            let name = format!("{} --threads {threads}, to {place}", recipe.name);
                            rows.push(Row::new("mergevla", &name));
                        }
                        rows[index].push(cost);
                        index += 1;
                    }
                }
            }
        }
        for row in rows {
            println!("  {row}");
            report.rows.push(row);
        }
        Ok(())
    }

    fn recipe(&self, recipe: &Recipe, dtype: &str) -> Result<PathBuf> {
        let path = self.inputs.dir.join(format!("{}-{dtype}.yaml", recipe.name));
        fs::write(&path, recipe.yaml(dtype))?;
        Ok(path)
    }

    /// A path below the output folder at which nothing is.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.out)?;
        let path = self.out.join(name);
        remove(&path)?;
        Ok(path)
    }

    fn merge(&self, recipe: &Path, out: &Path, more: &[&str]) -> Command {
        let mut merge = command(&self.skillweld);
        merge.arg("merge").arg(recipe).arg(out).args(more);
        merge
    }

    fn mergekit(&self, recipe: &Path, out: &Path, more: &[&str]) -> Command {
        let mut merge = command(&self.mergekit);
        // mergekit's relative paths start at the working directory.
        merge.current_dir(&self.inputs.dir).env("HF_HUB_OFFLINE", "1");
        // Its model card would ask a hub for the models' names.
        merge.arg(recipe).arg(out).args(["--quiet", "--no-write-model-card"]).args(more);
        merge
    }

    fn measure(&self, command: &mut Command) -> Result<Cost> {
        fs::create_dir_all(&self.out)?;
        // Nobody pays for what another one left to be written.
        run_quietly("sync")?;
        measure(command, &self.out.join("log"))
    }
}

fn compare(recipe: &Recipe, inputs: &Inputs, ours: &Path, theirs: &Path) -> Result<String> {
    Ok(match recipe.agreement {
        Agreement::OneStep | Agreement::PeerSums => {
            let inputs = recipe.models.iter().map(|model| inputs.weights(model)).collect();
            let cancellation = match recipe.agreement {
                Agreement::PeerSums => agree::CANCELLATION * 8.0,
                _ => agree::CANCELLATION,
            };
            let density = recipe.trims.then_some(TRIM_DENSITY);
            let merge = agree::Merge { inputs, density, cancellation };
            let Distance { values, one_step, cancelled, at_threshold, open } =
                agree::distance(&merge, ours, theirs)?;
            let mut text = format!("of {values} values {one_step} differ by one bf16 step");
            if cancelled > 0 {
                let bits = -cancellation.log2();
                text += &format!(", {cancelled}, where inputs cancel, by less than 2^-{bits} of the inputs");
            }
            if open > 0 {
                text += &format!(
                    ", {at_threshold} at entries exactly as large as the trimming threshold, of which both keep as many as \
                     make the density, but not the same ones ({open} could differ)"
                );
            }
            text
        }
        Agreement::Statistics => {
            let base = inputs.weights("base");
            let (ours, theirs): (Moved, Moved) = (agree::moved(&base, ours)?, agree::moved(&base, theirs)?);
            let apart = (ours.share / theirs.share - 1.0).abs().max((ours.rms / theirs.rms - 1.0).abs());
            ensure!(apart < 0.01, "statistics differ: {ours:?} against the peer's {theirs:?}");
            format!(
                "statistics agree: {:.2} % of the values moved (peer {:.2} %), by {:.3e} rms (peer {:.3e})",
                100.0 * ours.share,
                100.0 * theirs.share,
                ours.rms,
                theirs.rms
            )
        }
    })
}

/// A file system in memory with room for an output, if there is one.
fn memory_disk() -> Option<PathBuf> {
    let place = PathBuf::from("/dev/shm");
    let stat = output(command("df").args(["--output=avail", "-B1M"]).arg(&place)).ok()?;
    let free_mb: u64 = stat.lines().nth(1)?.trim().parse().ok()?;
    (free_mb > 6000).then_some(place)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() { Ok(fs::remove_dir_all(path)?) } else { Ok(()) }
}

fn run_quietly(program: &str) -> Result<()> {
    output(&mut command(program)).map(drop)
}
