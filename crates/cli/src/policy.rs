//! What `predict`, `route` and `serve` share: opening a policy, and saying which task runs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use skillweld_gpu::Device;
use skillweld_policy::backend::Backend;
use skillweld_policy::{
    Decision, Gpu, ModelOptions, Outcome as Verdict, Policy, PolicyOptions, Precision, RopePrecision,
    Routing, Rule, StepLatency,
};

use crate::Outcome;
use crate::arguments::ThreadCount;

/// How a policy is opened.
#[derive(clap::Args)]
pub(crate) struct Opening {
    /// The pretrained model, for merged checkpoints and adapters that do not hold it.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// Whose statistics count, where a task has those of several datasets.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// What computes: the processor, or the first NVIDIA GPU (`CUDA_VISIBLE_DEVICES` picks another).
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// What weights are kept and multiplied in; sums are f32 in any case.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionName,
    /// Precision of the action expert's rotary table [default: that of the dtype it is stored in].
    #[arg(long, value_enum)]
    rope: Option<RopeName>,
    #[command(flatten)]
    threads: ThreadCount,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionName {
    F32,
    Bf16,
}

#[derive(Clone, Copy, ValueEnum)]
enum RopeName {
    /// Computed in f64 and rounded once, whatever the experts were trained with.
    Exact,
    /// Each step rounded to f16.
    F16,
    /// Each step rounded to f32, as PyTorch computes in f32.
    F32,
    /// Frequencies, positions and angles rounded to bf16, as in published bf16 checkpoints.
    Bf16,
}

/// What a command does with a policy once it is open, whatever computes it.
pub(crate) trait Job {
    /// Does it. The device is the GPU that the policy runs on, if it does.
    fn run<B: Backend + 'static>(self, policy: Policy<B>, device: Option<Device>) -> Result<Outcome>;
}

impl Opening {
    /// The pretrained model, where it is named.
    pub(crate) fn base(&self) -> Option<&Path> {
        self.base.as_deref()
    }

    /// The options besides the base that decide on actions and are not as without them, as on the command line.
    pub(crate) fn describe(&self) -> String {
        let mut said = String::new();
        let mut word = |flag: &str, value: String| said += &format!(" --{flag} {value}");
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        if let Some(dataset) = &self.dataset {
            word("dataset", dataset.clone());
        }
        if !matches!(self.device, DeviceName::Cpu) {
            word("device", name(&|| self.device.to_possible_value()));
        }
        if !matches!(self.precision, PrecisionName::F32) {
            word("precision", name(&|| self.precision.to_possible_value()));
        }
        if let Some(rope) = &self.rope {
            word("rope", name(&|| rope.to_possible_value()));
        }
        said
    }

    /// Opens a policy with `images` an observation, and `active_tasks` in memory at once, and does the job with it.
    pub(crate) fn run(
        &self,
        path: &Path,
        images: NonZeroUsize,
        active_tasks: NonZeroUsize,
        job: impl Job,
    ) -> Result<Outcome> {
        let precision = match self.precision {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Bf16 => Precision::Bf16,
        };
        let rope = self.rope.map(|rope| match rope {
            RopeName::Exact => RopePrecision::Exact,
            RopeName::F16 => RopePrecision::F16,
            RopeName::F32 => RopePrecision::F32,
            RopeName::Bf16 => RopePrecision::Bf16,
        });
        let threads = self.threads.get();
        let model = ModelOptions { base: self.base.clone(), precision, rope, threads };
        let dataset = self.dataset.clone();
        let options = PolicyOptions { model, dataset, images, active_tasks };
        match self.device {
            DeviceName::Cpu => job.run(Policy::open_with(path, &options)?, None),
            DeviceName::Cuda => {
                let device = Device::open(0)?;
                let gpu = Gpu::new(device.clone(), precision, threads)?;
                let backend = move || Ok(gpu.for_another_model());
                job.run(Policy::open_on(path, &options, backend)?, Some(device))
            }
        }
    }
}

/// How the task is chosen when no name is given.
#[derive(clap::Args)]
pub(crate) struct RuleArguments {
    /// Only these tasks may be chosen.
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    candidates: Vec<String>,
    /// Probability of the best task below which the router abstains.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_probability: f32,
    /// The task that runs when the router abstains.
    #[arg(long, value_name = "TASK")]
    fallback: Option<String>,
    /// Compare scores as they are, as the paper does, although the checkpoint has been calibrated.
    #[arg(long)]
    raw_scores: bool,
}

impl RuleArguments {
    /// The options that are not as without them, as on the command line.
    pub(crate) fn describe(&self) -> String {
        let mut said = String::new();
        if !self.candidates.is_empty() {
            said += &format!(" --candidates {}", self.candidates.join(","));
        }
        if self.min_probability != 0.0 {
            said += &format!(" --min-probability {}", self.min_probability);
        }
        if let Some(fallback) = &self.fallback {
            said += &format!(" --fallback {fallback}");
        }
        if self.raw_scores {
            said += " --raw-scores";
        }
        said
    }

    pub(crate) fn rule<B: Backend>(&self, policy: &Policy<B>) -> Result<Rule> {
        let candidates =
            self.candidates.iter().map(|name| policy.task_index(name)).collect::<Result<_, _>>()?;
        let fallback = self.fallback.as_ref().map(|name| policy.task_index(name)).transpose()?;
        let (min_probability, raw_scores) = (self.min_probability, self.raw_scores);
        let rule = Rule { candidates, min_probability, fallback, raw_scores };
        rule.tasks_to_score(policy.tasks().len())?;
        Ok(rule)
    }
}

/// The task by its name (which `flag` gives), or by the router where the checkpoint has one; several tasks without a router need a name.
pub(crate) fn routing<B: Backend>(
    policy: &Policy<B>,
    (task, flag): (Option<&str>, &str),
    rule: Rule,
) -> Result<Routing> {
    if let Some(task) = task {
        return Ok(Routing::Fixed(policy.task_index(task)?));
    }
    if policy.routes() {
        return Ok(Routing::Router { rule, every_chunks: None });
    }
    ensure!(
        policy.tasks().len() == 1,
        "this checkpoint has no router; name one of its tasks with {flag}: {}",
        policy.tasks().join(", ")
    );
    Ok(Routing::Fixed(0))
}

/// A decision for machines.
pub(crate) fn decision_json<B: Backend>(policy: &Policy<B>, decision: &Decision) -> Value {
    let name = |task: usize| policy.tasks()[task].as_str();
    let candidates: Vec<Value> = decision
        .candidates
        .iter()
        .map(|c| json!({"task": name(c.task), "score": c.score, "probability": c.probability}))
        .collect();
    let outcome = match decision.outcome {
        Verdict::Routed(_) => "routed",
        Verdict::FellBack(_) => "fallback",
        Verdict::Abstained => "abstained",
    };
    json!({
        "task": decision.task().map(name), "outcome": outcome, "margin": decision.margin, "candidates": candidates,
    })
}

/// Where a step's time went, by name, in milliseconds.
pub(crate) fn stages(latency: &StepLatency) -> [(&'static str, f64); 9] {
    let model = &latency.model;
    [
        ("preprocess_ms", latency.preprocess_ms),
        ("wait_ms", latency.wait_ms),
        ("switch_ms", latency.switch_ms),
        ("routing_ms", latency.routing_ms),
        ("vision_ms", model.vision_ms),
        ("projector_ms", model.projector_ms),
        ("language_ms", model.language_ms),
        ("expert_ms", model.expert_ms),
        ("total_ms", latency.total_ms),
    ]
}
