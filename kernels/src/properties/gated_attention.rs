//! `gated_attention` against its formula in f64.

use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use skillweld_gpu::ops::{AttentionGroup, GatedAttention, GatedShape, RotaryTable};
use skillweld_gpu::{Array, Memory, Target};
use skillweld_tensor::Dtype;

use super::random::{bytes_of, floats_of, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "gated_attention: equals its formula", check: equals_formula }]
}

#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    heads: usize,
    head_dim: usize,
    /// Elements between the rows of queries beyond their width.
    gap: usize,
    counts: Vec<usize>,
    queries: Dtype,
    keys: Dtype,
    out: Dtype,
    rotary: bool,
    seed: u64,
}

fn equals_formula<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let dtype = || prop_oneof![Just(Dtype::BF16), Just(Dtype::F32)];
    let head_dim = prop_oneof![1..6usize, Just(14usize), 16..33usize].prop_map(|eights| 8 * eights);
    let counts = prop::collection::vec(prop_oneof![0..10usize, 1..120usize], 1..4)
        .prop_filter("there are keys", |counts| counts.iter().sum::<usize>() > 0);
    let sizes = (0..19usize, 1..3usize, head_dim, 0..3usize, counts);
    let kinds = (dtype(), dtype(), dtype(), any::<bool>(), any::<u64>());
    let cases = (sizes, kinds).prop_map(|((rows, heads, head_dim, gap, counts), kinds)| Case {
        rows,
        heads,
        head_dim,
        gap: 8 * gap,
        counts,
        queries: kinds.0,
        keys: kinds.1,
        out: kinds.2,
        rotary: kinds.3,
        seed: kinds.4,
    });
    runner.run(&cases, |case| one_case(target, &case)).map_err(|error| error.to_string())
}

/// One kind of keys on both sides.
struct Group<M> {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scale: f32,
    device: [Array<M>; 3],
}

fn one_case<T: Target>(target: &T, case: &Case) -> Result<(), TestCaseError> {
    let Case { rows, heads, head_dim, .. } = *case;
    let width = heads * head_dim;
    let query_stride = width + case.gap;
    let mut groups = Vec::new();
    for (&count, i) in case.counts.iter().zip(0u64..) {
        let group = Group::new(target, case, count, case.seed ^ (i << 40), [1.0, -0.6, 1.7][i as usize]);
        groups.push(group.map_err(failed)?);
    }
    // Angles of any size: tables are given, so they need be no rotary embedding's.
    let tables = [5, 6].map(|n| values(rows * head_dim / 2, case.seed ^ n));
    let device_tables =
        [&tables[0], &tables[1]].map(|table| target.array_of(Dtype::F32, &bytes_of(Dtype::F32, table)));
    let [cos, sin] = device_tables;
    let (cos, sin) = (cos.map_err(failed)?, sin.map_err(failed)?);
    let mut out = target.array(case.out, rows * width).map_err(failed)?;
    let operands: Vec<_> = groups.iter().map(Group::operand).collect();
    let shape = GatedShape { rows, heads, head_dim, query_stride };
    let rotary = case.rotary.then(|| RotaryTable { cos: cos.view(), sin: sin.view() });
    let mut attention =
        GatedAttention::new(target, shape, &operands, rotary, out.view_mut()).map_err(failed)?;
    // Twice: the first run leaves the second what it found.
    attention.run(target).and_then(|()| attention.run(target)).map_err(failed)?;
    drop(attention);

    let is = floats_of(case.out, &target.read(&out).map_err(failed)?);
    for row in 0..rows {
        for head in 0..heads {
            let turn = |group: &Group<T::Memory>| {
                let at = row * query_stride + head * head_dim;
                turned(&group.queries[at..at + head_dim], case.rotary.then_some(&tables), row)
            };
            let columns = head * head_dim..(head + 1) * head_dim;
            let (expected, error) = formula(&groups, &turn, width, columns.clone());
            for (column, expected) in columns.zip(expected) {
                let is = f64::from(is[row * width + column]);
                let rounding = if case.out == Dtype::BF16 { expected.abs() * 2f64.powi(-8) } else { 0.0 };
                prop_assert!(
                    (is - expected).abs() <= error + rounding,
                    "row {} column {}: {} instead of {} ± {}",
                    row,
                    column,
                    is,
                    expected,
                    error + rounding
                );
            }
        }
    }
    Ok(())
}

