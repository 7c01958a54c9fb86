//! The main job on an embedded default: experts in, one merged checkpoint out, actions from it, arm moving.

use std::path::Path;

use anyhow::{Context, Result};
use skillweld_synth::{ExpertForm, write_observation};

use crate::build;
use crate::process::{announce, command, run as run_command, target_dir};
use crate::random_experts::{FORMS, RECIPE, write_inputs, write_so101};

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
    let (recipe, merged) = (write_so101(dir)?, dir.join("merged"));
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
