//! Whole forwards of a full-size policy, ours and PyTorch's taking turns on the same checkpoint and the same inputs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use skillweld_store::{SafetensorsWriter, TensorSpec};
use skillweld_synth::{ExpertForm, Noise, PrismaticSpec};
use skillweld_tensor::{Dtype, convert};

use super::report::Machine;
use super::tasks::Tasks;
use crate::process::{announce, command, line, output, root, target_dir};
use crate::{build, setup};

const STAGES: [&str; 5] = ["vision_ms", "projector_ms", "language_ms", "expert_ms", "total_ms"];
const DTYPES: [(&str, &str); 2] = [("f32", "float32"), ("bf16", "bfloat16")];
/// Forwards of one process; the first is not counted.
const REPEATS: usize = 4;

/// One process's medians.
struct Run {
    latency_ms: BTreeMap<String, f64>,
    peak_bytes: f64,
    actions: Vec<f64>,
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let (skillweld, python) = (build::release()?, setup::install_pytorch()?);
    let (expert, inputs) = prepare()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = Machine::look()?;
    let mut text = format!(
        "# Skillweld against PyTorch\n\n`cargo xtask bench --peer pytorch --rounds {rounds}` at {}, {}, {} on {threads} cores.\n\n\
         One forward of a MergeVLA expert of the published size with random weights: two images through DINOv2-L and \
         SigLIP-so400m, Qwen2.5-0.5B, 24 blocks of action expert. PyTorch runs `benches/peers/pytorch_forward.py`. Both with \
         {threads} threads, in turns; medians over {rounds} processes of the medians of {} forwards. The ratio is Skillweld's \
         time over PyTorch's: below 1 Skillweld is faster. **Ratios may be compared between machines, milliseconds may \
         not.**\n",
        machine.commit,
        machine.date,
        machine.processor,
        REPEATS - 1
    );
    let mut results = Vec::new();
    for (precision, dtype) in DTYPES {
        announce(precision);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(forward(&skillweld, &expert, &inputs, precision, threads)?);
            theirs.push(peer(&python, &expert, &inputs, dtype, threads)?);
        }
        let difference = difference(&ours[0].actions, &theirs[0].actions);
        // bf16 has 8 bits; a thousand roundings on the way leave fewer.
        let tolerance = if precision == "f32" { 1e-3 } else { 0.2 };
        ensure!(difference <= tolerance, "{precision}: actions differ by {difference:.2e} of the largest");
        let _ = writeln!(text, "\n## {precision}\n\nActions differ by {difference:.1e} of the largest.\n");
        text += "| stage | ratio | Skillweld | PyTorch |\n|---|--:|--:|--:|\n";
        for stage in STAGES {
            let (a, b) = (median(&ours, stage), median(&theirs, stage));
            let name = stage.trim_end_matches("_ms");
            let _ = writeln!(text, "| {name} | {:.2}× | {a:.1} ms | {b:.1} ms |", a / b);
            results.push(json!({"precision": precision, "stage": name, "ratio": a / b, "skillweld_ms": a, "pytorch_ms": b}));
        }
        let peak = |runs: &[Run]| runs.iter().map(|run| run.peak_bytes).fold(0.0, f64::max);
        let (a, b) = (peak(&ours), peak(&theirs));
        let _ = writeln!(
            text,
            "| peak resident memory | {:.2}× | {:.0} MB | {:.0} MB |",
            a / b,
            a / 1e6,
            b / 1e6
        );
        results.push(json!({"precision": precision, "stage": "peak_bytes", "ratio": a / b}));
    }
    announce("several tasks in one checkpoint");
    let tasks = Tasks::prepare(&skillweld, &inputs)?;
    text += "\n## Several tasks\n\nFour adapters on one base, merged with masks and a router. Copying: `memcpy` of as many \
             bytes as a switch reads and writes, halved, for a copy does both.\n";
    for (precision, _) in DTYPES {
        let (table, result) = tasks.measure(&skillweld, precision, threads)?;
        text += &table;
        results.push(result);
    }
    announce("results");
    println!("{text}");
    machine.keep(
        "pytorch",
        &text,
        &json!({"commit": machine.commit, "date": machine.date, "results": results}),
    )
}

