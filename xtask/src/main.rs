//! Everything that is done to this workspace, one command each. `cargo xtask --help` lists them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool that says what it does")]

mod bench;
mod build;
mod check;
mod demo;
mod dist;
mod docs;
mod doctor;
mod kernels;
mod packages;
mod plugins;
mod process;
mod proof;
mod python;
mod random_experts;
mod ray;
mod setup;
mod ship;
mod test;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test, demonstrate and measure Skillweld. Every command installs or builds what it needs and prints what it
/// runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what optional parts need: OpenBLAS for the `lapack` feature, mergekit for the peer bench, what the Python
    /// examples are tested in, the browser that pages are tested in.
    Setup(setup::Args),
    /// Build the release binary and all plugins into target/release.
    Build,
    /// Build only the plugins, Rust and C, beside where the binary goes.
    Plugins(plugins::Args),
    /// Compile the CUDA kernels whose sources have changed, with nvcc from pip; needs no GPU.
    Kernels(kernels::Args),
    /// Run every test, plugins built first: the crates', with OpenBLAS there those of the LAPACK backend, the Python examples'.
    Test,
    /// Merge the four trained experts in experts/, route, roll out in simulation, and look at the result; then move an arm.
    Demo,
    /// Train small experts for the tabletop suites, stage by stage: hours on two cores.
    Train(train::Args),
    /// Put trained policies into experts/, each with a card that says how it was made and how it scores.
    Ship(ship::Args),
    /// Merge, route and roll out the policies in experts/ and write docs/proof.md; an hour on two cores, goes on where it was stopped.
    Proof,
    /// Check the rules of this workspace: direction of dependencies, layout, documents.
    Check(check::Args),
    /// Write the pages about methods, docs/methods, from what the plugins say of themselves.
    Docs(docs::Args),
    /// Run the criterion benches, or measure against a peer.
    Bench(bench::Args),
    /// Lay out what runs on another machine: binary, plugins, and for a GPU its tests and benches.
    Dist(dist::Args),
    /// Say what this machine offers: toolchain, instruction sets, libraries, disk, plugins.
    Doctor,
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(args) => setup::run(args),
        Command::Build => build::run(),
        Command::Plugins(args) => plugins::run(args),
        Command::Kernels(args) => kernels::run(args),
        Command::Test => test::run(),
        Command::Demo => demo::run(),
        Command::Train(args) => train::run(args),
        Command::Ship(args) => ship::run(args),
        Command::Proof => proof::run(),
        Command::Check(args) => check::run(args),
        Command::Docs(args) => docs::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Dist(args) => dist::run(args),
        Command::Doctor => doctor::run(),
    }
}
