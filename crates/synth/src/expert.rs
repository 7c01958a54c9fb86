use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use skillweld_tensor::Dtype;

use crate::param::{Param, Role};
use crate::safetensors_file::{Fill, Source, write_file, write_model};
use crate::{Noise, metadata};

/// How an expert's weights are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertForm {
    /// All weights, as the base's.
    Full,
    /// A PEFT LoRA adapter.
    Adapter,
}

/// Where a base and its experts were written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The base's directory.
    pub base: PathBuf,
    /// Name and directory of every expert, in order.
    pub experts: Vec<(String, PathBuf)>,
}

/// Size of a fine-tune's step against the weights' own standard deviation.
const RELATIVE_STEP: f32 = 0.05;

/// What a full expert differs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delta {
    /// Noise on every parameter.
    Dense,
    /// The same low-rank product that the expert's adapter holds.
    LowRank,
}

/// Everything that base and experts of one model have in common.
pub(crate) struct Family {
    pub(crate) params: Vec<Param>,
    pub(crate) dtype: Dtype,
    pub(crate) shards: usize,
    pub(crate) rank: usize,
    pub(crate) seed: u64,
    pub(crate) full: Delta,
}

/// τ = 2 · B · A of one linear layer: A is r × n, B m × r.
struct Factors {
    a: Vec<f32>,
    b: Vec<f32>,
}

/// alpha / r. Every adapter here has alpha = 2 r, as the published experts.
const LORA_SCALE: f32 = 2.0;

impl Family {
    pub(crate) fn write_base(&self, dir: &Path) -> io::Result<()> {
        let sources: Vec<_> = self.params.iter().map(|param| self.base_source(param)).collect();
        write_model(dir, self.dtype, self.shards, &sources)
    }

    /// A whole checkpoint of expert `index`, with `own` parameters that the base does not have.
    pub(crate) fn write_full(&self, dir: &Path, index: usize, own: &[Param]) -> io::Result<()> {
        let mut sources: Vec<_> = self.params.iter().map(|param| self.full_source(param, index)).collect();
        sources.extend(own.iter().map(|param| self.own_source(param.name.clone(), param, index)));
        write_model(dir, self.dtype, self.shards, &sources)
    }

