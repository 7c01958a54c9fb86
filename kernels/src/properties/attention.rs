//! Softmax attention against one score after the other in f64.

use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::Target;
use skillweld_gpu::ops::{
    AttentionShape, ColumnsView, GroupView, RowsViewMut, plain_attention, plain_gated_attention,
    prefill_attention,
};
use skillweld_tensor::Dtype;

use super::random::values;
use super::rows::{HostRows, Output, close, float, rounding};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "prefill_attention: equals attention in f64", check: prefill_equals },
        Property { name: "plain_attention: equals attention in f64", check: plain_equals },
        Property { name: "plain_attention: groups share one softmax", check: groups_share },
    ]
}

/// Values whose scores are neither all alike nor all but one nothing.
fn operand(rows: usize, columns: usize, dtype: Dtype, size: f32, seed: u64) -> HostRows {
    let values: Vec<f32> =
        values(rows * columns, seed).iter().map(|value| size * value.clamp(-1.0, 1.0)).collect();
    HostRows::of(rows, columns, dtype, &values)
}

/// Where one of queries, keys and values lies: a matrix and its first column.
type Part<'a> = (&'a HostRows, usize);

/// A group's queries, keys, values and scale.
type Group<'a> = (Part<'a>, Part<'a>, Part<'a>, f64);

/// The whole result: for each query and head the mean of the values of the keys that `keys` picks for the query, weighted
/// by exp(scale · q k).
fn slow(
    groups: &[Group<'_>],
    keys: impl Fn(usize, &HostRows) -> Range<usize>,
    (heads, sharing, head_dim): (usize, usize, usize),
) -> Vec<f64> {
    let rows = groups[0].0.0.rows;
    let mut out = Vec::new();
    for (query, head) in (0..rows).flat_map(|query| (0..heads).map(move |head| (query, head))) {
        let (q_column, kv_column) = (head * head_dim, head / sharing * head_dim);
        let mut scores = Vec::new();
        for &((q, q_start), (k, k_start), (v, v_start), scale) in groups {
            for key in keys(query, k) {
                let products = (0..head_dim)
                    .map(|j| q.at(query, q_start + q_column + j) * k.at(key, k_start + kv_column + j));
                scores.push((products.sum::<f64>() * scale, v, key, v_start + kv_column));
            }
        }
        let highest = scores.iter().fold(f64::NEG_INFINITY, |highest, score| highest.max(score.0));
        let (mut total, mut sums) = (0.0, vec![0.0; head_dim]);
        for (score, v, key, start) in scores {
            let weight = (score - highest).exp();
            total += weight;
            sums.iter_mut().enumerate().for_each(|(j, sum)| *sum += weight * v.at(key, start + j));
        }
        out.extend(sums.iter().map(|sum| sum / total));
    }
    out
}

/// Length, sequences, heads of keys, sharing, head_dim; causal; side by side; size of queries; seed.
type Case = ((usize, usize, usize, usize, usize), bool, bool, f32, u64);

fn cases(
    head_dim: impl Strategy<Value = usize>,
    length: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Case> {
    let sizes = (length, 1..3usize, 1..3usize, 1..3usize, head_dim);
    (sizes, any::<bool>(), any::<bool>(), 0.2f32..6.0, any::<u64>())
}

fn prefill_equals<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let length = prop_oneof![1..20usize, 50..70usize, 120..150usize, 180..300usize];
    let cases = cases((1..17usize).prop_map(|eights| eights * 8), length);
    let tolerance = 2f64.powi(-7); // probabilities, then results, rounded to bf16, of values up to 1; twice that
    runner
        .run(&cases, |case| one_case(target, case, [Dtype::BF16; 2], tolerance, prefill_attention))
        .map_err(|error| error.to_string())
}

fn plain_equals<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let head_dim = prop_oneof![1..20usize, (1..10usize).prop_map(|eights| eights * 8)];
    let dtypes = prop_oneof![Just([Dtype::F32; 2]), Just([Dtype::BF16; 2]), Just([Dtype::F32, Dtype::BF16])];
    let cases = (cases(head_dim, prop_oneof![1..12usize, 120..140usize]), dtypes);
    runner
        .run(&cases, |(case, dtypes)| {
            one_case(target, case, dtypes, 2e-5 + 2.0 * rounding(dtypes[0]), plain_attention)
        })
        .map_err(|error| error.to_string())
}

