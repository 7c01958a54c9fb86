//! Action experts of every published design with random weights, against the reference in f64.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod reference;

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array2, ArrayD, IxDyn};
use proptest::prelude::*;
use reference::{Tensors, expert};
use skillweld_linalg::Threads;
use skillweld_policy::backend::{Backend, Matrix};
use skillweld_policy::expert::{ActionExpert, ExpertOptions, HiddenState};
use skillweld_policy::{Cpu, CpuMatrix, Device, ExpertSource, Plan, Precision, RopePrecision};
use skillweld_store::{Checkpoint, write_torch_zip};
use skillweld_tensor::{Dtype, TensorView, convert};

const MERGEVLA: &[&str] =
    &["q_proj_adapter", "k_adapter", "v_adapter", "q_proj_task", "k_task", "v_task", "o_proj"];
const PRO: &[&str] = &["q_proj", "k_self", "v_self", "k_adapter", "v_adapter", "k_task", "v_task", "o_proj"];
const PLAIN: &[&str] = &["q_proj", "k_proj", "v_proj", "o_proj"];

/// Sizes of a head and of what it reads.
#[derive(Debug, Clone, Copy)]
struct Shape {
    width: usize,
    action: usize,
    proprio: usize,
    blocks: usize,
    task_tokens: usize,
    action_tokens: usize,
    chunk: usize,
}

type Named = BTreeMap<String, ArrayD<f32>>;

struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |_| self.next())
    }

    fn linear(&mut self, name: &str, out: usize, input: usize, tensors: &mut Named) {
        let weight = self.matrix(out, input) / (input as f32).sqrt() * 1.7;
        tensors.insert(format!("{name}.weight"), weight.into_dyn());
        tensors.insert(format!("{name}.bias"), self.vector(out, 0.0));
    }

    fn norm(&mut self, name: &str, width: usize, tensors: &mut Named) {
        tensors.insert(format!("{name}.weight"), self.vector(width, 1.0));
        tensors.insert(format!("{name}.bias"), self.vector(width, 0.0));
    }

    fn vector(&mut self, len: usize, mean: f32) -> ArrayD<f32> {
        ArrayD::from_shape_fn(IxDyn(&[len]), |_| mean + 0.3 * self.next())
    }

    fn head(&mut self, shape: Shape, layers: &[&str]) -> Named {
        let (mut tensors, d) = (Named::new(), shape.width);
        self.norm("model.layer_norm1", shape.action * d, &mut tensors);
        self.linear("model.fc1", d, shape.action * d, &mut tensors);
        for block in 0..shape.blocks {
            let block = format!("model.mlp_resnet_blocks.{block}");
            tensors.insert(format!("{block}.gating_factor"), self.vector(1, 0.0));
            self.norm(&format!("{block}.ffn.0"), d, &mut tensors);
            for layer in layers.iter().chain(&["ffn.1"]) {
                self.linear(&format!("{block}.{layer}"), d, d, &mut tensors);
            }
        }
        self.norm("model.layer_norm2", d, &mut tensors);
        self.linear("model.fc2", shape.action, d, &mut tensors);
        tensors
    }
}

/// Writes tensors in a dtype and opens the file.
fn stored(path: &Path, dtype: Dtype, tensors: &Named) -> Checkpoint {
    let encoded: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let values: Vec<f32> = tensor.iter().copied().collect();
            let mut bytes = vec![0; dtype.byte_len(values.len()).unwrap()];
            convert::encode(dtype, &values, &mut bytes).unwrap();
            (name, tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views: Vec<_> = encoded
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape, bytes).unwrap()))
        .collect();
    write_torch_zip(path, &views).unwrap();
    Checkpoint::open(path).unwrap()
}

/// What the published merging code writes: blocks that all share, and experts' own blocks and output layers.
fn merged(heads: &[Named], own_blocks: usize, blocks: usize) -> Named {
    let mut merged = Named::new();
    for (expert, head) in heads.iter().enumerate() {
        for (name, tensor) in head {
            let block = name.strip_prefix("model.mlp_resnet_blocks.").and_then(|rest| rest.split_once('.'));
            let own = match block {
                Some((block, rest)) => block
                    .parse::<usize>()
                    .unwrap()
                    .checked_sub(blocks - own_blocks)
                    .map(|block| format!("model.mlp_resnet_moe_blocks.{block}.{rest}")),
                None => (name.contains("layer_norm2") || name.contains("fc2")).then(|| name.clone()),
            };
            match own {
                Some(gate) if gate.ends_with("gating_factor") => {
                    let gates = heads.iter().map(|head| head[name][[0]]).collect();
                    merged.insert(gate, ArrayD::from_shape_vec(IxDyn(&[heads.len()]), gates).unwrap());
                }
                Some(own) => {
                    let (module, parameter) = own.rsplit_once('.').unwrap();
                    merged.insert(format!("{module}.experts.{expert}.{parameter}"), tensor.clone());
                }
                None => drop(merged.entry(name.clone()).or_insert_with(|| tensor.clone())),
            }
        }
    }
    merged
}