    /// A PEFT adapter of expert `index`: factors of every linear layer, and `own` parameters whole.
    pub(crate) fn write_adapter(&self, dir: &Path, index: usize, own: &[Param]) -> io::Result<()> {
        let mut sources = Vec::new();
        let mut targets = Vec::new();
        for param in self.params.iter().filter(|param| param.role == Role::Linear) {
            let module = param.name.strip_suffix(".weight").unwrap_or(&param.name);
            let (m, n) = (param.shape[0], param.shape[1]);
            for (factor, shape) in [("A", vec![self.rank, n]), ("B", vec![m, self.rank])] {
                sources.push(Source {
                    name: format!("base_model.model.{module}.lora_{factor}.weight"),
                    shape,
                    fill: Box::new(move |start, out| self.fill_factor(param, index, factor, start, out)),
                });
            }
            targets.push(module.to_owned());
        }
        let saved = |param: &Param| format!("base_model.model.{}", param.name);
        sources.extend(own.iter().map(|param| self.own_source(saved(param), param, index)));
        write_file(&dir.join("adapter_model.safetensors"), Dtype::F32, sources.iter())?;

        let modules: Vec<_> = own.iter().map(|p| p.name.strip_suffix(".weight").unwrap_or(&p.name)).collect();
        let config = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": "base",
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": "gaussian",
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": LORA_SCALE as usize * self.rank,
            "lora_bias": false,
            "lora_dropout": 0.0,
            "modules_to_save": if modules.is_empty() { json!(null) } else { json!(modules) },
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": {},
            "revision": null,
            "target_modules": targets,
            "task_type": null,
            "use_dora": false,
            "use_rslora": false,
        });
        metadata::write_json(&dir.join("adapter_config.json"), &config)
    }

    fn base_source<'a>(&'a self, param: &'a Param) -> Source<'a> {
        let fill = move |start, out: &mut [f32]| param.fill_base(self.seed, start, out);
        Source { name: param.name.clone(), shape: param.shape.clone(), fill: Box::new(fill) }
    }

    fn full_source<'a>(&'a self, param: &'a Param, index: usize) -> Source<'a> {
        let fill: Fill<'a> = match self.full {
            Delta::Dense => {
                let noise = Noise::new(self.seed, &format!("{}/expert{index}", param.name));
                let std = RELATIVE_STEP * param.moments().1;
                Box::new(move |start, out| {
                    param.fill_base(self.seed, start, out);
                    noise.add(start, std, out);
                })
            }
            Delta::LowRank if param.role == Role::Linear => {
                let factors = self.factors(param, index);
                Box::new(move |start, out| {
                    param.fill_base(self.seed, start, out);
                    factors.add(self.rank, param.shape[1], start, out);
                })
            }
            Delta::LowRank => return self.base_source(param),
        };
        Source { name: param.name.clone(), shape: param.shape.clone(), fill }
    }

    fn own_source<'a>(&self, name: String, param: &'a Param, index: usize) -> Source<'a> {
        let seed = self.seed;
        let fill = move |start, out: &mut [f32]| {
            param.fill_base(seed, start, out);
            let noise = Noise::new(seed, &format!("{}/expert{index}", param.name));
            noise.add(start, param.moments().1, out);
        };
        Source { name, shape: param.shape.clone(), fill: Box::new(fill) }
    }

    fn factors(&self, param: &Param, index: usize) -> Factors {
        let make = |factor, len| {
            let mut out = vec![0.0; len];
            self.fill_factor(param, index, factor, 0, &mut out);
            out
        };
        Factors { a: make("A", self.rank * param.shape[1]), b: make("B", param.shape[0] * self.rank) }
    }

    /// A ~ N(0, 1/n) and B such that 2·B·A has the standard deviation of a fine-tune's step; B's rows fade unevenly by
    /// expert, so that each expert owns some rows and masks differ.
    fn fill_factor(&self, param: &Param, index: usize, factor: &str, start: usize, out: &mut [f32]) {
        let noise = Noise::new(self.seed, &format!("{}/expert{index}/lora_{factor}", param.name));
        let a_std = (param.shape[1] as f32).sqrt().recip();
        if factor == "A" {
            out.fill(0.0);
            return noise.add(start, a_std, out);
        }
        let std = RELATIVE_STEP * param.moments().1 / (LORA_SCALE * a_std * (self.rank as f32).sqrt());
        out.fill(0.0);
        noise.add(start, std, out);
        for (offset, value) in out.iter_mut().enumerate() {
            let row = (start + offset) / self.rank;
            *value *= if row % 4 == index % 4 { 1.5 } else { 0.5 };
        }
    }
}

impl Factors {
    /// out\[i\] += (2·B·A)\[start + i\], the product flattened row by row.
    fn add(&self, rank: usize, columns: usize, start: usize, out: &mut [f32]) {
        for (offset, value) in out.iter_mut().enumerate() {
            let (row, column) = ((start + offset) / columns, (start + offset) % columns);
            let b = &self.b[row * rank..(row + 1) * rank];
            let product: f32 =
                b.iter().zip(self.a[column..].iter().step_by(columns)).map(|(b, a)| b * a).sum();
            *value += LORA_SCALE * product;
        }
    }
}

/// Writes `base` and every named expert below `dir`.
pub(crate) fn write_all(
    dir: &Path,
    experts: impl Iterator<Item = (String, ExpertForm)>,
    write_base: impl Fn(&Path) -> io::Result<()>,
    write_expert: impl Fn(&Path, usize, ExpertForm) -> io::Result<()>,
) -> io::Result<Written> {
    fs::create_dir_all(dir)?;
    let base = dir.join("base");
    write_base(&base)?;
    let mut written = Written { base, experts: Vec::new() };
    for (index, (name, form)) in experts.enumerate() {
        let path = dir.join(&name);
        write_expert(&path, index, form)?;
        written.experts.push((name, path));
    }
    Ok(written)
}