impl<M: Memory> Group<M> {
    fn new<T: Target<Memory = M>>(
        target: &T,
        case: &Case,
        count: usize,
        seed: u64,
        gate: f32,
    ) -> skillweld_gpu::Result<Self> {
        let width = case.heads * case.head_dim;
        let stride = width + case.gap;
        let queries = if case.rows == 0 { 0 } else { (case.rows - 1) * stride + width };
        let bytes = [
            bytes_of(case.queries, &values(queries, seed ^ 1)),
            bytes_of(case.keys, &values(count * width, seed ^ 2)),
            bytes_of(case.keys, &values(count * width, seed ^ 3)),
        ];
        Ok(Self {
            queries: floats_of(case.queries, &bytes[0]),
            keys: floats_of(case.keys, &bytes[1]),
            values: floats_of(case.keys, &bytes[2]),
            scale: gate / (4.0 * (case.head_dim as f32).sqrt()),
            device: [
                target.array_of(case.queries, &bytes[0])?,
                target.array_of(case.keys, &bytes[1])?,
                target.array_of(case.keys, &bytes[2])?,
            ],
        })
    }

    fn operand(&self) -> AttentionGroup<'_> {
        let [queries, keys, values] = &self.device;
        AttentionGroup {
            queries: queries.view(),
            keys: keys.view(),
            values: values.view(),
            scale: self.scale,
        }
    }
}

/// A head's query, its neighbours turned by row `row` of the tables.
fn turned(query: &[f32], tables: Option<&[Vec<f32>; 2]>, row: usize) -> Vec<f64> {
    let query: Vec<f64> = query.iter().copied().map(f64::from).collect();
    let Some([cos, sin]) = tables else { return query };
    let half = query.len() / 2;
    let angle = |j: usize| (f64::from(cos[row * half + j % half]), f64::from(sin[row * half + j % half]));
    let turned = (0..query.len()).map(|j| {
        let ((cos, sin), other) = (angle(j), query[j ^ 1]);
        query[j] * cos + if j % 2 == 0 { -other } else { other } * sin
    });
    turned.collect()
}

/// One head's result for one row, and how far a kernel may be from it.
fn formula<M>(
    groups: &[Group<M>],
    query: &dyn Fn(&Group<M>) -> Vec<f64>,
    width: usize,
    columns: Range<usize>,
) -> (Vec<f64>, f64) {
    let mut scores = Vec::new();
    // Σ |q k| bounds what rounding each factor to 21 bits, and summing, moves a score by.
    let mut moved = 0f64;
    for group in groups {
        let query = query(group);
        for (key, value) in group.keys.chunks(width).zip(group.values.chunks(width)) {
            let products = query.iter().zip(&key[columns.clone()]).map(|(q, k)| q * f64::from(*k));
            let (dot, size) =
                products.fold((0.0, 0.0), |(dot, size), product| (dot + product, size + product.abs()));
            let scale = f64::from(group.scale);
            moved = moved.max(size * scale.abs());
            scores.push((dot * scale, &value[columns.clone()]));
        }
    }
    let most = scores.iter().map(|(score, _)| *score).fold(f64::NEG_INFINITY, f64::max);
    let mut sum = vec![0.0; columns.len()];
    let (mut weight, mut size) = (0.0, 0f64);
    for (score, value) in &scores {
        let by = (score - most).exp();
        weight += by;
        for (sum, value) in sum.iter_mut().zip(*value) {
            *sum += by * f64::from(*value);
            size = size.max(f64::from(value.abs()));
        }
    }
    sum.iter_mut().for_each(|sum| *sum /= weight);
    // A score off by e moves each weight, and their sum, by a factor within 1 ± e; 2⁻²⁰ for the weights' own halves.
    let error = (2.0 * moved * 2f64.powi(-19) + 2f64.powi(-18)) * size;
    (sum, error)
}