/// Either operation on whole sequences.
type Attend<T> = fn(
    &T,
    ColumnsView<'_>,
    ColumnsView<'_>,
    ColumnsView<'_>,
    AttentionShape,
    &mut RowsViewMut<'_>,
) -> skillweld_gpu::Result<()>;

fn one_case<T: Target>(
    target: &T,
    ((length, sequences, kv_heads, sharing, head_dim), causal, side_by_side, size, seed): Case,
    [q_dtype, kv_dtype]: [Dtype; 2],
    tolerance: f64,
    attention: Attend<T>,
) -> Result<(), TestCaseError> {
    let heads = kv_heads * sharing;
    let (rows, width, kv_width) = (sequences * length, heads * head_dim, kv_heads * head_dim);
    // Keys and values in one matrix, or in two.
    let q = operand(rows, width, q_dtype, size, seed);
    let k = operand(rows, if side_by_side { 2 * kv_width } else { kv_width }, kv_dtype, 1.0, seed ^ 1);
    let v = operand(rows, kv_width, kv_dtype, 1.0, seed ^ 2);
    let (v, v_start) = if side_by_side { (&k, kv_width) } else { (&v, 0) };
    let uploaded = [q.upload(target)?, k.upload(target)?, v.upload(target)?];
    let shape = AttentionShape { sequences, heads, kv_heads, head_dim, causal };
    let mut out = Output::new(target, rows, width, q_dtype)?;
    let whole = |rows| ColumnsView { rows, start: 0 };
    let v_view = ColumnsView { rows: v.view(&uploaded[2]), start: v_start };
    attention(
        target,
        whole(q.view(&uploaded[0])),
        whole(k.view(&uploaded[1])),
        v_view,
        shape,
        &mut out.view(),
    )
    .map_err(failed)?;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let expected = slow(
        &[((&q, 0), (&k, 0), (v, v_start), scale)],
        |row, _| {
            let first = row / length * length;
            first..if causal { row + 1 } else { first + length }
        },
        (heads, sharing, head_dim),
    );
    close("attention", &out.values(target)?, |index| (expected[index], tolerance))
}

fn groups_share<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let lengths = prop::collection::vec((1..150usize, -2f32..2.0), 1..4);
    let cases = (1..10usize, lengths, 1..4usize, 1..20usize, float(), any::<u64>());
    runner.run(&cases, |case| one_gate(target, case)).map_err(|error| error.to_string())
}

type Gate = (usize, Vec<(usize, f32)>, usize, usize, Dtype, u64);

fn one_gate<T: Target>(
    target: &T,
    (queries, lengths, heads, head_dim, kv_dtype, seed): Gate,
) -> Result<(), TestCaseError> {
    let width = heads * head_dim;
    let host: Vec<_> = (1u64..)
        .zip(&lengths)
        .map(|(n, &(keys, _))| {
            (
                operand(queries, width, Dtype::F32, 1.0, seed ^ n),
                operand(keys, width, kv_dtype, 1.0, seed ^ (n << 8)),
                operand(keys, width, kv_dtype, 1.0, seed ^ (n << 16)),
            )
        })
        .collect();
    let mut uploaded = Vec::new();
    for (q, k, v) in &host {
        uploaded.push((q.upload(target)?, k.upload(target)?, v.upload(target)?));
    }
    let groups: Vec<_> = host
        .iter()
        .zip(&uploaded)
        .zip(&lengths)
        .map(|((host, on_target), &(_, scale))| GroupView {
            queries: host.0.view(&on_target.0),
            keys: host.1.view(&on_target.1),
            values: host.2.view(&on_target.2),
            scale,
        })
        .collect();
    let mut out = Output::new(target, queries, width, Dtype::F32)?;
    plain_gated_attention(target, &groups, heads, &mut out.view()).map_err(failed)?;
    let parts: Vec<_> = host
        .iter()
        .zip(&lengths)
        .map(|((q, k, v), &(_, scale))| ((q, 0), (k, 0), (v, 0), f64::from(scale)))
        .collect();
    let expected = slow(&parts, |_, keys| 0..keys.rows, (heads, 1, head_dim));
    close("gated attention", &out.values(target)?, |index| (expected[index], 2e-5))
}
