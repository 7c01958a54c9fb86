//! Whole merges on a GPU: every byte of the output is the CPU's, `skillweld.json` included. Small ones run on the emulation
//! too. Without a GPU the others show as ignored, with the reason; `SKILLWELD_REQUIRE_GPU=1` makes that a failure.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use skillweld_gpu::{Device, Fork};
use skillweld_kernels::Emulators;
use skillweld_merge::recipe::Recipe;
use skillweld_merge::{DeviceReport, Models, Plan, RunOptions};
use skillweld_plugin_host::Registry;
use skillweld_synth::{ExpertForm, LanguageModel, Qwen2Spec};
use skillweld_tensor::Dtype;
use support::{control, files};

/// A merge: its name, the recipe without models, and how base and experts are stored.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    recipe: &'static str,
    dtype: Dtype,
}

const CASES: [Case; 4] = [
    Case {
        name: "task_arithmetic with tall masks",
        recipe: "merge_method: task_arithmetic\nmask: {method: tall, lambda: 0.6}\nbase_model: base\n",
        dtype: Dtype::BF16,
    },
    Case {
        name: "task_arithmetic, weighed and normalised, from f16 to f32",
        recipe: "merge_method: task_arithmetic\nbase_model: base\nout_dtype: float32\n\
                 parameters: {normalize: true, lambda: 0.3, weight: [{filter: mlp, value: 0.7}, {value: 1.1}]}\n",
        dtype: Dtype::F16,
    },
    Case { name: "linear", recipe: "merge_method: linear\nout_dtype: bfloat16\n", dtype: Dtype::F32 },
    Case {
        name: "ties, which the GPU has no code for",
        recipe: "merge_method: ties\nparameters: {density: 0.5}\nmask: tall\nbase_model: base\n",
        dtype: Dtype::BF16,
    },
];

/// Two layers of so many columns.
fn language_model(hidden: usize, vocab: usize) -> LanguageModel {
    LanguageModel { hidden, intermediate: 3 * hidden, layers: 2, heads: 4, kv_heads: 2, vocab, tied: true }
}

/// Merges on the CPU and on `fork`, and compares every file.
fn same_bytes<F: Fork>(fork: &F, case: &Case, model: LanguageModel) -> Result<DeviceReport, Failed> {
    let dir = tempfile::tempdir()?;
    let spec = Qwen2Spec { model, dtype: case.dtype, shards: 2, rank: 4, seed: 7 };
    spec.write_all(dir.path(), &[ExpertForm::Full, ExpertForm::Full, ExpertForm::Full])?;
    let recipe = dir.path().join("recipe.yaml");
    let models = "models: [{model: expert0}, {model: expert1}, {model: expert2}]\n";
    std::fs::write(&recipe, format!("{}{models}", case.recipe))?;
    let [cpu, gpu] = ["cpu", "gpu"].map(|name| dir.path().join(name));
    merge::<Device>(&recipe, &cpu, 2, None)?;
    // More threads than slabs at times, so that all kinds of overlap come up.
    let report = merge(&recipe, &gpu, 6, Some(fork))?.ok_or("the report says nothing of the GPU")?;
    let (cpu, gpu) = (files(&cpu), files(&gpu));
    if !cpu.keys().eq(gpu.keys()) {
        return Err(format!("{:?} instead of {:?}", gpu.keys(), cpu.keys()).into());
    }
    match cpu.iter().find(|(path, bytes)| gpu[*path] != **bytes) {
        Some((path, _)) => Err(format!("{} differs", path.display()).into()),
        None if report.again > 0 => Err(format!("the CPU had to help: {report:?}").into()),
        None => Ok(report),
    }
}

fn merge<F: Fork>(
    recipe: &Path,
    out: &Path,
    threads: usize,
    fork: Option<&F>,
) -> Result<Option<DeviceReport>, Failed> {
    let recipe = Recipe::read(recipe)?;
    let models = Models::open(&recipe)?;
    let registry = Registry::discover(&[])?;
    let plan = Plan::new(&recipe, &models, &registry, &control(threads))?;
    let (options, control) = (RunOptions::default(), control(threads));
    let report = match fork {
        Some(fork) => plan.run_on(out, options, &control, fork)?,
        None => plan.run(out, options, &control)?,
    };
    Ok(report.device)
}

fn expect(report: DeviceReport, on_device: bool) -> Result<(), Failed> {
    if on_device == (report.on_device > 0) { Ok(()) } else { Err(format!("{report:?}").into()) }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let device = Device::open(0);
    if device.is_ok() {
        arguments.test_threads = Some(1);
    }
    let required = std::env::var_os("SKILLWELD_REQUIRE_GPU").is_some_and(|value| value == "1");
    let mut trials = Vec::new();
    for case in CASES {
        let on_device = !case.name.starts_with("ties");
        let small = move || same_bytes(&Emulators::default(), &case, language_model(64, 1100));
        let emulated = format!("{}: the CPU's bytes, emulated", case.name);
        trials.push(Trial::test(emulated, move || expect(small()?, on_device)));
        let name = format!("{}: the CPU's bytes", case.name);
        trials.push(match &device {
            Ok(device) => {
                let device = device.clone();
                // Its embedding is several slabs long, and no whole number of them.
                let model = language_model(512, 7001);
                Trial::test(name, move || expect(same_bytes(&device, &case, model)?, on_device))
            }
            Err(error) if required => {
                let reason = error.to_string();
                Trial::test(name, move || Err(reason.into()))
            }
            Err(error) => Trial::test(name, || Ok(())).with_ignored_flag(true).with_kind(error.to_string()),
        });
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
