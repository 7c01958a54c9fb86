//! Methods on whole matrices over four LoRA experts of rank 64, as factors and multiplied out: each matrix of a layer of
//! Qwen2.5-0.5B alone, and a layer with all threads, as a merge takes them. One JSON object: milliseconds by method, path and
//! matrix. `cargo xtask bench --peer fusionbench` puts FusionBench's functions on the same experts beside it.
//!
//! Arguments: `factored` or `dense`, then methods (all five).

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot run stops, and says what it measured"
)]
#![allow(missing_docs, reason = "a binary")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Instant;

use ndarray::Array2;
use serde_json::json;
use skillweld_benches::{plugins, random};
use skillweld_linalg::{Threads, gemm};
use skillweld_plugin_host::{BlockInputs, Bound, ExpertBlock, HostHooks, Method, ParamSpec, PluginError};
use skillweld_tensor::LowRank;

const EXPERTS: usize = 4;
const RANK: usize = 64;
/// A layer: name, rows, columns.
const LAYER: [(&str, usize, usize); 7] = [
    ("q", 896, 896),
    ("k", 128, 896),
    ("v", 128, 896),
    ("o", 896, 896),
    ("gate", 4864, 896),
    ("up", 4864, 896),
    ("down", 896, 4864),
];
const METHODS: [&str; 5] = ["knots", "tsv", "iso_c", "iso_cts", "wudi"];
/// WUDI's steps, and how many of them are measured on the dense path.
const STEPS: usize = 300;
const FEW: usize = 10;
/// Layers that are merged at once, so that no thread waits long for the last.
const LAYERS: usize = 4;

struct Matrix {
    shape: [usize; 2],
    factors: Vec<LowRank>,
    dense: Vec<Vec<f32>>,
}

impl Matrix {
    fn new((name, rows, columns): (&str, usize, usize), dense: bool) -> Self {
        let factor = |k: usize, side: &str, rows: usize, columns: usize| {
            let values = random(&format!("{name}.{k}.{side}"), rows * columns);
            Array2::from_shape_vec((rows, columns), values).expect("as many values as the shape has")
        };
        let expert = |k| LowRank::new(factor(k, "b", rows, RANK), factor(k, "a", RANK, columns));
        let factors: Vec<_> = (0..EXPERTS).map(|k| expert(k).expect("one rank")).collect();
        let multiplied = |factors: &LowRank| {
            let mut out = vec![0.0; rows * columns];
            let (b, a) = (factors.b().as_slice(), factors.a().as_slice());
            let (b, a) = (b.expect("row-major"), a.expect("row-major"));
            gemm(1.0, b, a, &mut out, (rows, RANK, columns));
            out
        };
        let dense = factors.iter().filter(|_| dense).map(multiplied).collect();
        Self { shape: [rows, columns], factors, dense }
    }

    fn merge(&self, method: &Bound) -> f64 {
        let mut out = vec![0.0; self.shape[0] * self.shape[1]];
        let experts: Vec<ExpertBlock<'_>> = match self.dense.is_empty() {
            true => self.factors.iter().map(ExpertBlock::LowRank).collect(),
            false => self.dense.iter().map(|dense| ExpertBlock::Dense(dense)).collect(),
        };
        let block = BlockInputs {
            key: "weight",
            shape: &self.shape,
            offset: 0,
            len: out.len(),
            experts: &experts,
            statistics: &[],
            base: None,
            merged: None,
            seed: 0,
            hooks: &HostHooks::SILENT,
        };
        let start = Instant::now();
        method.run(&block, &[], &mut out, &mut []).expect("finite experts can be merged");
        start.elapsed().as_secs_f64() * 1e3
    }
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let dense = arguments.first().is_some_and(|path| path == "dense");
    let chosen = |method: &&&str| arguments.len() < 2 || arguments[1..].iter().any(|name| name == **method);
    let registry = plugins();
    let matrices: Vec<Matrix> = LAYER.iter().map(|&matrix| Matrix::new(matrix, dense)).collect();
    let mut results = BTreeMap::new();
    for id in METHODS.iter().filter(chosen) {
        let method = registry.merge(id).expect("the plugin is built");
        let times = match *id == "wudi" && dense {
            false => times(&bind(method, None), &matrices, *id == "wudi" || dense),
            // Most of the 300 steps say nothing that the first have not said.
            true => {
                let [start, some] = [0, FEW].map(|steps| times(&bind(method, Some(steps)), &matrices, true));
                let scaled = |(name, start): (&String, &f64)| {
                    (name.clone(), start + (some[name] - start) * STEPS as f64 / FEW as f64)
                };
                start.iter().map(scaled).collect()
            }
        };
        results.insert((*id).to_owned(), times);
    }
    println!("{}", json!({"path": if dense { "dense" } else { "factored" }, "ms": results}));
}

/// A method with its defaults, but for the number of iterations.
fn bind(method: &Method, iterations: Option<usize>) -> Bound {
    let value = |spec: &ParamSpec, _: Option<usize>| {
        let iterations = iterations.filter(|_| spec.name == "iterations");
        Ok::<_, PluginError>(iterations.map(|count| json!(count)))
    };
    method.bind(EXPERTS, &HostHooks::SILENT, value).expect("these are allowed")
}

/// Milliseconds of each matrix alone, and of a layer with all threads. What takes seconds runs once.
fn times(bound: &Bound, matrices: &[Matrix], once: bool) -> BTreeMap<String, f64> {
    let mut times = BTreeMap::new();
    let rounds = if once { 1 } else { 2 };
    for ((name, ..), matrix) in LAYER.iter().zip(matrices) {
        // Twice, because the first is cold.
        let best = (0..rounds).map(|_| matrix.merge(bound)).fold(f64::INFINITY, f64::min);
        times.insert((*name).to_owned(), best);
    }
    let layers = if once { 1 } else { LAYERS };
    let mut jobs: Vec<&Matrix> = matrices.iter().cycle().take(layers * matrices.len()).collect();
    jobs.sort_by_key(|matrix| std::cmp::Reverse(matrix.shape[0] * matrix.shape[1]));
    let start = Instant::now();
    let job = |(): &mut (), i: usize| {
        jobs[i].merge(bound);
        Ok::<_, Infallible>(())
    };
    let Ok(()) = Threads::available().for_each(jobs.len(), || (), job);
    times.insert("layer".to_owned(), start.elapsed().as_secs_f64() * 1e3 / layers as f64);
    times
}
