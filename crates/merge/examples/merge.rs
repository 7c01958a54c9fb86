//! The whole library in one page: a recipe goes in, a merged checkpoint comes out.
//!
//! `cargo run --release -p skillweld-merge --example merge -- recipe.yaml OUT`

use std::path::Path;

use skillweld_linalg::Threads;
use skillweld_merge::recipe::Recipe;
use skillweld_merge::{Control, MergeError, Models, Plan, RunOptions};
use skillweld_plugin_host::Registry;

fn main() -> Result<(), MergeError> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, recipe, out] = &arguments[..] else { return Ok(()) };
    let recipe = Recipe::read(Path::new(recipe))?;
    let models = Models::open(&recipe)?;
    let registry = Registry::discover(&[])?;
    let control = Control { threads: Threads::available(), ..Control::SILENT };
    let plan = Plan::new(&recipe, &models, &registry, &control)?;
    plan.run(Path::new(out), RunOptions { force: true, ..RunOptions::default() }, &control)?;
    Ok(())
}
