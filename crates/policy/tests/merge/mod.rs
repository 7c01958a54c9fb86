//! Small merged checkpoints of Prismatic shapes, made up tensor by tensor and written in Skillweld's layout or in that of
//! the published code.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod torch;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ndarray::ArrayD;
use serde_json::{Value, json};
use skillweld_policy::Observation;
use skillweld_store::{Checkpoint, ExpertFiles, SafetensorsWriter, TensorSpec, write_torch_zip};
use skillweld_synth::{ExpertForm, LanguageModel, PrismaticSpec, VitSpec};
use skillweld_tensor::{BitMask, Dtype, TensorView};
use torch::Node;

pub type Tensors = BTreeMap<String, ArrayD<f32>>;

/// Values of `AB`-like sequences without a dependency: an LCG.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// −1 … 1.
    pub fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// A merge of experts, task by task.
pub struct Merge {
    pub tasks: Vec<String>,
    pub base: Tensors,
    pub action_queries: ArrayD<f32>,
    /// τ of some keys.
    pub vector: Tensors,
    /// Masks over keys of `vector`, one a task; keys without are added to every task.
    pub masks: BTreeMap<String, Vec<Vec<bool>>>,
    /// One a task.
    pub rescalers: Vec<f32>,
    /// Action heads of the experts.
    pub heads: Vec<Tensors>,
    pub projector: Tensors,
    /// Router subspaces by the name after `<task>/`, one a task.
    pub router: BTreeMap<&'static str, Vec<ArrayD<f32>>>,
    config: Value,
    tokenizer: Vec<u8>,
    statistics: Vec<Value>,
}

/// Blocks of the action expert, of which the last is each task's own.
pub const LAYERS: usize = 2;

pub fn spec() -> PrismaticSpec {
    PrismaticSpec {
        language: LanguageModel { layers: LAYERS, ..PrismaticSpec::tiny().language },
        featurizer: VitSpec { width: 16, depth: 2, heads: 2, mlp: 16 },
        fused_featurizer: VitSpec { width: 16, depth: 2, heads: 2, mlp: 16 },
        dtype: Dtype::F32,
        shards: 1,
        ..PrismaticSpec::tiny()
    }
}

fn read(checkpoint: &Checkpoint) -> Tensors {
    let tensor = |key: &str| (key.to_owned(), checkpoint.get(key).unwrap().to_f32().unwrap());
    checkpoint.keys().map(tensor).collect()
}

/// True for what one task has of its own in an action head.
fn is_own(name: &str) -> bool {
    name.contains(&format!("mlp_resnet_blocks.{}.", LAYERS - 1))
        || name.contains("layer_norm2")
        || name.contains("fc2")
}

impl Merge {
    /// Experts `spatial`, `object`, … merged by addition: τ over the language model's layers, random masks, no rescalers,
    /// a router over values.
    pub fn new(tasks: usize, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        spec().write_base(dir.path()).unwrap();
        let base = read(&Checkpoint::open(dir.path()).unwrap());
        let text = fs::read(dir.path().join("config.json")).unwrap();
        let (config, tokenizer) =
            (serde_json::from_slice(&text).unwrap(), fs::read(dir.path().join("tokenizer.json")).unwrap());
        let (mut heads, mut statistics, mut experts, mut projector) =
            (Vec::new(), Vec::new(), Vec::new(), Tensors::new());
        for task in 0..tasks {
            let dir = tempfile::tempdir().unwrap();
            spec().write_expert(dir.path(), task, ExpertForm::Full).unwrap();
            experts.push(read(&Checkpoint::open(dir.path()).unwrap()));
            let files = ExpertFiles::discover(dir.path()).unwrap();
            heads.push(read(&files.action_head().unwrap().unwrap()));
            projector = read(&files.proprio_projector().unwrap().unwrap());
            let text = fs::read(dir.path().join("dataset_statistics.json")).unwrap();
            statistics.push(serde_json::from_slice(&text).unwrap());
        }
        let shared = heads[0].clone();
        for head in &mut heads {
            head.iter_mut()
                .filter(|(name, _)| !is_own(name))
                .for_each(|(name, value)| *value = shared[name].clone());
        }
        let mut merge = Self {
            tasks: (0..tasks).map(PrismaticSpec::task).collect(),
            action_queries: experts[0]["action_queries.weight"].clone(),
            vector: Tensors::new(),
            masks: BTreeMap::new(),
            rescalers: vec![1.0; tasks],
            heads,
            projector,
            router: BTreeMap::new(),
            config,
            tokenizer,
            statistics,
            base,
        };
        let keys: Vec<String> = merge.base.keys().cloned().collect();
        for key in keys.iter().filter(|key| key.contains(".layers.") && key.ends_with("proj.weight")) {
            merge.change(key, &mut random);
            merge.mask(key, &mut random);
        }
        let width = merge.heads[0]["model.fc2.weight"].shape()[1];
        for name in ["adapter", "task"] {
            let mut subspace = || ArrayD::from_shape_fn(vec![3, width], |_| 0.3 * random.unit());
            merge.router.insert(name, (0..tasks).map(|_| subspace()).collect());
        }
        merge
    }

