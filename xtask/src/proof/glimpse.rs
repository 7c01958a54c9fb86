//! A few trials of a few merges: a table, a film, a page, in minutes.

use std::path::Path;

use anyhow::Result;

use super::arena::{Arena, Scores};
use super::recipe::{Mask, Recipe, SUITES};
use crate::process::{announce, command, run as run_command};

/// Forty trials a policy.
const TRIALS: &str = "--split final --episodes 2 --actions 4";

pub(super) fn run(arena: &Arena, skillweld: &Path, dir: &Path) -> Result<()> {
    announce("four experts, each trained on one suite of tabletop tasks");
    run_command(command(skillweld).args(["sim", "tasks"]))?;

    let policies: [(&str, &str, Recipe); 4] = [
        ("naive", "task arithmetic, no masks", Recipe::naive("", "task_arithmetic", "")),
        ("ta", "MergeVLA, task arithmetic", Recipe::masked("task_arithmetic", "", &Mask::default())),
        ("emr", "MergeVLA, EMR", Recipe::masked("emr", "", &Mask::emr())),
        ("ties", "MergeVLA, TIES", Recipe::ties(&Mask::default())),
    ];
    let mut rows = Vec::new();
    for (name, title, recipe) in &policies {
        announce(&format!("{title}: merged, then rolled out in every task"));
        let scores = arena.score(name, recipe, TRIALS)?;
        rows.push((*title, scores));
    }
    announce("success in percent, Wilson's interval of 95 %");
    table(&rows);

    let merged = arena.merged("ties");
    announce("what the last merge did, as a page");
    let (report, film) = (dir.join("report.html"), dir.join("rollouts.gif"));
    run_command(command(skillweld).arg("report").arg(&merged).arg("--html").arg(&report))?;
    announce("and how it moves");
    let mut eval = command(skillweld);
    eval.args(["eval", "film"]).arg(&merged);
    for suite in SUITES {
        eval.args(["--suite", suite]);
    }
    run_command(eval.args(["--split", "final", "--episodes", "1", "--out"]).arg(&film))?;

    announce("done");
    println!("merged checkpoint  {}", merged.display());
    println!("its report         {}", report.display());
    println!("its rollouts       {}", film.display());
    println!("try: {} inspect {}", skillweld.display(), merged.display());
    Ok(())
}

fn table(rows: &[(&str, Scores)]) {
    let line = |title: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:>18}")).collect();
        println!("{title:28}{cells}");
    };
    let headings: Vec<String> = SUITES.iter().copied().chain(["all", "router"]).map(str::to_owned).collect();
    line("", &headings);
    for (title, scores) in rows {
        line(title, &scores.cells());
    }
}
