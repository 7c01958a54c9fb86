//! `skillweld sim`: tabletop tasks on the simulated arm.

mod demos;
mod scenes;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use skillweld_suites::{Embodiment, Suite, Task};

use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, print_json, table};

/// Tabletop tasks on the simulated arm: four suites of tasks given in words, and scripted demonstrations of them.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List all tasks.
    Tasks(TasksArgs),
    /// Let the scripted expert show tasks, and record it as a LeRobot dataset.
    Demos(demos::DemosArgs),
    /// Draw random scenes and say where their things are: to pretrain vision and language on.
    Scenes(scenes::ScenesArgs),
}

#[derive(clap::Args)]
struct TasksArgs {
    /// Only those of one suite.
    #[arg(long)]
    suite: Option<SuiteName>,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteName {
    /// Which of five identical cubes.
    Spatial,
    /// Which of five different things.
    Object,
    /// What to do in one scene.
    Goal,
    /// Two things to do.
    Long,
}

impl SuiteName {
    pub(crate) fn suite(self) -> Suite {
        match self {
            Self::Spatial => Suite::Spatial,
            Self::Object => Suite::Object,
            Self::Goal => Suite::Goal,
            Self::Long => Suite::Long,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmbodimentName {
    /// As it is.
    So101,
    /// Longer links, the camera on the other side.
    Long,
    /// Two fingers that slide.
    Parallel,
}

impl EmbodimentName {
    pub(crate) fn embodiment(self) -> Embodiment {
        match self {
            Self::So101 => Embodiment::So101,
            Self::Long => Embodiment::Long,
            Self::Parallel => Embodiment::Parallel,
        }
    }
}

pub(crate) fn run(args: &Args, console: Console) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Tasks(args) => tasks(args, console),
        Command::Demos(args) => demos::run(args, console),
        Command::Scenes(args) => scenes::run(args, console),
    }
}

fn tasks(args: &TasksArgs, console: Console) -> anyhow::Result<Outcome> {
    let suites = Suite::ALL.into_iter().filter(|suite| args.suite.is_none_or(|name| name.suite() == *suite));
    let tasks: Vec<&Task> = suites.flat_map(Suite::tasks).collect();
    if args.json {
        let tasks = tasks.iter().map(|task| {
            json!({
                "suite": task.suite.name(), "id": task.id, "instruction": task.instruction,
                "rephrased": task.rephrased, "step_limit": task.step_limit,
            })
        });
        print_json(&tasks.collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    let mut rows = table(["suite", "task", "instruction", "steps at most"]);
    for task in tasks {
        rows.add_row([
            cell(Tone::Plain, task.suite.name()),
            cell(Tone::Name, task.id),
            cell(Tone::Plain, task.instruction),
            number(task.step_limit),
        ]);
    }
    page.table(rows);
    page.print()?;
    Ok(Outcome::Done)
}
