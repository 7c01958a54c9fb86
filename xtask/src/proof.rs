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
use arena::Arena;
use page::Section;

/// In the order of the page.
const SECTIONS: &[fn(&Arena) -> Result<Section>] = &[
    mergevla::merges,
    mergevla::lambdas,
    mergevla::heads,
    mergevla::counts,
    mergevla::router,
    mergevla::confusion,
    mergevla::actions,
    mergevla::perturbations,
    embodiments::embodiments,
    retain::alphas,
    retain::modalities,
    retain::chain,
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
    for section in SECTIONS {
        let section = section(&arena)?;
        announce(section.title);
        let text = section.markdown();
        println!("{text}");
        page = format!("{page}\n{text}");
    }
    let path = root().join("docs/proof.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}
