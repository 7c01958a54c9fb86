//! What a sweep costs beside single merges, when the evaluation is free.

use std::fs;

use anyhow::Result;

use super::inputs::Inputs;
use super::measure::measure;
use super::report::Row;
use crate::build;
use crate::process::{announce, command, output, target_dir};

/// RETAIN's line between a base and its fine-tune.
const RECIPE: &str = "\
merge_method: linear
models:
  - {model: base, parameters: {weight: \"${1-alpha}\"}}
  - {model: expert0, parameters: {weight: \"${alpha}\"}}
";
const ALPHAS: &str = "alpha=0.1:0.9:0.1";
/// Single merges that nine points may cost.
const GOAL: f64 = 5.0;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let skillweld = build::release()?;
    let inputs = Inputs::prepare()?;
    let recipe = inputs.dir.join("sweep.yaml");
    fs::write(&recipe, RECIPE)?;
    let out = target_dir().join("bench-out");
    fs::create_dir_all(&out)?;
    announce("inputs into the page cache");
    let mut cat = command("cat");
    output(cat.args(["base", "expert0"].map(|model| inputs.weights(model))))?;
    announce("a single merge, and a sweep of nine points");
    let mut rows = [Row::new("sweep", "merge"), Row::new("sweep", "sweep of 9 points")];
    for _ in 0..rounds {
        for (which, row) in rows.iter_mut().enumerate() {
            let to = out.join("sweep");
            if to.exists() {
                fs::remove_dir_all(&to)?;
            }
            output(&mut command("sync"))?;
            let mut run = command(&skillweld);
            match which {
                0 => run.arg("merge").arg(&recipe).arg(&to).args(["--set", "alpha=0.5"]),
                _ => run
                    .arg("sweep")
                    .arg(&recipe)
                    .arg("--out")
                    .arg(&to)
                    .args(["--set", ALPHAS, "--eval", "echo 1"]),
            };
            row.push(measure(&mut run, &out.join("log"))?);
        }
    }
    fs::remove_dir_all(&out)?;
    for row in &rows {
        println!("  {row}");
    }
    println!(
        "  nine points cost {:.2} single merges (goal: {GOAL} at most)",
        rows[1].wall_s() / rows[0].wall_s()
    );
    Ok(())
}
