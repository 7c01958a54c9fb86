//! The papers' claims, tried on the shipped experts: merges, evaluations, tables in `docs/proof.md`.

pub(crate) mod arena;
pub(crate) mod embodiments;
mod mergevla;
mod page;
mod rate;
pub(crate) mod recipe;
mod retain;

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::process::{announce, root, target_dir};
use crate::{build, ship};
use arena::{Arena, Missing};
use page::Section;

/// A heading and what makes the section below it.
type Chapter = (&'static str, fn(&Arena) -> Result<Section>);

/// In the order of the page.
const CHAPTERS: &[Chapter] = &[
    ("Experts and merges", mergevla::merges),
    ("Naive merges", mergevla::naive),
    ("What masks keep: λ", mergevla::lambdas),
    ("Depth of the expert head", mergevla::heads),
    ("Number of tasks", mergevla::counts),
    ("What the router compares", mergevla::router),
    ("Which expert the router runs", mergevla::confusion),
    ("Actions of a chunk", mergevla::actions),
    ("Perturbations", mergevla::perturbations),
    ("Arms of different shapes", embodiments::embodiments),
    ("RETAIN: how far to go", retain::alphas),
    ("RETAIN: part by part", retain::modalities),
    ("RETAIN: skill after skill", retain::chain),
];

pub(crate) fn run() -> Result<()> {
    let experts = ship::experts_dir();
    ensure!(
        experts.join("base").exists(),
        "{} has no policies: `cargo xtask train` trains them, `cargo xtask ship` puts them there",
        experts.display()
    );
    let arena = Arena::new(build::release()?, target_dir().join("proof"), experts)?;
    let mut page = String::from(
        "# Proof\n\nWritten by `cargo xtask proof` from the policies in [experts](../experts): every number comes out of that command.\n",
    );
    for (title, section) in CHAPTERS {
        announce(title);
        let text = match section(&arena) {
            Ok(section) => section.markdown(),
            // Said on the page, for what can be tried is worth having.
            Err(error) if error.is::<Missing>() => format!("Not tried yet: {error}.\n"),
            Err(error) => return Err(error),
        };
        println!("{text}");
        page = format!("{page}\n## {title}\n\n{text}");
    }
    let path = root().join("docs/proof.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}
