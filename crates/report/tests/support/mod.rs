//! A merged checkpoint made by hand, with everything that it was made of still beside it.
#![allow(dead_code, clippy::unwrap_used, reason = "included by tests, each of which uses its share")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_tensor::{BitMask, Dtype};
use tempfile::TempDir;

pub(crate) const TASKS: [&str; 3] = ["pick", "push", "<i>turn</i>"];
pub(crate) const RESCALERS: [f32; 3] = [1.0, 0.5, 2.0];
/// Wide enough that the last byte of a mask is not whole.
pub(crate) const SHAPES: [(&str, &[usize]); 5] = [
    ("language_model.model.layers.0.mlp.up_proj.weight", &[12, 7]),
    ("language_model.model.layers.0.self_attn.q_proj.weight", &[9, 9]),
    ("language_model.model.layers.1.mlp.up_proj.weight", &[12, 7]),
    ("language_model.model.layers.1.self_attn.q_proj.weight", &[9, 9]),
    ("language_model.model.norm.weight", &[13]),
];

/// The values of all tensors, one after the other in the order of [`SHAPES`].
pub(crate) struct Made {
    pub(crate) dir: TempDir,
    pub(crate) base: Vec<Vec<f32>>,
    pub(crate) vector: Vec<Vec<f32>>,
    /// By task, then by tensor.
    pub(crate) masks: Vec<Vec<Vec<bool>>>,
    pub(crate) experts: Vec<Vec<Vec<f32>>>,
}

/// Numbers in −1 … 1, always the same for a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn tensors(&mut self) -> Vec<Vec<f32>> {
        let len = |shape: &[usize]| shape.iter().product::<usize>();
        SHAPES.iter().map(|(_, shape)| (0..len(shape)).map(|_| self.next()).collect()).collect()
    }
}

pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes a file of tensors.
pub(crate) fn write(dir: &Path, stem: &str, tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) {
    fs::create_dir_all(dir).unwrap();
    let spec = |(name, dtype, shape, _): &(String, Dtype, Vec<usize>, Vec<u8>)| TensorSpec {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    };
    let specs = tensors.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(dir, stem, specs, &BTreeMap::new(), None).unwrap();
    for (index, (_, _, _, bytes)) in tensors.iter().enumerate() {
        writer.write_at(index, 0, bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn write_model(dir: &Path, stem: &str, values: &[Vec<f32>]) {
    let tensors: Vec<_> = SHAPES
        .iter()
        .zip(values)
        .map(|((key, shape), values)| ((*key).to_owned(), Dtype::F32, shape.to_vec(), bytes(values)))
        .collect();
    write(dir, stem, &tensors);
}

fn hash(dir: &Path) -> String {
    Checkpoint::open(dir).unwrap().content_hash().to_hex().to_string()
}

impl Made {
    /// `base`, one folder a task, and `merged`, with masks or without.
    pub(crate) fn new(seed: u64, masked: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let mut random = Random(seed);
        let (base, vector) = (random.tensors(), random.tensors());
        let experts: Vec<Vec<Vec<f32>>> = TASKS.iter().map(|_| random.tensors()).collect();
        let masks: Vec<Vec<Vec<bool>>> = TASKS
            .iter()
            .map(|_| random.tensors().into_iter().map(|t| t.into_iter().map(|x| x > 0.2).collect()).collect())
            .collect();
        let made = Self { dir, base, vector, masks, experts };
        write_model(&made.path("base"), "model", &made.base);
        for (task, values) in made.experts.iter().enumerate() {
            write_model(&made.path(&format!("expert{task}")), "model", values);
        }
        made.write_merged(masked);
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_merged(&self, masked: bool) {
        let merged = self.path("merged");
        let mut files = vec!["model"];
        if masked {
            write_model(&merged, "model", &self.base);
            write_model(&merged, "task_vector", &self.vector);
            let mut tensors = Vec::new();
            for (task, name) in TASKS.iter().enumerate() {
                let rescaler = bytes(&RESCALERS[task..=task]);
                tensors.push((format!("{name}/__rescaler__"), Dtype::F32, vec![1], rescaler));
                for ((key, _), mask) in SHAPES.iter().zip(&self.masks[task]) {
                    let packed = BitMask::from_bools(mask).as_bytes().to_vec();
                    tensors.push((format!("{name}/{key}"), Dtype::U8, vec![packed.len()], packed));
                }
            }
            write(&merged, "masks", &tensors);
            files.extend(["task_vector", "masks"]);
        } else {
            let sum = |(base, vector): (&Vec<f32>, &Vec<f32>)| {
                base.iter().zip(vector).map(|(a, b)| a + b).collect()
            };
            let weights: Vec<Vec<f32>> = self.base.iter().zip(&self.vector).map(sum).collect();
            write_model(&merged, "model", &weights);
        }
        let input = |name: &str, role: &str, path: String| json!({"name": name, "role": role, "path": path, "weights_blake3": hash(&self.path(&path))});
        let mut inputs = vec![input("base", "base", "base".to_owned())];
        inputs.extend(TASKS.iter().enumerate().map(|(i, task)| input(task, "expert", format!("expert{i}"))));
        let document = json!({
            "format_version": 1, "skillweld_version": "0.1.0", "tasks": TASKS, "masked": masked,
            "recipe": {"merge_method": "ties", "mask": {"method": "tall", "lambda": 0.6}},
            "inputs": inputs,
            "methods": [{"kind": "merge", "id": "ties", "version": "1.0.0", "plugin": "x.so", "plugin_blake3": "00"}],
            "outputs_blake3": {"model": "00"},
            "report": {
                "tensors": {"model: merged": SHAPES.len()},
                "action_expert": [
                    {"block": "0", "per_task": false, "pairs": [["a", "b", 0.25], ["a", "c", 0.75]], "mean": 0.5},
                    {"block": "1", "per_task": true, "pairs": [["a", "b", 1.25], ["a", "c", 1.0]], "mean": 1.125},
                    {"block": "fc2", "per_task": true, "pairs": [["a", "b", null]], "mean": null},
                ],
            },
        });
        self.write_document(&document);
    }

    pub(crate) fn document(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("merged/skillweld.json")).unwrap()).unwrap()
    }

    pub(crate) fn write_document(&self, document: &Value) {
        fs::write(self.path("merged/skillweld.json"), document.to_string()).unwrap();
    }
}
