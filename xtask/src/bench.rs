//! Benches: criterion's, whole merges against mergekit, whole forwards against PyTorch, round trips against openpi,
//! methods on whole matrices against FusionBench, kernels against PyTorch on a GPU.

mod agree;
mod fusionbench;
mod inputs;
mod measure;
mod openpi;
mod peer;
mod pytorch;
mod raw_client;
mod recipes;
mod report;
mod sweep;
mod tasks;
mod torch;

use anyhow::Result;
use clap::ValueEnum;

use crate::plugins;
use crate::process::{announce, cargo, run as run_command};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure against this program instead of running the criterion benches.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// Measure a sweep of nine points against single merges.
    #[arg(long, conflicts_with = "peer")]
    sweep: bool,
    /// How often everything runs, the contestants taking turns.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Only these recipes (linear, slerp, nuslerp, karcher, model_stock, task_arithmetic, ties, dare_ties, della,
    /// breadcrumbs, sce, mergevla) or, against FusionBench, methods, without keeping the results.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the results of a partial run against mergekit, too, under this name.
    #[arg(long, value_name = "NAME", requires = "only")]
    keep: Option<String>,
    /// Passed on to criterion: a filter, --quick, …
    #[arg(last = true)]
    criterion: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// mergekit 0.1.5 on the CPU, installed with pip: whole merges.
    Mergekit,
    /// PyTorch on the CPU, installed with pip: whole forwards of a full-size policy, stage by stage; then switching and
    /// routing of four tasks.
    Pytorch,
    /// openpi's serving loop, its client installed with pip: round trips of an observation.
    Openpi,
    /// FusionBench's functions on the CPU, installed with pip: `knots`, `tsv`, `iso_c`, `iso_cts`, `wudi` over LoRA experts.
    Fusionbench,
    /// PyTorch on the GPU: every kernel of full size, eager, compiled, and in its fastest form there.
    Torch,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match args.peer {
        Some(Peer::Mergekit) => peer::run(args.rounds.max(1), &args.only, args.keep.as_deref()),
        Some(Peer::Pytorch) => pytorch::run(args.rounds.max(1)),
        Some(Peer::Openpi) => openpi::run(args.rounds.max(1)),
        Some(Peer::Fusionbench) => fusionbench::run(&args.only),
        Some(Peer::Torch) => torch::run(),
        None if args.sweep => sweep::run(args.rounds.max(1)),
        None => {
            // The benches load the plugins as a merge does: from shared libraries.
            plugins::build(true, &[])?;
            announce("criterion");
            run_command(cargo().args(["bench", "-p", "skillweld-benches", "--"]).args(&args.criterion))
        }
    }
}
