//! Puts trained policies into `experts/`, each with a card: what it is, the commands that made it, how it scores.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::process::{announce, root, target_dir};
use crate::proof::arena::{Arena, is_adapter};
use crate::train::{self, Stage};

/// What training leaves that is only for going on with it, and where on this machine a policy was made from.
const NOT_SHIPPED: [&str; 2] = ["training.", "skillweld_retain.json"];
/// What all others begin from.
const BASE: &str = "base";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Trained policies, by the names of their stages [default: all that are done].
    policies: Vec<String>,
}

pub(crate) fn experts_dir() -> PathBuf {
    root().join("experts")
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let arena = Arena::new(build::release()?, target_dir().join("ship"), experts_dir())?;
    let trained = target_dir().join("train");
    let asked: Vec<&'static Stage> = match args.policies.is_empty() {
        true => train::policies().filter(|stage| stage.is_done(&trained)).collect(),
        false => args.policies.iter().map(|name| train::named(name)).collect::<Result<_>>()?,
    };
    for stage in asked {
        ensure!(
            stage.is_done(&trained),
            "{} is not trained as it is described now; `cargo xtask train {}` does it",
            stage.name,
            stage.name
        );
        let what = stage
            .what
            .with_context(|| format!("{} is a step on the way, which is not shipped", stage.name))?;
        announce(&stage.name);
        let from = trained.join(&stage.name);
        let card = card(stage, what, &from, &arena)?;
        // Whole, or not at all.
        let (folder, pending) =
            (experts_dir().join(&stage.name), experts_dir().join(format!(".{}", stage.name)));
        copy(&from, &pending)?;
        if stage.name != BASE {
            link_to_base(&pending)?;
        }
        fs::write(pending.join("README.md"), card)
            .with_context(|| format!("cannot write into {}", pending.display()))?;
        clear(&folder)?;
        fs::rename(&pending, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(())
}

fn clear(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display())),
        false => Ok(()),
    }
}

/// A folder's files, in place of what was there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    clear(to)?;
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else if !NOT_SHIPPED.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Puts links in place of files that the base has, too.
fn link_to_base(policy: &Path) -> Result<()> {
    let base = experts_dir().join(BASE);
    for entry in fs::read_dir(policy).with_context(|| format!("cannot read {}", policy.display()))? {
        let file = entry?.path();
        let name = file.file_name().context("a file without a name")?;
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let twin = base.join(name);
        if !file.is_file() || !twin.is_file() || read(&file)? != read(&twin)? {
            continue;
        }
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        std::os::unix::fs::symlink(Path::new("../base").join(name), &file)
            .with_context(|| format!("cannot make {}", file.display()))?;
    }
    Ok(())
}

fn card(stage: &'static Stage, what: &str, folder: &Path, arena: &Arena) -> Result<String> {
    let mut card = format!("# {}\n\n{}.\n\n## How it was made\n\n```sh\n", stage.name, what);
    for stage in train::before(stage)? {
        writeln!(card, "{}", stage.line())?;
    }
    write!(card, "```\n\n`cargo xtask train {}` does it.", stage.name)?;
    let curves = folder.join("curves.csv");
    // What only begins has none, and what `retain` makes has its base's.
    if stage.trains() && curves.exists() {
        let curves =
            fs::read_to_string(&curves).with_context(|| format!("cannot read {}", curves.display()))?;
        write!(card, " Where training ended:\n\n{}", last_losses(&curves)?)?;
    } else {
        card.push('\n');
    }
    if !stage.trials.is_empty() {
        card += &scores(stage, folder, arena)?;
    }
    Ok(card)
}

/// Headings and last row of a CSV file, as a table.
fn last_losses(curves: &str) -> Result<String> {
    let row = |line: &str| format!("| {} |\n", line.trim().replace(',', " | "));
    let mut lines = curves.lines();
    let (headings, last) = (lines.next(), lines.next_back());
    let (headings, last) = headings.zip(last).context("curves without a row")?;
    let rule = format!("|{}\n", "---|".repeat(headings.split(',').count()));
    Ok(row(headings) + &rule + &row(last))
}

/// Rolls the policy out. Not on the final split, which `cargo xtask proof` reports once: who trains looks at this.
fn scores(stage: &Stage, folder: &Path, arena: &Arena) -> Result<String> {
    let words = format!("{} --split selection --episodes 20 --actions 4", stage.trials);
    let trained = target_dir().join("train");
    let base = stage.base().unwrap_or(BASE);
    let found = arena.evaluate_on(&stage.name, (folder, &trained.join(base)), &words)?;
    let base = match is_adapter(folder) {
        // Steps on the way are not shipped.
        true if train::policies().any(|policy| policy.name == base) => format!(" --base experts/{base}"),
        true => format!(" --base {base}"),
        false => String::new(),
    };
    let mut text = format!(
        "\n## How it scores\n\nSuccess in percent with Wilson's interval of 95 %, on layouts of the selection split, by which training was \
         steered; [proof](../../docs/proof.md) has those of the final one:\n\n```sh\nskillweld eval run experts/{}{base} {words} --out results\n```\n\n\
         | | success |\n|---|---|\n",
        stage.name
    );
    for (name, rate) in &found.groups {
        writeln!(text, "| {name} | {rate} |")?;
    }
    Ok(text)
}
