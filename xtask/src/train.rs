//! Trains small experts: data by `skillweld sim`, policies by `examples/train`. A stage that has ended leaves a receipt; one that was
//! stopped goes on.

mod stages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build;
use crate::process::{announce, command, run as run_command, target_dir};
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
    asked.into_iter().try_for_each(|stage| reach(stage, &dir, &skillweld))?;
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
    let mut all: Vec<&Stage> = Vec::new();
    for need in stage.needs() {
        for earlier in before(named(need)?)? {
            if !all.iter().any(|known| known.name == earlier.name) {
                all.push(earlier);
            }
        }
    }
    all.push(stage);
    Ok(all)
}

/// Does a stage after those that it needs.
fn reach(stage: &Stage, dir: &Path, skillweld: &Path) -> Result<()> {
    if stage.is_done(dir) {
        return Ok(());
    }
    stage.needs().try_for_each(|need| reach(named(need)?, dir, skillweld))?;
    announce(&format!("stage {}", stage.name));
    let mut program = match stage.tool {
        Tool::Skillweld => command(skillweld),
        Tool::Train => {
            let mut python = command(TRAIN.python());
            python.args(["-m", "skillweld_train"]);
            python
        }
    };
    for word in stage.words.split(' ') {
        match word.strip_prefix('@') {
            Some(folder) => program.arg(dir.join(folder)),
            None => program.arg(word),
        };
    }
    run_command(&mut program)?;
    let receipt = stage.receipt(dir);
    fs::create_dir_all(dir.join(RECEIPTS))
        .and_then(|()| fs::write(&receipt, &stage.words))
        .with_context(|| format!("cannot write {}", receipt.display()))
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