    /// Gives a key a random τ.
    pub fn change(&mut self, key: &str, random: &mut Random) {
        let size = 0.3 * self.base[key].iter().fold(0f32, |most, x| most.max(x.abs()));
        let vector = self.base[key].mapv(|_| size * random.unit());
        self.vector.insert(key.to_owned(), vector);
    }

    /// Gives a key of τ random masks.
    pub fn mask(&mut self, key: &str, random: &mut Random) {
        let len = self.vector[key].len();
        let mut bits = || (0..len).map(|_| random.next().is_multiple_of(2)).collect();
        let masks = self.tasks.iter().map(|_| bits()).collect();
        self.masks.insert(key.to_owned(), masks);
    }

    /// As `skillweld merge` writes it. What has no mask there has one that keeps all.
    pub fn write(&self, dir: &Path) {
        self.side_files(dir);
        let mut model = self.base.clone();
        model.insert("action_queries.weight".to_owned(), self.action_queries.clone());
        safetensors(dir, "model", &floats(&model));
        safetensors(dir, "task_vector", &floats(&self.vector));
        let mut masks = BTreeMap::new();
        for (task, name) in self.tasks.iter().enumerate() {
            for (key, vector) in &self.vector {
                let all = vec![true; vector.len()];
                let bits = self.masks.get(key).map_or(&all, |masks| &masks[task]);
                let bytes = BitMask::from_bools(bits).as_bytes().to_vec();
                masks.insert(format!("{name}/{key}"), (Dtype::U8, vec![bytes.len()], bytes));
            }
            let rescaler = self.rescalers[task].to_le_bytes().to_vec();
            masks.insert(format!("{name}/__rescaler__"), (Dtype::F32, vec![1], rescaler));
        }
        safetensors(dir, "masks", &masks);
        let mut expert = Tensors::new();
        for (name, head) in self.tasks.iter().zip(&self.heads) {
            for (key, value) in head {
                let key = if is_own(key) { format!("experts/{name}/{key}") } else { key.clone() };
                expert.insert(key, value.clone());
            }
        }
        expert.extend(
            self.projector.iter().map(|(key, value)| (format!("proprio_projector.{key}"), value.clone())),
        );
        safetensors(dir, "action_expert", &floats(&expert));
        let mut router = Tensors::new();
        for (suffix, subspaces) in &self.router {
            for (name, subspace) in self.tasks.iter().zip(subspaces) {
                router.insert(format!("{name}/{suffix}"), subspace.clone());
            }
        }
        if !router.is_empty() {
            safetensors(dir, "router", &floats(&router));
        }
        let statistics: Value =
            self.tasks.iter().zip(&self.statistics).map(|(task, s)| (task.clone(), s.clone())).collect();
        fs::write(dir.join("dataset_statistics.json"), statistics.to_string()).unwrap();
        let document = json!({"format_version": 1, "tasks": self.tasks});
        fs::write(dir.join("skillweld.json"), document.to_string()).unwrap();
    }

