//! `skillweld predict`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use ndarray::{Array2, ArrayView, Dimension};
use serde_json::json;
use skillweld_gpu::Device;
use skillweld_policy::backend::{Backend, Matrix};
use skillweld_policy::{Observation, Policy, Session, Step};
use skillweld_tensor::{Dtype, convert};

use crate::Outcome;
use crate::console::{Console, Page, Tone, number, print_json, table};
use crate::observation_file;
use crate::policy::{Job, Opening, RuleArguments, decision_json, routing, stages};
use crate::tensor_file::{self, Tensor};

const EXAMPLES: &str = "\
Examples:
  skillweld predict merged --inputs observation.safetensors --output actions.safetensors
  skillweld predict merged --inputs observation.safetensors --output actions.safetensors --task goal --json
  skillweld predict expert --inputs prepared.safetensors --output everything.safetensors --dump

IN holds either what a robot gives: image_0, image_1, … (U8, height × width × 3), state, and in the file's metadata
`prompt`; or what the model takes: pixel_values, input_ids, proprio (normalised).
OUT holds actions (in the robot's units) and normalized_actions, chunk × action dimension; with --dump also
pixel_values, vision_features, projected and hidden.";

/// One observation in, one chunk of actions out.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A merged checkpoint, or a single expert as training leaves it.
    policy: PathBuf,
    /// The observation.
    #[arg(long, value_name = "IN.safetensors")]
    inputs: PathBuf,
    /// The safetensors file to write.
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// The task [default: the router's choice].
    #[arg(long, value_name = "T", conflicts_with_all = ["candidates", "min_probability", "fallback", "raw_scores"])]
    task: Option<String>,
    #[command(flatten)]
    rule: RuleArguments,
    /// Images of an observation that the experts were trained with; another number is refused.
    #[arg(long, value_name = "N", default_value = "2")]
    images: NonZeroUsize,
    /// Also write what the model saw on the way.
    #[arg(long)]
    dump: bool,
    /// Replace OUT if it is there.
    #[arg(long)]
    force: bool,
    /// Run so many times and report the median latency of the runs after the first.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    repeat: NonZeroUsize,
    #[command(flatten)]
    opening: Opening,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    tensor_file::check(&args.output, args.force)?;
    let observation = observation_file::read(&args.inputs)?;
    let job = Predict { args, observation, console };
    args.opening.run(&args.policy, args.images, NonZeroUsize::MIN, job)
}

struct Predict<'a> {
    args: &'a Args,
    observation: Observation,
    console: Console,
}

impl Job for Predict<'_> {
    fn run<B: Backend + 'static>(self, policy: Policy<B>, _device: Option<Device>) -> Result<Outcome> {
        let Self { args, observation, console } = self;
        let rule = args.rule.rule(&policy)?;
        let mut session = policy.session_with(routing(&policy, (args.task.as_deref(), "--task"), rule)?);
        let (step, latency) = step(&mut session, &observation, args.repeat)?;
        write(args, &step)?;
        if args.json {
            print_json(&json!({
                "output": args.output,
                "task": policy.tasks()[step.task],
                "reason": step.reason.name(),
                "routing": step.decision.as_ref().map(|decision| decision_json(&policy, decision)),
                "actions": rows(&step.actions),
                "normalized_actions": rows(&step.normalized_actions),
                "peak_bytes": peak_bytes(),
                "latency": latency.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
            }))?;
            return Ok(Outcome::Done);
        }
        page(&policy, &step, &latency, args, console).print()?;
        Ok(Outcome::Done)
    }
}

fn rows(matrix: &Array2<f32>) -> Vec<Vec<f32>> {
    matrix.rows().into_iter().map(|row| row.to_vec()).collect()
}

/// The most memory that this process has had resident, pages of mapped files included; none where nobody says it.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// A step, and milliseconds of each stage.
type Timed<M> = (Step<M>, Vec<(&'static str, f64)>);

/// The last of `repeat` steps, and the median of each stage over all but the first (or of the only one).
fn step<B: Backend>(
    session: &mut Session<&Policy<B>, B>,
    observation: &Observation,
    repeat: NonZeroUsize,
) -> Result<Timed<B::Matrix>> {
    let mut last = session.step(observation)?;
    let mut runs = vec![stages(&last.latency)];
    for _ in 1..repeat.get() {
        session.reset();
        last = session.step(observation)?;
        runs.push(stages(&last.latency));
    }
    let counted = if runs.len() > 1 { &runs[1..] } else { &runs[..] };
    let median = |stage: usize| {
        let mut values: Vec<f64> = counted.iter().map(|run| run[stage].1).collect();
        values.sort_by(f64::total_cmp);
        (runs[0][stage].0, values[values.len() / 2])
    };
    let medians = (0..runs[0].len()).map(median).collect();
    Ok((last, medians))
}

fn write<M: Matrix>(args: &Args, step: &Step<M>) -> Result<()> {
    let mut tensors = vec![
        named("actions", &step.actions.view())?,
        named("normalized_actions", &step.normalized_actions.view())?,
    ];
    if args.dump {
        // A batch of one, as the published code has it.
        let batch = |name, matrix: Array2<f32>| named(name, &matrix.insert_axis(ndarray::Axis(0)).view());
        let perception = &step.perception;
        tensors.push(named("pixel_values", &step.pixel_values.view().insert_axis(ndarray::Axis(0)))?);
        tensors.push(batch("vision_features", perception.vision_features.to_host()?)?);
        tensors.push(batch("projected", perception.projected.to_host()?)?);
        tensors.push(named("hidden", &perception.hidden_to_host()?.insert_axis(ndarray::Axis(0)).view())?);
    }
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, bytes)| Tensor { name, dtype: Dtype::F32, shape, bytes }).collect();
    tensor_file::write(&args.output, &tensors, args.force)
}

/// A tensor's name, shape and f32 bytes.
fn named<D: Dimension>(
    name: &'static str,
    values: &ArrayView<'_, f32, D>,
) -> Result<(&'static str, Vec<usize>, Vec<u8>)> {
    let flat: Vec<f32> = values.iter().copied().collect();
    let mut bytes = vec![0; flat.len() * size_of::<f32>()];
    convert::encode(Dtype::F32, &flat, &mut bytes)?;
    Ok((name, values.shape().to_vec(), bytes))
}

fn page<B: Backend>(
    policy: &Policy<B>,
    step: &Step<B::Matrix>,
    latency: &[(&str, f64)],
    args: &Args,
    console: Console,
) -> Page {
    let mut page = Page::new(console);
    let task = &policy.tasks()[step.task];
    page.heading("Task", page.paint(Tone::Name, task));
    if let Some(decision) = &step.decision {
        crate::route::candidates(&mut page, policy, decision);
    }
    let (chunk, dimensions) = step.actions.dim();
    page.heading("Actions", format!("{chunk} × {dimensions}, in the robot's units"));
    let mut rows = table([]);
    for action in step.actions.rows() {
        rows.add_row(action.iter().map(|value| number(format!("{value:.4}"))));
    }
    page.table(rows);
    page.heading("Latency", "");
    page.facts(latency.iter().map(|(name, ms)| (name.trim_end_matches("_ms"), format!("{ms:.1} ms"))));
    page.line("");
    page.line(format!("written into {}", args.output.display()));
    page
}
