//! The main job on an embedded default: experts in, one merged checkpoint out, actions from it, arm moving.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skillweld_synth::{Embodiment, ExpertForm, PrismaticSpec, Written, write_observation};

use crate::build;
use crate::process::{announce, command, run as run_command, target_dir};

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
    let skillweld = build::release()?;

    let dir = target_dir().join("demo");
    announce("four experts in the form that training leaves them");
    let (written, recipe) = write_inputs(&dir)?;
    println!("base     {}", written.base.display());
    for ((name, path), form) in written.experts.iter().zip(FORMS) {
        let form = if form == ExpertForm::Full { "whole weights" } else { "LoRA adapter" };
        println!("{name:8} {} ({form}, action head, proprio projector, statistics)", path.display());
    }
    println!("recipe   {}\n\n{RECIPE}", recipe.display());

    let (merged, task) = (dir.join("merged"), dir.join("merged-goal"));
    announce("the plan");
    run_command(command(&skillweld).arg("merge").arg(&recipe).arg(&merged).arg("--dry-run"))?;
    announce("the merge");
    run_command(command(&skillweld).arg("merge").arg(&recipe).arg(&merged))?;
    announce("what came out");
    run_command(command(&skillweld).arg("inspect").arg(&merged))?;
    let report = dir.join("report.html");
    announce("what the merge did, as a page");
    run_command(command(&skillweld).arg("report").arg(&merged).arg("--html").arg(&report))?;
    announce("one task as a plain checkpoint");
    run_command(command(&skillweld).arg("materialize").arg(&merged).args(["--task", "goal"]).arg(&task))?;

    let (observation, actions) = (dir.join("observation.safetensors"), dir.join("actions.safetensors"));
    announce("an observation: two cameras, the robot's state, \"put the red block in the drawer\"");
    write_observation(&observation, "put the red block in the drawer", 0)
        .with_context(|| format!("cannot write {}", observation.display()))?;
    println!("{}", observation.display());
    announce("the router chooses a task, the policy answers with a chunk of actions");
    run_command(
        command(&skillweld)
            .arg("predict")
            .arg(&merged)
            .arg("--inputs")
            .arg(&observation)
            .arg("--output")
            .arg(&actions),
    )?;

    drive(&skillweld, &dir.join("so101"))?;

    announce("done");
    println!("merged checkpoint  {}", merged.display());
    println!("its report         {}", report.display());
    println!("its task `goal`    {}", task.display());
    println!("actions            {}", actions.display());
    println!("try: {} inspect {} --json", skillweld.display(), dir.join("spatial").display());
    Ok(())
}

/// The same for a robot that has a simulator here: two experts for an SO-101, merged, and the arm moving.
fn drive(skillweld: &Path, dir: &Path) -> Result<()> {
    announce("two experts for an SO-101, merged, move a simulated one for three seconds");
    let spec = PrismaticSpec { embodiment: Embodiment::So101, ..PrismaticSpec::tiny() };
    spec.write_all(dir, &FORMS[..2])
        .with_context(|| format!("cannot write experts into {}", dir.display()))?;
    let (recipe, merged) = (dir.join("recipe.yaml"), dir.join("merged"));
    let two: Vec<&str> =
        RECIPE.lines().filter(|line| !line.contains("name: goal") && !line.contains("name: long")).collect();
    fs::write(&recipe, two.join("\n"))?;
    run_command(command(skillweld).arg("merge").arg(&recipe).arg(&merged).arg("--quiet"))?;
    let mut drive = command(skillweld);
    drive.arg("drive").arg("--policy").arg(&merged).args([
        "--task",
        "put the red cube on the tray",
        "--seconds",
        "3",
    ]);
    drive.arg("--record").arg(dir.join("episodes"));
    run_command(&mut drive)?;
    run_command(command(skillweld).args(["dataset", "inspect"]).arg(dir.join("episodes")))
}

/// Writes base, experts and recipe into a folder that is cleared before; returns what was written, and the recipe.
pub(crate) fn write_inputs(dir: &Path) -> Result<(Written, PathBuf)> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    let written = PrismaticSpec::tiny()
        .write_all(dir, &FORMS)
        .with_context(|| format!("cannot write experts into {}", dir.display()))?;
    let recipe = dir.join("recipe.yaml");
    fs::write(&recipe, RECIPE)?;
    Ok((written, recipe))
}
