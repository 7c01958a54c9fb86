//! What stands on the command line.

use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ColorChoice, CommandFactory, Parser, Subcommand, ValueEnum};
use skillweld_gpu::{Device, GpuError};
use skillweld_linalg::Threads;

use crate::{
    calibrate_router, completions, dataset, diff, drive, eval, export, extract_lora, inspect, materialize,
    merge, plugins, predict, preprocess, record, replay, report, retain, robot, route, serve, sim, sweep,
};

const EXAMPLES: &str = "\
Examples:
  skillweld merge recipe.yaml merged --dry-run   what would happen
  skillweld merge recipe.yaml merged             merge
  skillweld retain --base pretrained --finetuned skill --alpha 0.8 retained
                                                 a fine-tune that keeps what the policy could
  skillweld sweep recipe.yaml --set mask.lambda=0.4:0.8:0.1 --eval 'python evaluate.py {checkpoint}' --out sweep
                                                 the best of many merges
  skillweld inspect merged                       what is in a checkpoint
  skillweld materialize merged --task goal out   one task, as a plain checkpoint
  skillweld report merged --html report.html     what a merge did, as a page
  skillweld diff base finetuned                  two checkpoints, key by key
  skillweld extract-lora base finetuned adapter --rank 64
                                                 a fine-tune as a PEFT adapter
  skillweld export merged --format mergevla out  for the published MergeVLA code
  skillweld predict merged --inputs observation.safetensors --output actions.safetensors
                                                 actions for one observation
  skillweld route merged --inputs observation.safetensors
                                                 which task it belongs to
  skillweld calibrate-router merged --task goal=data/goal --task spatial=data/spatial
                                                 routing by what is usual for each task
  skillweld serve merged                         answer robots on ws://127.0.0.1:8000
  skillweld drive --policy merged --task 'put the red cube on the tray' --view
                                                 a simulated arm; --robot so101 --port PORT for a real one
  skillweld robot calibrate --follower --port PORT --id my_arm
                                                 set up an SO-101
  skillweld record data/cube --task '…' --robot so101 --port PORT --leader-port PORT
                                                 demonstrations, as a LeRobot dataset
  skillweld dataset inspect data/cube            what is in it, and whether it is whole
  skillweld sim demos data/goal --suite goal --episodes 50
                                                 scripted demonstrations of tabletop tasks
  skillweld eval run merged --suite goal --out results
                                                 how often a policy does them
  skillweld preprocess camera.png --output camera.safetensors
                                                 an image as the model sees it
  skillweld plugins list                         the merge methods at hand

Exit codes: 0 done; 1 failed, or something was refused; 2 wrong usage;
130 interrupted. Of diff: 0 equal; 1 different; 2 failed, or wrong usage.";

/// Merge expert checkpoints of one base model into one policy, and let it move an arm.
#[derive(Parser)]
#[command(name = "skillweld", version, after_help = EXAMPLES, max_term_width = 110, styles = STYLES)]
pub(crate) struct Arguments {
    /// When to use colour; NO_COLOR in the environment also turns it off.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// `--threads`, the same for every command that computes.
#[derive(clap::Args)]
pub(crate) struct ThreadCount {
    /// Threads to work with [default: one for every core]. The result does not depend on it.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl ThreadCount {
    pub(crate) fn get(&self) -> Threads {
        self.threads.map_or_else(Threads::available, Threads::new)
    }

    /// As given, for another machine.
    pub(crate) fn asked(&self) -> Option<usize> {
        self.threads.map(NonZeroUsize::get)
    }
}

/// `--device`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Processor {
    /// The processor
    #[default]
    Cpu,
    /// The first NVIDIA GPU, for all that there is code for it
    Cuda,
}

impl Processor {
    /// Begins to open the GPU, if it is asked for: a driver takes some tenths of a second.
    pub(crate) fn open(self) -> OpeningDevice {
        OpeningDevice(match self {
            Self::Cpu => None,
            Self::Cuda => Some(std::thread::spawn(|| Device::open(0))),
        })
    }
}

/// A GPU that is being opened, if one was asked for.
pub(crate) struct OpeningDevice(Option<JoinHandle<Result<Device, GpuError>>>);

impl OpeningDevice {
    /// The GPU.
    ///
    /// # Errors
    /// One sentence: why there is none.
    pub(crate) fn wait(self) -> Result<Option<Device>, GpuError> {
        let Some(opening) = self.0 else { return Ok(None) };
        let reason = "the driver's library gave up".to_owned();
        opening.join().unwrap_or(Err(GpuError::Unavailable { reason })).map(Some)
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Merge(merge::Args),
    Retain(Box<retain::Args>),
    Sweep(sweep::Args),
    Inspect(inspect::Args),
    Materialize(materialize::Args),
    Report(report::Args),
    Diff(diff::Args),
    ExtractLora(extract_lora::Args),
    Export(export::Args),
    Predict(predict::Args),
    Route(route::Args),
    CalibrateRouter(calibrate_router::Args),
    Serve(serve::Args),
    Drive(Box<drive::Args>),
    Robot(robot::Args),
    Record(Box<record::Args>),
    Replay(Box<replay::Args>),
    Dataset(dataset::Args),
    Sim(sim::Args),
    Eval(eval::Args),
    Preprocess(preprocess::Args),
    #[command(subcommand)]
    Plugins(plugins::Command),
    Completions(completions::Args),
}

impl Command {
    /// What the process exits with when the command fails. Whoever compares has to tell that from a difference.
    pub(crate) const fn exit_code_of_failures(&self) -> u8 {
        match self {
            Self::Diff(_) => 2,
            _ => 1,
        }
    }
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The parser; `color` decides about its own help and errors.
pub(crate) fn command(color: ColorChoice) -> clap::Command {
    Arguments::command().color(color)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command(clap::ColorChoice::Auto).debug_assert();
    }
}
