//! `skillweld eval`: how often a policy succeeds in the tabletop suites.

mod arguments;
mod film;
mod identity;
mod policies;
mod run;
mod show;

use std::path::PathBuf;

use clap::Subcommand;
use skillweld_eval::Results;

use crate::Outcome;
use crate::console::Console;

/// Try policies on tabletop tasks of the simulated arm, and compare them.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Roll a policy out, and keep what came of every trial.
    Run(Box<arguments::RunArgs>),
    /// Roll a policy out and make a film or a contact sheet of it.
    Film(Box<film::FilmArgs>),
    /// Show results that are there.
    Show(ShowArgs),
    /// Compare two policies on the trials that both have.
    Compare(CompareArgs),
}

#[derive(clap::Args)]
struct ShowArgs {
    /// A folder that `eval run` made.
    results: PathBuf,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct CompareArgs {
    /// Results of one policy.
    first: PathBuf,
    /// Results of the other.
    second: PathBuf,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Run(args) => run::run(args, console),
        Command::Film(args) => film::run(args, console),
        Command::Show(args) => {
            let (of, all) = Results::read(&args.results)?;
            show::results(&of, &all, &args.results, args.json, console)
        }
        Command::Compare(args) => {
            let both = (Results::read(&args.first)?, Results::read(&args.second)?);
            show::comparison(&both, args.json, console)
        }
    }
}