/// Writes checkpoint and inputs unless they are there.
fn prepare() -> Result<(PathBuf, PathBuf)> {
    let dir = target_dir().join("bench-policy");
    let (expert, inputs, complete) =
        (dir.join("expert"), dir.join("inputs.safetensors"), dir.join("complete"));
    if !complete.exists() {
        announce("a policy of the published size with random weights, 4 GB");
        let spec = PrismaticSpec { shards: 1, ..PrismaticSpec::published() };
        spec.write_expert(&expert, 0, ExpertForm::Full)
            .with_context(|| format!("cannot write {}", expert.display()))?;
        write_inputs(&dir)?;
        fs::write(complete, "")?;
    }
    Ok((expert, inputs))
}

/// Two images' pixels, a prompt of 35 tokens, a state.
fn write_inputs(dir: &Path) -> Result<()> {
    let noise = |tensor: &str, len: usize| -> Result<Vec<u8>> {
        let values = Noise::new(0, tensor).take(len, 0.5);
        let mut bytes = vec![0; 4 * len];
        convert::encode(Dtype::F32, &values, &mut bytes)?;
        Ok(bytes)
    };
    let ids: Vec<u8> = (0..35i64).flat_map(|i| (i * 37 % 250 + 3).to_le_bytes()).collect();
    let tensors = [
        ("pixel_values", Dtype::F32, vec![12, 224, 224], noise("pixel_values", 12 * 224 * 224)?),
        ("input_ids", Dtype::I64, vec![1, 35], ids),
        ("proprio", Dtype::F32, vec![8], noise("proprio", 8)?),
    ];
    let specs = tensors.iter().map(|(name, dtype, shape, _)| TensorSpec {
        name: (*name).to_owned(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    let writer = SafetensorsWriter::create(dir, "inputs", specs.collect(), &BTreeMap::new(), None)?;
    for (index, (.., bytes)) in tensors.iter().enumerate() {
        writer.write_at(index, 0, bytes)?;
    }
    writer.finish()?;
    Ok(())
}

fn forward(skillweld: &Path, expert: &Path, inputs: &Path, precision: &str, threads: usize) -> Result<Run> {
    let out = target_dir().join("bench-policy/actions.safetensors");
    let mut predict = command(skillweld);
    predict.arg("predict").arg(expert).arg("--inputs").arg(inputs).arg("--output").arg(&out);
    predict.args(["--force", "--json", "--precision", precision]);
    predict.args(["--repeat", &REPEATS.to_string(), "--threads", &threads.to_string()]);
    println!("$ {}", line(&predict));
    parse(&output(&mut predict)?)
}

fn peer(python: &Path, expert: &Path, inputs: &Path, dtype: &str, threads: usize) -> Result<Run> {
    let mut forward = command(python);
    forward.arg(root().join("benches/peers/pytorch_forward.py")).arg(expert).arg(inputs);
    forward.args(["--dtype", dtype, "--threads", &threads.to_string()]);
    forward.args(["--rounds", &(REPEATS - 1).to_string()]);
    println!("$ {}", line(&forward));
    parse(&output(&mut forward)?)
}

/// Both programs say the same things in JSON.
fn parse(text: &str) -> Result<Run> {
    let json: Value = serde_json::from_str(text).context("no JSON came back")?;
    let latency = json["latency"].as_object().context("no latency came back")?;
    let latency_ms = latency.iter().filter_map(|(name, ms)| Some((name.clone(), ms.as_f64()?))).collect();
    let rows = json["normalized_actions"].as_array().context("no actions came back")?;
    let actions = rows.iter().filter_map(Value::as_array).flatten().filter_map(Value::as_f64).collect();
    Ok(Run { latency_ms, peak_bytes: json["peak_bytes"].as_f64().unwrap_or(f64::NAN), actions })
}

fn median(runs: &[Run], stage: &str) -> f64 {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| run.latency_ms.get(stage).copied()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The largest difference over the largest magnitude.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let largest = b.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    a.iter().zip(b).fold(0.0f64, |max, (a, b)| max.max((a - b).abs())) / largest
}