/// Hidden states at every depth, as (task tokens, action tokens).
fn states(random: &mut Random, shape: Shape) -> Vec<(Array2<f32>, Array2<f32>)> {
    let mut state =
        || (random.matrix(shape.task_tokens, shape.width), random.matrix(shape.action_tokens, shape.width));
    (0..=shape.blocks).map(|_| state()).collect()
}

/// Actions of every expert of a head.
fn fast(
    head: Checkpoint,
    projector: Checkpoint,
    states: &[(Array2<f32>, Array2<f32>)],
    proprio: &[f32],
    options: ExpertOptions,
) -> Vec<Array2<f32>> {
    let source = ExpertSource::of_head(Path::new("test"), head, projector);
    let backend = Cpu::new(Threads::available(), Precision::F32);
    let mut plan = Plan::new(&source);
    let expert = ActionExpert::<CpuMatrix>::plan(&mut plan, options).unwrap();
    let weights = plan.load(&backend).unwrap();
    let upload = |x: &Array2<f32>| backend.upload(x.nrows(), x.ncols(), x.as_slice().unwrap()).unwrap();
    let states: Vec<_> = states
        .iter()
        .map(|(task, action)| HiddenState { task: upload(task), action: upload(action) })
        .collect();
    let proprio = backend.upload(1, proprio.len(), proprio).unwrap();
    let device = Device { backend: &backend, weights: &weights };
    let run =
        |expert_index| expert.forward(device, &states, &proprio, expert_index).unwrap().to_host().unwrap();
    (0..expert.experts()).map(run).collect()
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = (1..4usize, 1..9usize, 1..10usize, 2..5usize, 1..40usize, 1..20usize, 1..12usize);
    sizes.prop_map(|(width, action, proprio, blocks, task_tokens, action_tokens, chunk)| Shape {
        width: 16 * width,
        action,
        proprio,
        blocks,
        task_tokens,
        action_tokens,
        chunk,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_design_equals_its_formulas(shape in shapes(), design in 0..3usize, seed: u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        let head = random.head(shape, [MERGEVLA, PRO, PLAIN][design]);
        let (head, projector) = files(dir.path(), &mut random, shape, Dtype::F32, &head);
        check(&mut random, shape, &[Tensors::read(&head)], head, projector);
    }

    #[test]
    fn merged_heads_are_every_expert(shape in shapes(), experts in 1..4usize, own in 1..3usize, seed: u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        let own = own.min(shape.blocks);
        // The experts share what they have in common: their first blocks.
        let first = random.head(shape, MERGEVLA);
        let heads: Vec<Named> = (0..experts).map(|_| {
            let mut head = random.head(shape, MERGEVLA);
            for (name, tensor) in &first {
                let block = name.strip_prefix("model.mlp_resnet_blocks.").and_then(|rest| rest.split_once('.'));
                let shared = match block {
                    Some((block, _)) => block.parse::<usize>().unwrap() < shape.blocks - own,
                    None => name.contains("layer_norm1") || name.contains("fc1"),
                };
                if shared {
                    head.insert(name.clone(), tensor.clone());
                }
            }
            head
        }).collect();
        let references: Vec<_> = heads.iter().map(|head| {
            Tensors(head.iter().map(|(name, tensor)| (name.clone(), tensor.mapv(f64::from))).collect())
        }).collect();
        let (head, projector) = files(dir.path(), &mut random, shape, Dtype::F32, &merged(&heads, own, shape.blocks));
        check(&mut random, shape, &references, head, projector);
    }
}

/// The head in a dtype, and a projector.
fn files(
    dir: &Path,
    random: &mut Random,
    shape: Shape,
    dtype: Dtype,
    head: &Named,
) -> (Checkpoint, Checkpoint) {
    let mut projector = Named::new();
    random.linear("fc1", shape.width, shape.proprio, &mut projector);
    random.linear("fc2", shape.width, shape.width, &mut projector);
    let head = stored(&dir.join("action_head--1_checkpoint.pt"), dtype, head);
    (head, stored(&dir.join("proprio_projector--1_checkpoint.pt"), Dtype::F32, &projector))
}

/// Compares every expert of a head with the reference on that expert's own tensors.
fn check(random: &mut Random, shape: Shape, references: &[Tensors], head: Checkpoint, projector: Checkpoint) {
    let states = states(random, shape);
    let proprio: Vec<f32> = (0..shape.proprio).map(|_| random.next()).collect();
    let exact = |x: &Array2<f32>| x.mapv(f64::from);
    let exact_states: Vec<_> = states.iter().map(|(task, action)| (exact(task), exact(action))).collect();
    let exact_proprio = Array2::from_shape_fn((1, proprio.len()), |(_, i)| f64::from(proprio[i]));
    let exact_projector = Tensors::read(&projector);
    let options = ExpertOptions { chunk_len: Some(shape.chunk), rope: None };
    let actions = fast(head, projector, &states, &proprio, options);
    assert_eq!(actions.len(), references.len());
    for (actions, reference) in actions.iter().zip(references) {
        let expected =
            expert::actions(reference, &exact_projector, &exact_states, &exact_proprio, shape.chunk);
        // Outputs are of the order of 1, but one alone may be close to 0.
        assert_eq!(actions.dim(), expected.dim());
        // A comparison that NaN fails, as a fold over `f64::max` would not.
        let close = |a: f32, e: f64| (f64::from(a) - e).abs() < 1e-5;
        let off = actions.iter().zip(&expected).find(|(a, e)| !close(**a, **e));
        assert_eq!(off, None);
    }
}

#[test]
fn rotary_tables_are_as_precise_as_the_stored_head() {
    let dir = tempfile::tempdir().unwrap();
    let shape =
        Shape { width: 64, action: 7, proprio: 8, blocks: 2, task_tokens: 300, action_tokens: 9, chunk: 8 };
    let mut random = Random(1);
    let head = random.head(shape, MERGEVLA);
    let states = states(&mut random, shape);
    let run = |dtype, rope| {
        let (head, projector) = files(dir.path(), &mut Random(2), shape, dtype, &head);
        fast(head, projector, &states, &[0.5; 8], ExpertOptions { chunk_len: None, rope }).remove(0)
    };
    let by_dtype = run(Dtype::BF16, None);
    assert_eq!(by_dtype.dim(), (8, 7));
    assert_eq!(by_dtype, run(Dtype::BF16, Some(RopePrecision::Bf16)));
    assert_ne!(by_dtype, run(Dtype::BF16, Some(RopePrecision::Exact)));
    assert_eq!(run(Dtype::F32, None), run(Dtype::F32, Some(RopePrecision::F32)));
    assert_eq!(run(Dtype::F16, None), run(Dtype::F16, Some(RopePrecision::F16)));
    assert_ne!(run(Dtype::F16, None), run(Dtype::F16, Some(RopePrecision::F32)));
}

#[test]
fn a_chunks_length_is_known_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let of = |action, proprio, chunk_len| {
        let shape =
            Shape { width: 16, action, proprio, blocks: 1, task_tokens: 3, action_tokens: 3, chunk: 8 };
        let mut random = Random(7);
        let head = random.head(shape, MERGEVLA);
        let (head, projector) = files(dir.path(), &mut random, shape, Dtype::F32, &head);
        let source = ExpertSource::of_head(Path::new("test"), head, projector);
        let options = ExpertOptions { chunk_len, rope: None };
        let expert = ActionExpert::<CpuMatrix>::plan(&mut Plan::new(&source), options);
        expert.map(|expert| expert.chunk()).map_err(|error| error.to_string())
    };
    assert_eq!(of(14, 14, None), Ok((25, 14)));
    assert_eq!(of(7, 7, None), Ok((5, 7)));
    assert_eq!(of(7, 8, None), Ok((8, 7)));
    assert_eq!(of(7, 8, Some(3)), Ok((3, 7)));
    let error = of(6, 6, None).unwrap_err();
    assert!(
        error.contains("6 values an action and 6 of state") && error.contains("num_actions_chunk"),
        "{error}"
    );
    assert_eq!(of(6, 6, Some(16)), Ok((16, 6)));
}
