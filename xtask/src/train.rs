//! Trains what the proof is made of: data by `skillweld sim`, policies by `examples/train`. A stage is done when its folder holds what
//! it makes; one that was stopped goes on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::process::{announce, command, run as run_command, target_dir};
use crate::python::Environment;

const TRAIN: Environment = Environment {
    name: "train-venv",
    what: "PyTorch, peft and the training example, through pip",
    described_by: &["examples/train/pyproject.toml"],
    of_the_system: false,
    installs: &[&["--editable", "examples/train"]],
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stages to reach; those that they need come first [default: all].
    stages: Vec<String>,
    /// Only say which stages there are and what has been done.
    #[arg(long)]
    list: bool,
}

/// What runs a stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Skillweld,
    Train,
}

/// Something that is made once, in `target/train/<name>`.
struct Stage {
    name: &'static str,
    needs: &'static [&'static str],
    tool: Tool,
    /// Words of the command; `@name` is the folder of a stage.
    words: &'static str,
    /// The file that is there when it is done.
    makes: &'static str,
}

const fn demos(name: &'static str, words: &'static str) -> Stage {
    Stage { name, needs: &[], tool: Tool::Skillweld, words, makes: "meta/stats.json" }
}

const fn trained(name: &'static str, needs: &'static [&'static str], words: &'static str) -> Stage {
    Stage { name, needs, tool: Tool::Train, words, makes: "dataset_statistics.json" }
}

const STAGES: &[Stage] = &[
    Stage {
        name: "scenes",
        needs: &[],
        tool: Tool::Skillweld,
        words: "sim scenes @scenes --count 40960",
        makes: "scenes-00079.safetensors",
    },
    demos("demos-spatial", "sim demos @demos-spatial --suite spatial --episodes 100 --noise 0.3"),
    demos("demos-object", "sim demos @demos-object --suite object --episodes 100 --noise 0.3"),
    demos("demos-goal", "sim demos @demos-goal --suite goal --episodes 100 --noise 0.3"),
    demos("demos-long", "sim demos @demos-long --suite long --episodes 100 --noise 0.3"),
    trained("base", &["scenes"], "pretrain @scenes @base --seed 1"),
    trained(
        "spatial",
        &["base", "demos-spatial"],
        "finetune @base @spatial --demos @demos-spatial --lora 16",
    ),
    trained("object", &["base", "demos-object"], "finetune @base @object --demos @demos-object --lora 16"),
    trained("goal", &["base", "demos-goal"], "finetune @base @goal --demos @demos-goal --lora 16"),
    trained("long", &["base", "demos-long"], "finetune @base @long --demos @demos-long --lora 16"),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = target_dir().join("train");
    if args.list {
        for stage in STAGES {
            let state = if stage.is_done(&dir) { "done" } else { "" };
            println!("{:14} {state:5} {}", stage.name, stage.words);
        }
        return Ok(());
    }
    let skillweld = build::release()?;
    TRAIN.install()?;
    let asked: Vec<&str> = match args.stages.is_empty() {
        true => STAGES.iter().map(|stage| stage.name).collect(),
        false => args.stages.iter().map(String::as_str).collect(),
    };
    asked.into_iter().try_for_each(|name| reach(name, &dir, &skillweld))?;
    announce("done");
    println!("everything asked for is in {}", dir.display());
    Ok(())
}

fn named(name: &str) -> Result<&'static Stage> {
    let known = || STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>().join(", ");
    STAGES
        .iter()
        .find(|stage| stage.name == name)
        .with_context(|| format!("there is no stage {name}; there are {}", known()))
}

/// Does a stage after those that it needs.
fn reach(name: &str, dir: &Path, skillweld: &Path) -> Result<()> {
    let stage = named(name)?;
    if stage.is_done(dir) {
        return Ok(());
    }
    stage.needs.iter().try_for_each(|need| reach(need, dir, skillweld))?;
    announce(&format!("stage {name}"));
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
    ensure!(stage.is_done(dir), "stage {name} has not made {}", stage.file(dir).display());
    Ok(())
}

impl Stage {
    fn file(&self, dir: &Path) -> PathBuf {
        dir.join(self.name).join(self.makes)
    }

    fn is_done(&self, dir: &Path) -> bool {
        self.file(dir).exists()
    }
}
