//! A small merged checkpoint in Skillweld's layout, written tensor by tensor, so that tests can spoil one of them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skillweld_store::{SafetensorsWriter, TensorSpec};
use skillweld_tensor::{BitMask, Dtype, convert};

/// dtype, shape and bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// Files of a checkpoint before they are written.
#[derive(Debug, Clone)]
pub struct Files {
    /// Stem → name → tensor.
    pub tensors: BTreeMap<&'static str, BTreeMap<String, Tensor>>,
    /// Name → JSON file.
    pub json: BTreeMap<&'static str, Value>,
}

/// Merged checkpoints of the published code that come with the crate `merged`, whose tests and `merge`'s use this file.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../merged/tests/data").join(name)
}

pub fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * dtype.bits() / 8];
    convert::encode(dtype, values, &mut bytes).unwrap();
    bytes
}

pub fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() * 8 / dtype.bits()];
    convert::decode(dtype, bytes, &mut values).unwrap();
    values
}

impl Files {
    /// Two tasks, one masked key `w` of 2 × 5 in bf16, one untouched key, action expert, router and statistics.
    pub fn small() -> Self {
        let mut files = Self { tensors: BTreeMap::new(), json: BTreeMap::new() };
        let range = |len: usize, step: f32| (0..len).map(|i| step * (i as f32 - 3.0)).collect::<Vec<_>>();
        files.put("model", "w", Dtype::BF16, &[2, 5], &range(10, 1.0));
        files.put("model", "untouched", Dtype::F32, &[3], &[1.0, -0.0, f32::MIN_POSITIVE / 2.0]);
        files.put("task_vector", "w", Dtype::BF16, &[2, 5], &range(10, 0.25));
        for (task, bits) in [("pick", 0b11_0101_0011u16), ("place", 0b01_0000_1111)] {
            files.mask(task, "w", &(0..10).map(|i| bits >> i & 1 == 1).collect::<Vec<_>>());
            files.put(
                "action_expert",
                &format!("experts/{task}/model.fc2.bias"),
                Dtype::F32,
                &[2],
                &[1.0, 2.0],
            );
            files.put("router", &format!("{task}/adapter"), Dtype::F32, &[1, 2], &[0.0, 1.0]);
            files.put("router", &format!("{task}/task"), Dtype::F32, &[1, 2], &[1.0, 0.0]);
        }
        files.put("action_expert", "model.fc1.bias", Dtype::F32, &[2], &[3.0, 4.0]);
        files.put("action_expert", "proprio_projector.fc1.bias", Dtype::F32, &[1], &[5.0]);
        let statistics = json!({"action": {"mean": [0.5]}});
        files.json.insert("dataset_statistics.json", json!({"pick": statistics, "place": statistics}));
        files.json.insert("skillweld.json", json!({"format_version": 1, "tasks": ["pick", "place"]}));
        files.json.insert("config.json", json!({"model_type": "openvla"}));
        files
    }

    pub fn put(&mut self, stem: &'static str, name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) {
        let tensor = (dtype, shape.to_vec(), encode(dtype, values));
        self.tensors.entry(stem).or_default().insert(name.to_owned(), tensor);
    }

    pub fn mask(&mut self, task: &str, key: &str, bits: &[bool]) {
        let bytes = BitMask::from_bools(bits).as_bytes().to_vec();
        let name = format!("{task}/{key}");
        self.tensors.entry("masks").or_default().insert(name, (Dtype::U8, vec![bytes.len()], bytes));
    }

    /// Sets a field of `skillweld.json`.
    pub fn set(&mut self, field: &str, value: Value) {
        self.json.get_mut("skillweld.json").unwrap()[field] = value;
    }

    pub fn remove(&mut self, stem: &str, name: &str) {
        self.tensors.get_mut(stem).unwrap().remove(name).unwrap();
    }

    pub fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        for (stem, tensors) in &self.tensors {
            let spec = |(name, (dtype, shape, _)): (&String, &(Dtype, Vec<usize>, Vec<u8>))| TensorSpec {
                name: name.clone(),
                dtype: *dtype,
                shape: shape.clone(),
            };
            let layout = tensors.iter().map(spec).collect();
            let writer = SafetensorsWriter::create(dir, stem, layout, &BTreeMap::new(), None).unwrap();
            for (i, (_, _, bytes)) in tensors.values().enumerate() {
                writer.write_at(i, 0, bytes).unwrap();
            }
            writer.finish().unwrap();
        }
        for (name, value) in &self.json {
            std::fs::write(dir.join(name), value.to_string()).unwrap();
        }
    }
}
