//! Trains small experts: data by `skillweld sim`, policies by `examples/train`. A stage that has ended leaves a receipt; one that was
//! stopped goes on.

mod schedule;
mod stages;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::process::{announce, command, line, target_dir};
use crate::python::Environment;
pub(crate) use stages::{CHAIN_ALPHA, SKILLS, Stage};
use stages::{STAGES, Tool};

const TRAIN: Environment = Environment {
    name: "train-venv",
    what: "PyTorch, peft and the training example, through pip",
    described_by: &["examples/train/pyproject.toml"],
    of_the_system: false,
    installs: &[&["--editable", "examples/train"]],
};

/// Below `target/train`.
const RECEIPTS: &str = "done";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stages to reach; those that they need come first [default: all].
    stages: Vec<String>,
    /// Stages side by side, which share the cores. One takes up to 13 GB of memory.
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZeroUsize,
    /// Only say which stages there are and what has been done.
    #[arg(long)]
    list: bool,
}

/// Stages that make a policy to be shipped.
pub(crate) fn policies() -> impl Iterator<Item = &'static Stage> {
    STAGES.iter().filter(|stage| stage.what.is_some())
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = target_dir().join("train");
    if args.list {
        for stage in STAGES.iter() {
            let state = if stage.is_done(&dir) { "done" } else { "" };
            println!("{:22} {state:5} {}", stage.name, stage.words);
        }
        return Ok(());
    }
    let asked: Vec<&Stage> = match args.stages.is_empty() {
        true => STAGES.iter().collect(),
        false => args.stages.iter().map(|name| named(name)).collect::<Result<_>>()?,
    };
    let skillweld = build::release()?;
    TRAIN.install()?;
    let mut stages = Vec::new();
    asked.into_iter().try_for_each(|stage| add(stage, &|stage| stage.is_done(&dir), &mut stages))?;
    fs::create_dir_all(dir.join(RECEIPTS)).with_context(|| format!("cannot make {}", dir.display()))?;
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = args.jobs.get().min(cores);
    schedule::run(stages, jobs, |stage| work(stage, &dir, &skillweld, cores / jobs))?;
    announce("done");
    println!("everything asked for is in {}", dir.display());
    Ok(())
}

pub(crate) fn named(name: &str) -> Result<&'static Stage> {
    let known = || STAGES.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ");
    STAGES
        .iter()
        .find(|stage| stage.name == name)
        .with_context(|| format!("there is no stage {name}; there are {}", known()))
}

/// A stage after all that it needs, each once.
pub(crate) fn before(stage: &'static Stage) -> Result<Vec<&'static Stage>> {
    let mut all = Vec::new();
    add(stage, &|_| false, &mut all)?;
    Ok(all)
}

/// Adds a stage after those that it needs, each once, but for what may be left out and what only that needs.
fn add(
    stage: &'static Stage,
    leave_out: &dyn Fn(&Stage) -> bool,
    stages: &mut Vec<&'static Stage>,
) -> Result<()> {
    if leave_out(stage) || stages.iter().any(|known| known.name == stage.name) {
        return Ok(());
    }
    stage.needs().try_for_each(|need| add(named(need)?, leave_out, stages))?;
    stages.push(stage);
    Ok(())
}

/// Does a stage. What it says is shown with its name before it, and kept in a file beside its folder.
fn work(stage: &Stage, dir: &Path, skillweld: &Path, threads: usize) -> Result<()> {
    let threads = threads.to_string();
    let mut program = match stage.tool {
        Tool::Skillweld => command(skillweld),
        Tool::Train => {
            let mut python = command(TRAIN.python());
            python.env("OMP_NUM_THREADS", &threads).args(["-m", "skillweld_train", "--threads", &threads]);
            python
        }
    };
    for word in stage.words.split(' ') {
        match word.strip_prefix('@') {
            Some(folder) => program.arg(dir.join(folder)),
            None => program.arg(word),
        };
    }
    let path = dir.join(format!("{}.log", stage.name));
    let at = || format!("cannot write {}", path.display());
    let mut log = File::create(&path).with_context(at)?;
    let (name, line) = (&stage.name, line(&program));
    println!("{name:18} $ {line}");
    program.stdout(Stdio::piped()).stderr(log.try_clone().with_context(at)?);
    let mut child = program.spawn().with_context(|| format!("cannot start `{line}`"))?;
    for said in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let said = said.with_context(|| format!("`{line}` says something that is no text"))?;
        println!("{name:18} {said}");
        writeln!(log, "{said}").with_context(at)?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status}); {} says why", path.display());
    let receipt = stage.receipt(dir);
    fs::write(&receipt, &stage.words).with_context(|| format!("cannot write {}", receipt.display()))
}

impl Stage {
    /// Written once the stage has ended; holds the command's words.
    fn receipt(&self, dir: &Path) -> PathBuf {
        dir.join(RECEIPTS).join(&self.name)
    }

    pub(crate) fn is_done(&self, dir: &Path) -> bool {
        fs::read_to_string(self.receipt(dir)).is_ok_and(|words| words == self.words)
    }
}
