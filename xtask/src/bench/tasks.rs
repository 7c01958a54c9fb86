//! What several tasks in one checkpoint cost at full size: switching against a copy, routing against one forward.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use skillweld_store::Checkpoint;
use skillweld_synth::{ExpertForm, PrismaticSpec};

use crate::process::{announce, command, line, output, run as run_command, target_dir};

/// Tasks that are merged, and routed over.
const TASKS: usize = 4;
/// Steps of one process; the first is not counted.
const REPEATS: usize = 4;
/// Copies that the median is taken of.
const COPIES: usize = 5;

/// A checkpoint of four tasks, and what of it changes with the task.
pub(super) struct Tasks {
    merged: PathBuf,
    inputs: PathBuf,
    masked_elements: usize,
    /// Bytes of Θ₀, τ and one mask at the masked keys.
    read_bytes: usize,
}

impl Tasks {
    /// Writes and merges four experts of the published size unless that was done.
    pub(super) fn prepare(skillweld: &Path, inputs: &Path) -> Result<Self> {
        let dir = target_dir().join("bench-tasks");
        let (merged, complete) = (dir.join("merged"), dir.join("complete"));
        if !complete.exists() {
            announce("four experts of the published size with random weights, merged: 10 GB");
            let written = PrismaticSpec::published()
                .write_all(&dir, &[ExpertForm::Adapter; TASKS])
                .with_context(|| format!("cannot write into {}", dir.display()))?;
            let mut recipe = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n".to_owned();
            for (name, path) in &written.experts {
                let _ = writeln!(recipe, "  - {{ name: {name}, model: {} }}", path.display());
            }
            recipe += "mask: { method: tall, lambda: 0.6 }\naction_expert: { head_blocks: 1 }\nrouter: { rank: 8 }\n";
            let path = dir.join("recipe.yaml");
            fs::write(&path, recipe)?;
            run_command(command(skillweld).arg("merge").arg(&path).arg(&merged).arg("--force"))?;
            fs::write(complete, "")?;
        }
        let (mut masked_elements, mut read_bytes) = (0, 0);
        let task_vector = Checkpoint::open(merged.join("task_vector.safetensors"))?;
        let base = Checkpoint::open(&merged)?;
        for key in task_vector.keys() {
            let (Some(tau), Some(theta)) = (task_vector.get(key), base.get(key)) else { continue };
            masked_elements += tau.numel();
            read_bytes += tau.bytes().len() + theta.bytes().len() + tau.numel().div_ceil(8);
        }
        Ok(Self { merged, inputs: inputs.to_owned(), masked_elements, read_bytes })
    }

    /// Routed steps in one precision beside steps with the task given, and a copy of as many bytes as a switch moves.
    pub(super) fn measure(
        &self,
        skillweld: &Path,
        precision: &str,
        threads: usize,
    ) -> Result<(String, Value)> {
        let width = if precision == "f32" { 4 } else { 2 };
        let moved = self.read_bytes + width * self.masked_elements;
        let copy_ms = copy_ms(moved / 2, threads);
        let routed = self.step(skillweld, precision, threads, &[])?;
        let given = self.step(skillweld, precision, threads, &["--task", "spatial"])?;
        let stage = |step: &Value, name: &str| {
            step["latency"][name].as_f64().with_context(|| format!("no {name} came back"))
        };
        // A step begins with the task whose weights are there already.
        let switches_ms = stage(&routed, "switch_ms")?;
        let switch_ms = switches_ms / (TASKS - 1) as f64;
        let (routed_ms, given_ms) = (stage(&routed, "total_ms")?, stage(&given, "total_ms")?);
        let text = format!(
            "\n### {TASKS} tasks, {precision}\n\n\
             | | ratio | Skillweld | against |\n|---|--:|--:|--:|\n\
             | switching a task, against copying its {:.1} GB | {:.2}× | {switch_ms:.0} ms | {copy_ms:.0} ms |\n\
             | a step that routes, switches included, against one with its task given | {:.2}× | {routed_ms:.0} ms | {given_ms:.0} ms |\n\
             | the same without switches | {:.2}× | {:.0} ms | {given_ms:.0} ms |\n",
            moved as f64 / 2e9,
            switch_ms / copy_ms,
            routed_ms / given_ms,
            (routed_ms - switches_ms) / given_ms,
            routed_ms - switches_ms,
        );
        let json = json!({
            "precision": precision, "tasks": TASKS, "switch_ms": switch_ms, "copy_ms": copy_ms,
            "routed_ms": routed_ms, "given_ms": given_ms,
            "switch_ratio": switch_ms / copy_ms, "routing_ratio": routed_ms / given_ms,
        });
        Ok((text, json))
    }

    fn step(&self, skillweld: &Path, precision: &str, threads: usize, more: &[&str]) -> Result<Value> {
        let out = target_dir().join("bench-tasks/actions.safetensors");
        let mut predict = command(skillweld);
        predict.arg("predict").arg(&self.merged).arg("--inputs").arg(&self.inputs).arg("--output").arg(&out);
        predict.args(["--force", "--json", "--precision", precision]).args(more);
        predict.args(["--repeat", &REPEATS.to_string(), "--threads", &threads.to_string()]);
        println!("$ {}", line(&predict));
        serde_json::from_str(&output(&mut predict)?).context("no JSON came back")
    }
}

/// Median time in milliseconds of copying `bytes` with so many threads, pages already there.
fn copy_ms(bytes: usize, threads: usize) -> f64 {
    let part = bytes.div_ceil(threads.max(1)).max(1);
    let (source, mut target) = (vec![1u8; bytes], vec![2u8; bytes]);
    let mut times: Vec<f64> = (0..COPIES)
        .map(|_| {
            let started = Instant::now();
            std::thread::scope(|scope| {
                for (to, from) in target.chunks_mut(part).zip(source.chunks(part)) {
                    scope.spawn(move || to.copy_from_slice(from));
                }
            });
            1e3 * started.elapsed().as_secs_f64()
        })
        .collect();
    assert!(target.last() == source.last(), "copied");
    times.sort_by(f64::total_cmp);
    times[COPIES / 2]
}
