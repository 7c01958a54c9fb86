//! Experts of random weights in the form that training leaves them: small, of every form, for tests and for a robot that no
//! trained expert is for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skillweld_synth::{Embodiment, ExpertForm, PrismaticSpec, Written};

/// One expert with whole weights among adapters: any mix merges.
pub(crate) const FORMS: [ExpertForm; 4] =
    [ExpertForm::Adapter, ExpertForm::Full, ExpertForm::Adapter, ExpertForm::Adapter];

/// Relative paths start at the recipe's folder.
pub(crate) const RECIPE: &str = "\
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

/// Two experts for an SO-101 and their recipe.
pub(crate) fn write_so101(dir: &Path) -> Result<PathBuf> {
    let spec = PrismaticSpec { embodiment: Embodiment::So101, ..PrismaticSpec::tiny() };
    spec.write_all(dir, &FORMS[..2])
        .with_context(|| format!("cannot write experts into {}", dir.display()))?;
    let recipe = dir.join("recipe.yaml");
    let two: Vec<&str> =
        RECIPE.lines().filter(|line| !line.contains("name: goal") && !line.contains("name: long")).collect();
    fs::write(&recipe, two.join("\n"))?;
    Ok(recipe)
}
