//! Policies and sessions run on any backend: here the processor's, with every product counted.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod merge;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use merge::{Merge, observation};
use ndarray::Array3;
use skillweld_linalg::Threads;
use skillweld_policy::backend::{
    AttentionShape, Backend, Columns, KeyGroup, Pairing, PatchGrid, ReadBlock, Result, RopeTable, Rows, Then,
    TrunkBlock, WeightKind,
};
use skillweld_policy::{
    Cpu, CpuMatrix, CpuTrunk, CpuWeight, Observation, Policy, PolicyOptions, Precision, Session,
};

struct Counting {
    cpu: Cpu,
    products: Arc<AtomicUsize>,
}

impl Backend for Counting {
    type Weight = CpuWeight;
    type Matrix = CpuMatrix;
    type Trunk = CpuTrunk;

    fn allocate(&self, kind: WeightKind, rows: usize, columns: usize) -> Result<CpuWeight> {
        self.cpu.allocate(kind, rows, columns)
    }

    fn write(&self, weights: &mut [&mut CpuWeight], read: &ReadBlock<'_>) -> Result<()> {
        self.cpu.write(weights, read)
    }

    fn upload(&self, rows: usize, columns: usize, values: &[f32]) -> Result<CpuMatrix> {
        self.cpu.upload(rows, columns, values)
    }

    fn synchronize(&self) -> Result<()> {
        self.cpu.synchronize()
    }

    fn linear(
        &self,
        x: &CpuMatrix,
        weight: &CpuWeight,
        bias: Option<&CpuWeight>,
        then: Then<'_, Self>,
    ) -> Result<CpuMatrix> {
        self.products.fetch_add(1, Ordering::Relaxed);
        let then = match then {
            Then::Keep => Then::Keep,
            Then::Gelu => Then::Gelu,
            Then::AddTo { residual, scale } => Then::AddTo { residual, scale },
            Then::SiluGate(gate) => Then::SiluGate(gate),
        };
        self.cpu.linear(x, weight, bias, then)
    }

    fn layer_norm(
        &self,
        x: &CpuMatrix,
        gain: &CpuWeight,
        bias: &CpuWeight,
        epsilon: f32,
    ) -> Result<CpuMatrix> {
        self.cpu.layer_norm(x, gain, bias, epsilon)
    }

    fn rms_norm(&self, x: &CpuMatrix, gain: &CpuWeight, epsilon: f32) -> Result<CpuMatrix> {
        self.cpu.rms_norm(x, gain, epsilon)
    }

    fn rope(&self, x: &mut CpuMatrix, table: &RopeTable<CpuMatrix>, pairing: Pairing) -> Result<()> {
        self.cpu.rope(x, table, pairing)
    }

    fn attention(
        &self,
        queries: Columns<'_, CpuMatrix>,
        keys: Columns<'_, CpuMatrix>,
        values: Columns<'_, CpuMatrix>,
        shape: AttentionShape,
    ) -> Result<CpuMatrix> {
        self.cpu.attention(queries, keys, values, shape)
    }

    fn gated_attention(&self, groups: &[KeyGroup<'_, CpuMatrix>], heads: usize) -> Result<CpuMatrix> {
        self.cpu.gated_attention(groups, heads)
    }

    fn trunk_start(&self, rows: usize, values: &[f32]) -> Result<CpuTrunk> {
        self.cpu.trunk_start(rows, values)
    }

    fn trunk_read(&self, trunk: &CpuTrunk) -> Result<CpuMatrix> {
        self.cpu.trunk_read(trunk)
    }

    fn trunk_block(
        &self,
        x: &mut CpuTrunk,
        attended: &CpuMatrix,
        block: TrunkBlock<'_, CpuWeight>,
    ) -> Result<()> {
        self.cpu.trunk_block(x, attended, block)
    }

    fn patches(&self, pixels: &CpuMatrix, grid: PatchGrid) -> Result<CpuMatrix> {
        self.cpu.patches(pixels, grid)
    }

    fn gather(&self, table: &CpuWeight, indices: &[u32]) -> Result<CpuMatrix> {
        self.cpu.gather(table, indices)
    }

    fn concat_rows(&self, parts: &[Rows<'_, CpuMatrix>]) -> Result<CpuMatrix> {
        self.cpu.concat_rows(parts)
    }

    fn concat_columns(&self, parts: &[&CpuMatrix]) -> Result<CpuMatrix> {
        self.cpu.concat_columns(parts)
    }
}

#[test]
fn another_backend_runs_the_same_policy() {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(2, 1).write(dir.path());
    let products = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&products);
    let make = move || {
        let cpu = Cpu::new(Threads::available(), Precision::F32);
        Ok(Counting { cpu, products: Arc::clone(&counter) })
    };
    let policy = Arc::new(Policy::open_on(dir.path(), &PolicyOptions::default(), make).unwrap());
    assert_eq!(products.load(Ordering::Relaxed), 0);
    let mut session = Session::new(Arc::clone(&policy), policy.default_routing().unwrap());
    let expected = Policy::open(dir.path()).unwrap().session().unwrap().step(&observation(0)).unwrap();
    let step = session.step(&observation(0)).unwrap();
    assert_eq!(
        (step.task, step.actions, step.decision),
        (expected.task, expected.actions, expected.decision)
    );

    // The routing's second forward saw nothing anew: a step of one task makes more products than half of it.
    let routed = products.swap(0, Ordering::Relaxed);
    session.step(&observation(0)).unwrap();
    let alone = products.load(Ordering::Relaxed);
    assert!(alone < routed && routed < 2 * alone, "{routed} {alone}");
}

#[test]
fn what_no_task_can_use_is_refused_before_anything_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(2, 1).write(dir.path());
    let products = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&products);
    let make = move || {
        let cpu = Cpu::new(Threads::available(), Precision::F32);
        Ok(Counting { cpu, products: Arc::clone(&counter) })
    };
    let policy = Policy::open_on(dir.path(), &PolicyOptions::default(), make).unwrap();
    let raw = |length: usize, instruction: &str| {
        let image = Array3::from_elem((60, 80, 3), 7u8);
        Observation::new(&[image.view(), image.view()], &vec![0.0; length], instruction)
    };
    let prepared = |tokens: usize, length: usize| Observation::Prepared {
        pixel_values: Array3::zeros((12, 224, 224)),
        input_ids: vec![1; tokens],
        proprio: vec![0.0; length],
    };
    let mut session = policy.session().unwrap();
    for (observation, words) in [
        (raw(7, "open"), "7 dimensions, but the statistics of"),
        (raw(8, &"open ".repeat(200)), "tokens, but 512 are the most"),
        (prepared(3, 9), "proprio: 9 values, expected 8"),
        (prepared(513, 8), "a prompt of 513 tokens, but 512 are the most"),
        (prepared(0, 8), "the prompt is empty"),
    ] {
        let error = session.step(&observation).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(products.load(Ordering::Relaxed), 0, "{words}");
    }
    session.step(&prepared(3, 8)).unwrap();
}
