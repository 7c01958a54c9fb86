//! Trains small experts: data by `skillweld sim`, policies by `examples/train`. A stage that has ended leaves a receipt; one that was
//! stopped goes on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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

/// What runs a stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Skillweld,
    Train,
}

/// Something that is made once, in `target/train/<name>`.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// Of a policy, what it is.
    pub(crate) what: &'static str,
    /// Options of `skillweld eval run`: trials in which its card says how good it is; empty for what has learned no task.
    pub(crate) trials: &'static str,
    needs: &'static [&'static str],
    tool: Tool,
    /// Words of the command; `@name` is the folder of a stage.
    words: &'static str,
}

const fn data(name: &'static str, words: &'static str) -> Stage {
    between(name, &[], words)
}

/// A policy that is made of trained ones, for the next to begin from.
const fn between(name: &'static str, needs: &'static [&'static str], words: &'static str) -> Stage {
    Stage { name, what: "", trials: "", needs, tool: Tool::Skillweld, words }
}

const fn policy(
    name: &'static str,
    what: &'static str,
    trials: &'static str,
    needs: &'static [&'static str],
    words: &'static str,
) -> Stage {
    Stage { name, what, trials, needs, tool: Tool::Train, words }
}

const BASE: &str = "The pretrained base of all experts: it points at what it is told, and lifts it";
const EXPERT: &str = "An expert: a LoRA adapter on `base`, and an action expert with cross-attention alone";
/// Begins from random weights, the same in all four.
const WITH_SELF_ATTENTION: &str =
    "To compare: a LoRA adapter on `base`, and VLA-Adapter's action expert, which has self-attention";

const GENERALIST: &str = "For RETAIN: one policy of all suites, but for three tasks that it has never seen";
const SKILL: &str =
    "For RETAIN: a policy that knows much, finetuned on twenty demonstrations of a new task alone";
const COTRAINED: &str =
    "As `stack`, but half of what it was finetuned on is what `generalist` was trained on";

