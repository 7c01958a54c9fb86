//! The main job on an embedded default: four small experts in, one merged checkpoint out.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use skillweld_synth::{ExpertForm, PrismaticSpec};

use crate::process::{announce, command, run as run_command, target_dir};
use crate::{build, plugins};

/// One expert with whole weights among adapters: any mix merges.
const FORMS: [ExpertForm; 4] =
    [ExpertForm::Adapter, ExpertForm::Full, ExpertForm::Adapter, ExpertForm::Adapter];

/// Relative paths start at the recipe's folder.
const RECIPE: &str = "\
# MergeVLA: TIES in the paper's form (no trimming, sum of the agreeing entries, signs over the whole vector), one TALL
# mask a task, and the action expert's last block kept once per task.
merge_method: ties
base_model: base
models:
  - { name: spatial, model: spatial }
  - { name: object, model: object }
  - { name: goal, model: goal }
  - { name: long, model: long }
parameters: { density: 1.0, normalize: false, scope: global }
mask: { method: tall, lambda: 0.6 }
action_expert: { head_blocks: 1 }
router: { rank: 8, subspace: per_task }
";

pub(crate) fn run() -> Result<()> {
    plugins::build(true, &[build::BINARY_PACKAGE])?;

    let dir = target_dir().join("demo");
    announce("four experts in the form that training leaves them");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    let written = PrismaticSpec::tiny()
        .write_all(&dir, &FORMS)
        .with_context(|| format!("cannot write experts into {}", dir.display()))?;
    println!("base     {}", written.base.display());
    for ((name, path), form) in written.experts.iter().zip(FORMS) {
        let form = if form == ExpertForm::Full { "whole weights" } else { "LoRA adapter" };
        println!("{name:8} {} ({form}, action head, proprio projector, statistics)", path.display());
    }
    let recipe = dir.join("recipe.yaml");
    fs::write(&recipe, RECIPE)?;
    println!("recipe   {}\n\n{RECIPE}", recipe.display());

    let (merged, task) = (dir.join("merged"), dir.join("merged-goal"));
    announce("the plan");
    run_command(skillweld("merge").arg(&recipe).arg(&merged).arg("--dry-run"))?;
    announce("the merge");
    run_command(skillweld("merge").arg(&recipe).arg(&merged))?;
    announce("what came out");
    run_command(skillweld("inspect").arg(&merged))?;
    announce("one task as a plain checkpoint");
    run_command(skillweld("materialize").arg(&merged).args(["--task", "goal"]).arg(&task))?;

    announce("done");
    println!("merged checkpoint  {}", merged.display());
    println!("its task `goal`    {}", task.display());
    println!("try: {} inspect {} --json", binary().display(), dir.join("spatial").display());
    Ok(())
}

fn binary() -> PathBuf {
    plugins::profile_dir(true).join("skillweld")
}

fn skillweld(subcommand: &str) -> Command {
    let mut command = command(binary());
    command.arg(subcommand);
    command
}
