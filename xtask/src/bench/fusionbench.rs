//! FusionBench's dense functions and our methods on the same LoRA experts, in one run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use skillweld_store::{SafetensorsWriter, TensorSpec};
use skillweld_synth::Noise;
use skillweld_tensor::{Dtype, convert};

use super::report::Machine;
use crate::process::{announce, cargo, command, output, root, target_dir};
use crate::{plugins, setup};

const METHODS: [&str; 5] = ["knots", "tsv", "iso_c", "iso_cts", "wudi"];
const EXPERTS: usize = 4;
const RANK: usize = 64;
/// A layer of Qwen2.5-0.5B, as `benches/factored.rs` has it.
const LAYER: [(&str, usize, usize); 7] = [
    ("q", 896, 896),
    ("k", 128, 896),
    ("v", 128, 896),
    ("o", 896, 896),
    ("gate", 4864, 896),
    ("up", 4864, 896),
    ("down", 896, 4864),
];

type Times = BTreeMap<String, BTreeMap<String, f64>>;

pub(crate) fn run(only: &[String]) -> Result<()> {
    let methods: Vec<&str> =
        METHODS.into_iter().filter(|id| only.is_empty() || only.iter().any(|name| name == id)).collect();
    let (python, site) = setup::install_fusionbench()?;
    plugins::build(true, &[])?;
    let inputs = write_inputs()?;
    let machine = Machine::look()?;
    announce("FusionBench's functions");
    let mut theirs = command(&python);
    theirs.env("PYTHONPATH", &site).arg(root().join("benches/peers/fusionbench_functions.py")).arg(&inputs);
    theirs.args(["--threads", &machine.cores.to_string(), "--methods"]).args(&methods);
    let theirs: Times = serde_json::from_str(last_line(&output(&mut theirs)?)).context("its times")?;
    let mut text = format!(
        "# Methods on whole matrices, against FusionBench\n\n`cargo xtask bench --peer fusionbench` at {}, {}, {} on {} \
         cores.\n\nFour experts of rank {RANK} on the seven matrices of a layer of Qwen2.5-0.5B, random numbers. FusionBench \
         0.2.33 runs its functions on the multiplied-out matrices, one after the other with all threads; WUDI's 300 steps are \
         two of them, scaled, and ten of ours on the dense path. Skillweld runs its plugins side by side, a thread a matrix. Times of a layer; all 24 have these \
         matrices. Above 1 Skillweld is faster.\n\n| method | path | ratio | Skillweld | FusionBench |\n|---|---|--:|--:|--:|\n",
        machine.commit, machine.date, machine.processor, machine.cores
    );
    let mut results = Vec::new();
    for path in ["factored", "dense"] {
        announce(&format!("Skillweld, {path}"));
        let mut ours = cargo();
        ours.args(["bench", "-q", "-p", "skillweld-benches", "--bench", "factored", "--", path]);
        ours.args(&methods);
        let ours: Value = serde_json::from_str(last_line(&output(&mut ours)?)).context("our times")?;
        let ours: Times = serde_json::from_value(ours["ms"].clone()).context("our times")?;
        for id in &methods {
            let (Some(ours), Some(theirs)) = (ours.get(*id), theirs.get(*id)) else { continue };
            let (a, b) = (ours["layer"], theirs.values().sum::<f64>());
            let _ = writeln!(text, "| `{id}` | {path} | {:.1}× | {a:.0} ms | {b:.0} ms |", b / a);
            results.push(json!({"method": id, "path": path, "ratio": b / a, "skillweld_ms": ours, "fusionbench_ms": theirs}));
        }
    }
    println!("{text}");
    if only.is_empty() {
        let json = json!({"commit": machine.commit, "date": machine.date, "results": results});
        machine.keep("fusionbench", &text, &json)?;
    }
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

/// The experts' factors, the same numbers that `benches/factored.rs` draws.
fn write_inputs() -> Result<PathBuf> {
    let dir = target_dir().join("bench-factored");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut specs = Vec::new();
    for (name, rows, columns) in LAYER {
        for k in 0..EXPERTS {
            for (side, shape) in [("b", vec![rows, RANK]), ("a", vec![RANK, columns])] {
                specs.push(TensorSpec { name: format!("{name}.{k}.{side}"), dtype: Dtype::F32, shape });
            }
        }
    }
    let path: &Path = &dir;
    let writer = SafetensorsWriter::create(path, "factors", specs.clone(), &BTreeMap::new(), None)?;
    for (index, spec) in specs.iter().enumerate() {
        let values = Noise::new(0, &spec.name).take(spec.shape.iter().product(), 0.02);
        let mut bytes = vec![0; 4 * values.len()];
        convert::encode(Dtype::F32, &values, &mut bytes)?;
        writer.write_at(index, 0, &bytes)?;
    }
    writer.finish()?;
    Ok(dir.join("factors.safetensors"))
}