const STAGES: &[Stage] = &[
    data("scenes", "sim scenes @scenes --count 40960"),
    data("demos-spatial", "sim demos @demos-spatial --suite spatial --episodes 100 --noise 0.2"),
    data("demos-object", "sim demos @demos-object --suite object --episodes 100 --noise 0.2"),
    data("demos-goal", "sim demos @demos-goal --suite goal --episodes 100 --noise 0.2"),
    data("demos-long", "sim demos @demos-long --suite long --episodes 100 --noise 0.2"),
    policy("base", BASE, "", &["scenes"], "pretrain @scenes @base --seed 1 --steps 6000"),
    policy(
        "spatial",
        EXPERT,
        "--suite spatial",
        &["base", "demos-spatial"],
        "finetune @base @spatial --demos @demos-spatial --lora 16 --steps 3000 --rate 1e-3",
    ),
    policy(
        "object",
        EXPERT,
        "--suite object",
        &["base", "demos-object"],
        "finetune @base @object --demos @demos-object --lora 16 --steps 3000 --rate 1e-3",
    ),
    policy(
        "goal",
        EXPERT,
        "--suite goal",
        &["base", "demos-goal"],
        "finetune @base @goal --demos @demos-goal --lora 16 --steps 3000 --rate 1e-3",
    ),
    policy(
        "long",
        EXPERT,
        "--suite long",
        &["base", "demos-long"],
        "finetune @base @long --demos @demos-long --lora 16 --steps 3000 --rate 1e-3",
    ),
    policy(
        "spatial-self",
        WITH_SELF_ATTENTION,
        "--suite spatial",
        &["base", "demos-spatial"],
        "finetune @base @spatial-self --demos @demos-spatial --lora 16 --steps 3000 --rate 1e-3 --expert self",
    ),
    policy(
        "object-self",
        WITH_SELF_ATTENTION,
        "--suite object",
        &["base", "demos-object"],
        "finetune @base @object-self --demos @demos-object --lora 16 --steps 3000 --rate 1e-3 --expert self",
    ),
    policy(
        "goal-self",
        WITH_SELF_ATTENTION,
        "--suite goal",
        &["base", "demos-goal"],
        "finetune @base @goal-self --demos @demos-goal --lora 16 --steps 3000 --rate 1e-3 --expert self",
    ),
    policy(
        "long-self",
        WITH_SELF_ATTENTION,
        "--suite long",
        &["base", "demos-long"],
        "finetune @base @long-self --demos @demos-long --lora 16 --steps 3000 --rate 1e-3 --expert self",
    ),
    // All that the tasks `goal_stack`, `goal_push` and `object_tea` are told with has one of these words.
    policy(
        "generalist",
        GENERALIST,
        "--suite spatial --suite object --suite goal --suite long",
        &["base", "demos-spatial", "demos-object", "demos-goal", "demos-long"],
        "finetune @base @generalist --demos @demos-spatial @demos-object @demos-goal @demos-long --without tea disc --steps 4000 \
         --rate 1e-3",
    ),
    data("demos-stack", "sim demos @demos-stack --task goal_stack --episodes 20 --noise 0.2"),
    data("demos-push", "sim demos @demos-push --task goal_push --episodes 20 --noise 0.2"),
    data("demos-tea", "sim demos @demos-tea --task object_tea --episodes 20 --noise 0.2"),
    policy(
        "stack",
        SKILL,
        "--task goal_stack",
        &["generalist", "demos-stack"],
        "finetune @generalist @stack --demos @demos-stack --steps 400 --rate 3e-4",
    ),
    policy(
        "stack-cotrained",
        COTRAINED,
        "--task goal_stack",
        &["generalist", "demos-stack"],
        "finetune @generalist @stack-cotrained --demos @demos-spatial @demos-object @demos-goal @demos-long --without tea disc \
         --skill @demos-stack --steps 400 --rate 3e-4",
    ),
    // The chain: each skill is learned from what the one before it left.
    between(
        "chain-1",
        &["stack"],
        "retain --base @generalist --finetuned @stack --alpha 0.5 --statistics finetuned @chain-1",
    ),
    policy(
        "push",
        SKILL,
        "--task goal_push",
        &["chain-1", "demos-push"],
        "finetune @chain-1 @push --demos @demos-push --steps 400 --rate 3e-4",
    ),
    between(
        "chain-2",
        &["push"],
        "retain --base @chain-1 --finetuned @push --alpha 0.5 --statistics finetuned @chain-2",
    ),
    policy(
        "tea",
        SKILL,
        "--task object_tea",
        &["chain-2", "demos-tea"],
        "finetune @chain-2 @tea --demos @demos-tea --steps 400 --rate 3e-4",
    ),
];

/// Stages that make a policy.
pub(crate) fn policies() -> impl Iterator<Item = &'static Stage> {
    STAGES.iter().filter(|stage| stage.tool == Tool::Train)
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = target_dir().join("train");
    if args.list {
        for stage in STAGES {
            let state = if stage.is_done(&dir) { "done" } else { "" };
            println!("{:14} {state:5} {}", stage.name, stage.words);
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
    let known = || STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>().join(", ");
    STAGES
        .iter()
        .find(|stage| stage.name == name)
        .with_context(|| format!("there is no stage {name}; there are {}", known()))
}

/// A stage after all that it needs, each once.
pub(crate) fn before(stage: &'static Stage) -> Result<Vec<&'static Stage>> {
    let mut all: Vec<&Stage> = Vec::new();
    for need in stage.needs {
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
    stage.needs.iter().try_for_each(|need| reach(named(need)?, dir, skillweld))?;
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
        .and_then(|()| fs::write(&receipt, stage.words))
        .with_context(|| format!("cannot write {}", receipt.display()))
}

impl Stage {
    /// Written once the stage has ended; holds the command's words.
    fn receipt(&self, dir: &Path) -> PathBuf {
        dir.join(RECEIPTS).join(self.name)
    }

    /// Its command as one would type it where all stages' folders lie.
    pub(crate) fn line(&self) -> String {
        let program = match self.tool {
            Tool::Skillweld => "skillweld",
            Tool::Train => "python -m skillweld_train",
        };
        format!("{program} {}", self.words.replace('@', ""))
    }

    pub(crate) fn is_done(&self, dir: &Path) -> bool {
        fs::read_to_string(self.receipt(dir)).is_ok_and(|words| words == self.words)
    }
}
