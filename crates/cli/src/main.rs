//! The program `skillweld`: expert checkpoints in, one merged checkpoint out. One file a command; this crate alone
//! prints, and knows nothing of how merging works.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "talking to people is what this crate is for")]

mod arguments;
mod arm;
mod calibrate_router;
mod completions;
mod console;
mod dataset;
mod diff;
mod drive;
mod eval;
mod export;
mod extract_lora;
mod failure;
mod figures;
mod inspect;
mod interrupt;
mod keys;
mod materialize;
mod merge;
mod observation_file;
mod output_file;
mod plugins;
mod policy;
mod predict;
mod preprocess;
mod progress;
mod record;
mod replay;
mod report;
mod retain;
mod robot;
mod route;
mod serve;
mod sim;
mod sweep;
mod tensor_file;

use std::process::ExitCode;

use clap::FromArgMatches;

use arguments::{Arguments, Command};
use console::Console;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As wished.
    Done,
    /// It did its work and found something that must not be: a refused tensor, a broken law, a difference.
    Bad,
}

fn main() -> ExitCode {
    let matches = arguments::command(console::colour_asked_for()).get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let console = Console::new(arguments.color);
    match run(&arguments.command, console) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Err(error) => failure::report(&error, console, arguments.command.exit_code_of_failures()),
    }
}

fn run(command: &Command, console: Console) -> anyhow::Result<Outcome> {
    match command {
        Command::Merge(args) => merge::run(args, console),
        Command::Retain(args) => retain::run(args, console),
        Command::Sweep(args) => sweep::run(args, console),
        Command::Inspect(args) => inspect::run(args, console),
        Command::Materialize(args) => materialize::run(args, console),
        Command::Report(args) => report::run(args, console),
        Command::Diff(args) => diff::run(args, console),
        Command::Preprocess(args) => preprocess::run(args, console),
        Command::ExtractLora(args) => extract_lora::run(args, console),
        Command::Export(args) => export::run(args, console),
        Command::Predict(args) => predict::run(args, console),
        Command::CalibrateRouter(args) => calibrate_router::run(args, console),
        Command::Route(args) => route::run(args, console),
        Command::Serve(args) => serve::run(args, console),
        Command::Drive(args) => drive::run(args, console),
        Command::Robot(args) => robot::run(args, console),
        Command::Record(args) => record::run(args, console),
        Command::Replay(args) => replay::run(args, console),
        Command::Dataset(args) => dataset::run(args, console),
        Command::Sim(args) => sim::run(args, console),
        Command::Eval(args) => eval::run(args, console),
        Command::Plugins(command) => plugins::run(command, console),
        Command::Completions(args) => completions::run(args),
    }
}
