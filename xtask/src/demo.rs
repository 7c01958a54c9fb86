//! The main job on what is shipped: experts in, one merged policy out, rolled out in simulation; then an arm that moves.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::process::{announce, command, run as run_command, target_dir};
use crate::proof::arena::{Arena, Scores};
use crate::proof::recipe::{Mask, Recipe, SUITES};
use crate::random_experts::write_so101;
use crate::{build, ship};

/// Two layouts of each of twenty tasks.
const TRIALS: &str = "--split final --episodes 2 --actions 4";

pub(crate) fn run() -> Result<()> {
    let skillweld = build::release()?;
    let begun = Instant::now();
    let (experts, dir) = (ship::experts_dir(), target_dir().join("demo"));
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    let arena = Arena::new(skillweld.clone(), dir.clone(), experts.clone())?;

    announce("four experts, each trained on one suite of tabletop tasks");
    run_command(command(&skillweld).args(["sim", "tasks"]))?;
    let best = Recipe::ties(&Mask::default());
    println!("\na recipe:\n\n{}", best.text(&experts));

    let policies = [
        ("naive", "task arithmetic, one head", Recipe::naive("", "task_arithmetic", "")),
        ("ta", "MergeVLA, task arithmetic", Recipe::masked("task_arithmetic", "", &Mask::default())),
        ("emr", "MergeVLA, EMR", Recipe::masked("emr", "", &Mask::emr())),
        ("ties", "MergeVLA, TIES", best),
    ];
    let mut rows = Vec::new();
    for (name, title, recipe) in &policies {
        announce(&format!("{title}: merged, then rolled out twice in every task"));
        rows.push((*title, arena.score(name, recipe, TRIALS)?));
    }
    announce("success in percent, Wilson's interval of 95 %; router: how often the suite's own expert ran");
    table(&rows);

    let merged = arena.merged("ties");
    announce("what is in the last one");
    run_command(command(&skillweld).arg("inspect").arg(&merged))?;
    announce("what the merge did, as a page");
    let (report, film) = (dir.join("report.html"), dir.join("rollouts.gif"));
    run_command(command(&skillweld).arg("report").arg(&merged).arg("--html").arg(&report))?;
    announce("how it moves");
    let mut eval = command(&skillweld);
    eval.args(["eval", "film"]).arg(&merged).args(["--split", "final", "--episodes", "1", "--actions", "4"]);
    run_command(eval.arg("--out").arg(&film))?;

    drive(&skillweld, &dir.join("so101"))?;

    announce(&format!("done, in {:.0} s after the build", begun.elapsed().as_secs_f64()));
    println!("merged policy  {}", merged.display());
    println!("its report     {}", report.display());
    println!("its rollouts   {}", film.display());
    println!("try: {} inspect {} --json", skillweld.display(), merged.display());
    Ok(())
}

fn table(rows: &[(&str, Scores)]) {
    let line = |title: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:>15}")).collect();
        println!("{title:26}{cells}");
    };
    let headings: Vec<String> = SUITES.iter().copied().chain(["all", "router"]).map(str::to_owned).collect();
    line("", &headings);
    for (title, scores) in rows {
        line(title, &scores.cells());
    }
}

/// Joint by joint, as a real arm is driven: two experts for an SO-101, untrained, merged, and what they do recorded.
fn drive(skillweld: &Path, dir: &Path) -> Result<()> {
    announce(
        "the control loop: two untrained experts for an SO-101's joints, merged, move a simulated one for three seconds",
    );
    let (recipe, merged) = (write_so101(dir)?, dir.join("merged"));
    run_command(command(skillweld).arg("merge").arg(&recipe).arg(&merged).arg("--quiet"))?;
    let mut drive = command(skillweld);
    drive.arg("drive").arg("--policy").arg(&merged);
    drive.args(["--task", "put the red cube on the tray", "--seconds", "3"]);
    run_command(drive.arg("--record").arg(dir.join("episodes")))?;
    run_command(command(skillweld).args(["dataset", "inspect"]).arg(dir.join("episodes")))
}