    /// As the published code writes it, and Θ₀ into `base`.
    pub fn write_official(&self, dir: &Path, base: &Path) {
        self.side_files(dir);
        fs::create_dir_all(base).unwrap();
        safetensors(base, "model", &floats(&self.base));
        // τ, zeros under what no merge touched, the mean of what has no pretrained value.
        let mut model: Tensors =
            self.base.iter().map(|(key, value)| (key.clone(), ArrayD::zeros(value.shape()))).collect();
        model.extend(self.vector.clone());
        model.insert("action_queries.weight".to_owned(), self.action_queries.clone());
        safetensors(dir, "model", &floats(&model));
        // Not in the order of the indices.
        let order = self.tasks.iter().enumerate().rev();
        let order = order.map(|(index, task)| (task.clone(), Node::Int(index))).collect();
        torch::write(&dir.join("task2idx.pt"), &Node::Dict(order));
        let of = |task: usize| {
            let mut entries: Vec<_> = self
                .masks
                .iter()
                .map(|(key, masks)| (key.clone(), Node::bools(self.vector[key].shape(), &masks[task])))
                .collect();
            entries.push(("rescaler".to_owned(), Node::floats(&[1], &[self.rescalers[task]])));
            Node::Dict(entries)
        };
        let masks = self.tasks.iter().enumerate().map(|(index, task)| (task.clone(), of(index)));
        torch::write(&dir.join("tall_masks.pt"), &Node::Dict(masks.collect()));
        let mut head = Tensors::new();
        let last = format!("model.mlp_resnet_blocks.{}.", LAYERS - 1);
        for (expert, tensors) in self.heads.iter().enumerate() {
            for (key, value) in tensors {
                let own = key.replace(&last, "model.mlp_resnet_moe_blocks.0.");
                if own.ends_with("gating_factor") && own != *key {
                    let gates = self.heads.iter().map(|head| head[key].iter().copied().next().unwrap());
                    head.insert(own, gates.collect::<ndarray::Array1<f32>>().into_dyn());
                } else if is_own(key) {
                    let (module, parameter) = own.rsplit_once('.').unwrap();
                    head.insert(format!("{module}.experts.{expert}.{parameter}"), value.clone());
                } else {
                    head.insert(key.clone(), value.clone());
                }
            }
        }
        for (which, name) in ["adapter", "task"].into_iter().enumerate() {
            for (expert, subspace) in self.router.get(name).into_iter().flatten().enumerate() {
                head.insert(format!("model.gate.gate.{which}.routers.{expert}"), subspace.clone());
            }
        }
        zip(&dir.join("action_head--checkpoint.pt"), &head);
        zip(&dir.join("proprio_projector--checkpoint.pt"), &self.projector);
        let statistics: Value = self
            .statistics
            .iter()
            .zip(&self.tasks)
            .map(|(s, task)| {
                (format!("{task}_no_noops"), s.as_object().unwrap().values().next().unwrap().clone())
            })
            .collect();
        fs::write(dir.join("dataset_statistics.json"), statistics.to_string()).unwrap();
    }

    fn side_files(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        fs::write(dir.join("tokenizer.json"), &self.tokenizer).unwrap();
    }
}

/// Two images of smooth colours, a state, an instruction.
pub fn observation(seed: usize) -> Observation {
    let image = |camera: usize| {
        ndarray::Array3::from_shape_fn((60, 80, 3), |(y, x, c)| {
            ((3 * x + 2 * y + 40 * c + 90 * camera + 57 * seed) % 256) as u8
        })
    };
    let state: Vec<f64> = (0..8).map(|i| 0.1 * ((i + seed) as f64).sin()).collect();
    Observation::new(&[image(0).view(), image(1).view()], &state, "open the drawer")
}

type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn bytes(values: &ArrayD<f32>) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(tensors: &Tensors) -> BTreeMap<String, Stored> {
    let stored = |(name, value): (&String, &ArrayD<f32>)| {
        (name.clone(), (Dtype::F32, value.shape().to_vec(), bytes(value)))
    };
    tensors.iter().map(stored).collect()
}

pub fn safetensors(dir: &Path, stem: &str, tensors: &BTreeMap<String, Stored>) {
    let specs = tensors.iter().map(|(name, (dtype, shape, _))| TensorSpec {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    let writer = SafetensorsWriter::create(dir, stem, specs.collect(), &BTreeMap::new(), None).unwrap();
    for (index, (.., bytes)) in tensors.values().enumerate() {
        writer.write_at(index, 0, bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn zip(path: &Path, tensors: &Tensors) {
    let stored = floats(tensors);
    let views: Vec<_> = stored
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape, bytes).unwrap()))
        .collect();
    write_torch_zip(path, &views).unwrap();
}
