//! The plugins in plain C compute what their first lines say.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use serde_json::{Value, json};
use skillweld_plugin_host::{BlockInputs, Bound, ExpertBlock, HostHooks, Method, Plugin, PluginError};
use tempfile::TempDir;

/// Compiles a plugin as its first lines say, and gives its one method.
fn method(source: &str) -> Method {
    let folder = TempDir::new().unwrap();
    let library = folder.path().join("plugin.so");
    let status = Command::new("cc")
        .args(["-std=c99", "-O3", "-fPIC", "-shared", "-I", "crates/plugin-abi/include", "-o"])
        .arg(&library)
        .arg(source)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .status()
        .unwrap();
    assert!(status.success());
    Plugin::load(&library).unwrap().methods()[0].clone()
}

fn bind(method: &Method, experts: usize, parameters: &Value) -> Bound {
    let value = |spec: &skillweld_plugin_host::ParamSpec, _| Ok(parameters.get(&spec.name).cloned());
    method.bind::<PluginError>(experts, &HostHooks::SILENT, value).unwrap()
}

type Tensor = Vec<Vec<f32>>;

/// Sums over one tensor or all, then every tensor in blocks of 16.
fn merge(bound: &Bound, tensors: &[Tensor]) -> Vec<Vec<f32>> {
    const LEN: usize = 16;
    let with = |tensor: &Tensor, start: usize, call: &mut dyn FnMut(&BlockInputs<'_>)| {
        let (numel, end) = (tensor[0].len(), tensor[0].len().min(start + LEN));
        let experts: Vec<_> = tensor.iter().map(|expert| ExpertBlock::Dense(&expert[start..end])).collect();
        let (shape, hooks) = ([numel], &HostHooks::SILENT);
        call(&BlockInputs {
            key: "w",
            shape: &shape,
            offset: start,
            len: end - start,
            experts: &experts,
            statistics: &[],
            base: None,
            merged: None,
            seed: 0,
            hooks,
        });
    };
    let sums = |tensors: &[Tensor]| {
        let mut sums = vec![0.0; bound.plan().totals_len()];
        if bound.plan().passes() > 0 {
            for tensor in tensors {
                for start in (0..tensor[0].len()).step_by(LEN) {
                    with(tensor, start, &mut |block| {
                        assert!(bound.observe(block, 0, &[], &mut sums, &mut []).unwrap().is_continue());
                    });
                }
            }
        }
        sums
    };
    let over_all = sums(tensors);
    let mut merged = Vec::new();
    for tensor in tensors {
        let own = sums(std::slice::from_ref(tensor));
        let totals = match bound.plan().scope {
            skillweld_plugin_host::Scope::Global => &over_all,
            skillweld_plugin_host::Scope::Tensor => &own,
        };
        let mut out = vec![f32::NAN; tensor[0].len()];
        for start in (0..out.len()).step_by(LEN) {
            with(tensor, start, &mut |block| {
                bound.run(block, totals, &mut out[start..start + block.len], &mut []).unwrap();
            });
        }
        merged.push(out);
    }
    merged
}

/// MetaGPT's equation in f64: weights ‖τ_k‖² / Σ ‖τ_j‖² over the tensors of `norms`.
fn metagpt(tensor: &Tensor, norms: &[Tensor], lambda: f64) -> Vec<f64> {
    let square = |k: usize| -> f64 {
        norms.iter().flat_map(|tensor| &tensor[k]).map(|&value| f64::from(value) * f64::from(value)).sum()
    };
    let squares: Vec<f64> = (0..tensor.len()).map(square).collect();
    let all: f64 = squares.iter().sum();
    let weight = |k: usize| if all == 0.0 { 0.0 } else { lambda * squares[k] / all };
    let element = |i: usize| (0..tensor.len()).map(|k| weight(k) * f64::from(tensor[k][i])).sum();
    (0..tensor[0].len()).map(element).collect()
}

/// MagMax: of each element the entry of largest magnitude, among equals the first.
fn magmax(tensor: &Tensor, lambda: f32) -> Vec<f32> {
    let largest = |i: usize| {
        tensor
            .iter()
            .map(|expert| expert[i])
            .fold(0f32, |kept, new| if new.abs() > kept.abs() { new } else { kept })
    };
    (0..tensor[0].len()).map(|i| lambda * largest(i)).collect()
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let tensor = |experts: usize| {
        (1usize..60).prop_flat_map(move |len| {
            proptest::collection::vec(proptest::collection::vec(-1f32..1.0, len), experts)
        })
    };
    (1usize..5).prop_flat_map(move |experts| proptest::collection::vec(tensor(experts), 1..4))
}

#[test]
fn metagpt_equals_its_equation() {
    let method = method("plugins/metagpt-c/metagpt.c");
    proptest!(|(tensors in tensors(), lambda in -2f64..2.0, own in any::<bool>())| {
        let scope = if own { "tensor" } else { "global" };
        let bound = bind(&method, tensors[0].len(), &json!({"lambda": lambda, "scope": scope}));
        for (tensor, merged) in tensors.iter().zip(merge(&bound, &tensors)) {
            let norms = if own { std::slice::from_ref(tensor) } else { &tensors };
            for (merged, expected) in merged.iter().zip(metagpt(tensor, norms, lambda)) {
                // Weights are rounded to f32 and sum to at most |λ|; then a product and a sum an expert, of values below 1.
                let bound = 3.0 * tensor.len() as f64 * f64::from(f32::EPSILON) * lambda.abs().max(1e-30);
                prop_assert!((f64::from(*merged) - expected).abs() <= bound, "{merged} {expected}");
            }
        }
    });
    let bound = bind(&method, 2, &json!({}));
    // 1 and 9 of 10.
    assert_eq!(merge(&bound, &[vec![vec![1.0, 0.0], vec![0.0, 3.0]]]), [[0.1, 0.9 * 3.0]]);
    assert_eq!(merge(&bound, &[vec![vec![0.0], vec![0.0]]]), [[0.0]]);
}

#[test]
fn magmax_equals_its_definition() {
    let method = method("plugins/magmax-c/magmax.c");
    proptest!(|(tensors in tensors(), lambda in -2f32..2.0)| {
        let bound = bind(&method, tensors[0].len(), &json!({"lambda": lambda}));
        for (tensor, merged) in tensors.iter().zip(merge(&bound, &tensors)) {
            prop_assert_eq!(merged, magmax(tensor, lambda));
        }
    });
    let bound = bind(&method, 2, &json!({}));
    assert_eq!(merge(&bound, &[vec![vec![1.0, -2.0, -3.0], vec![-1.0, 1.0, -4.0]]]), [[1.0, -2.0, -4.0]]);
}
