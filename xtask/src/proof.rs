//! The papers' claims, tried on the shipped experts: merges, evaluations, tables in `docs/proof.md`.

pub(crate) mod arena;
mod chart;
mod choice;
mod conditions;
pub(crate) mod embodiments;
mod mergevla;
mod page;
pub(crate) mod recipe;
mod retain;
mod routing;

use anyhow::{Result, ensure};

use crate::process::{announce, root, target_dir};
use crate::{build, ship};
use arena::{Arena, Missing};
use page::{Page, Section};

/// A heading and what makes the section below it.
type Chapter = (&'static str, fn(&Arena) -> Result<Section>);

/// In the order of the page.
const CHAPTERS: &[Chapter] = &[
    ("Experts and merges", mergevla::merges),
    ("What each choice is worth", mergevla::steps),
    ("Naive merges", mergevla::naive),
    ("What masks keep: λ", mergevla::lambdas),
    ("Depth of the expert head", mergevla::heads),
    ("Number of tasks", mergevla::counts),
    ("What the router compares", routing::router),
    ("Which expert the router runs", routing::confusion),
    ("Actions of a chunk", conditions::actions),
    ("Perturbations", conditions::perturbations),
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
    let (mut page, docs) = (Page::default(), root().join("docs"));
    for (title, chapter) in CHAPTERS {
        announce(title);
        let section = match chapter(&arena) {
            Ok(section) => section,
            // Said on the page, for what can be tried is worth having.
            Err(error) if error.is::<Missing>() => {
                Section { text: format!("Not tried yet: {error}."), ..Section::default() }
            }
            Err(error) => return Err(error),
        };
        println!("{}", section.markdown());
        page.add(title, section);
        // Whatever happens to the next.
        page.write(&docs)?;
    }
    Ok(())
}
