//! Softmax attention on tiles: the scores of a block of queries of one head, never those of all.

use std::sync::{Mutex, PoisonError};

use ndarray::{ArrayView2, ArrayViewMut2, s};
use skillweld_linalg::{LinalgError, Product, Threads};

use super::math;
use super::tiles::{Tile, tiles};

/// Queries of a tile, at most. Scores of a tile take this times the number of keys.
const QUERIES: usize = 160;

/// Keys and values with their queries, all heads of one sequence side by side.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) queries: ArrayView2<'a, f32>,
    pub(super) keys: ArrayView2<'a, f32>,
    pub(super) values: ArrayView2<'a, f32>,
    pub(super) scale: f32,
}

/// How heads lie in the columns, and what a query sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) head_dim: usize,
    /// Heads of queries that share one head of keys and values.
    pub(super) sharing: usize,
    /// Query i sees keys 0 ..= i.
    pub(super) causal: bool,
    /// What is multiplied is rounded to bf16 where that is faster. The softmax is computed in f32.
    pub(super) narrow: bool,
}

/// A thread's buffers.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    /// Scaled queries, then one group's result.
    part: Vec<f32>,
    sums: Vec<f32>,
}

/// Attention within each sequence: `sequences` gives its groups, and its rows of the result.
pub(super) fn attend<'i, 'o>(
    threads: Threads,
    layout: Layout,
    sequences: impl Iterator<Item = (Vec<Group<'i>>, ArrayViewMut2<'o, f32>)>,
) -> Result<(), LinalgError> {
    let sequences: Vec<_> = sequences
        .map(|(groups, out)| {
            // Of one height, for keys and values are packed for every tile, be it ever so small.
            let queries = out.nrows().div_ceil(out.nrows().div_ceil(QUERIES).max(1)).max(1);
            (groups, tiles(out, queries, layout.head_dim).map(Mutex::new).collect::<Vec<_>>())
        })
        .collect();
    let parts: Vec<_> =
        sequences.iter().flat_map(|(groups, tiles)| tiles.iter().map(move |tile| (groups, tile))).collect();
    threads.for_each(parts.len(), Scratch::default, |scratch, index| {
        let (groups, tile) = parts[index];
        let mut tile = tile.lock().unwrap_or_else(PoisonError::into_inner);
        attend_tile(groups, layout, scratch, &mut tile)
    })
}

/// One head's result for some queries.
fn attend_tile(
    groups: &[Group<'_>],
    layout: Layout,
    scratch: &mut Scratch,
    tile: &mut Tile<'_>,
) -> Result<(), LinalgError> {
    let Layout { head_dim, sharing, causal, narrow } = layout;
    let (first, count) = (tile.row, tile.out.nrows());
    let kv_column = tile.column / head_dim / sharing * head_dim;
    // A causal tile has no use for what comes after its last query.
    let seen = |group: &Group<'_>| if causal { first + count } else { group.keys.nrows() };
    let total: usize = groups.iter().map(seen).sum();
    let Scratch { scores, part, sums } = scratch;
    scores.resize(count * total, 0.0);
    part.resize(count * head_dim, 0.0);
    let mut scores = matrix_mut(scores, count, total);
    let mut part = matrix_mut(part, count, head_dim);

    let mut column = 0;
    for group in groups {
        let end = column + seen(group);
        let queries = group.queries.slice(s![first..first + count, tile.column..tile.column + head_dim]);
        part.zip_mut_with(&queries, |part, query| *part = query * group.scale);
        let keys = group.keys.slice(s![..end - column, kv_column..kv_column + head_dim]);
        let product = Product::new(part.view(), keys.t()).narrow(narrow);
        product.write(Threads::ONE, &mut scores.slice_mut(s![.., column..end]))?;
        column = end;
    }
    sums.clear();
    for (index, mut row) in scores.rows_mut().into_iter().enumerate() {
        let row = row.as_slice_mut().unwrap_or_default();
        let (row, hidden) = row.split_at_mut(if causal { first + index + 1 } else { total });
        hidden.fill(0.0);
        sums.push(math::exp_and_sum(row, math::maximum(row)));
    }
    let mut column = 0;
    for group in groups {
        let end = column + seen(group);
        let values = group.values.slice(s![..end - column, kv_column..kv_column + head_dim]);
        let product = Product::new(scores.slice(s![.., column..end]), values).narrow(narrow);
        if column == 0 {
            product.write(Threads::ONE, &mut tile.out)?;
        } else {
            product.write(Threads::ONE, &mut part)?;
            tile.out += &part;
        }
        column = end;
    }
    for (mut row, sum) in tile.out.rows_mut().into_iter().zip(sums) {
        math::scale(row.as_slice_mut().unwrap_or_default(), 1.0 / *sum);
    }
    Ok(())
}

fn matrix_mut(values: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), values)
        .unwrap_or_else(|_| unreachable!("the slice was cut to the shape"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;
    use std::num::NonZeroUsize;
    use std::ops::Range;

    /// Softmax attention in f64, one score after the other.
    fn slow(groups: &[Group<'_>], layout: Layout, heads: usize) -> Array2<f64> {
        let width = layout.head_dim;
        Array2::from_shape_fn((groups[0].queries.nrows(), heads * width), |(query, column)| {
            let (q, kv) = (column / width * width, column / width / layout.sharing * width);
            let (mut weight, mut sum) = (0.0, 0.0);
            for group in groups {
                for key in 0..group.keys.nrows() {
                    if layout.causal && key > query {
                        continue;
                    }
                    let dot: f64 = (0..width)
                        .map(|j| {
                            f64::from(group.queries[[query, q + j]]) * f64::from(group.keys[[key, kv + j]])
                        })
                        .sum();
                    let power = (dot * f64::from(group.scale)).exp();
                    weight += power;
                    sum += power * f64::from(group.values[[key, kv + column % width]]);
                }
            }
            sum / weight
        })
    }

    fn matrix(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
        let value =
            |i: usize| ((i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
        Array2::from_shape_fn((rows, columns), |(i, j)| value(i * columns + j))
    }

    fn rows_of(group: Group<'_>, queries: Range<usize>, keys: Range<usize>) -> Group<'_> {
        Group {
            queries: group.queries.slice_move(s![queries, ..]),
            keys: group.keys.slice_move(s![keys.clone(), ..]),
            values: group.values.slice_move(s![keys, ..]),
            scale: group.scale,
        }
    }

    fn run(
        groups: &[Group<'_>],
        layout: Layout,
        heads: usize,
        sequences: usize,
        threads: usize,
    ) -> Array2<f32> {
        let rows = groups[0].queries.nrows();
        let mut out = Array2::from_elem((rows, heads * layout.head_dim), f32::NAN);
        let lengths: Vec<_> = groups.iter().map(|group| group.keys.nrows() / sequences).collect();
        let parts =
            out.axis_chunks_iter_mut(ndarray::Axis(0), rows / sequences).enumerate().map(|(index, out)| {
                let q = index * rows / sequences;
                let group = groups.iter().zip(&lengths);
                let group = group
                    .map(|(group, k)| rows_of(*group, q..q + rows / sequences, index * k..(index + 1) * k));
                (group.collect(), out)
            });
        attend(Threads::new(NonZeroUsize::new(threads).unwrap()), layout, parts).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn tiles_equal_whole_attention(
            length in 1..300usize, kv_heads in 1..3usize, sharing in 1..4usize, head_dim in 1..12usize,
            sequences in 1..3usize, causal: bool, narrow: bool, seed: u32, scale in -2f32..2.0,
        ) {
            let heads = kv_heads * sharing;
            let q = matrix(sequences * length, heads * head_dim, seed);
            let k = matrix(sequences * length, kv_heads * head_dim, seed ^ 0x1234_5678);
            let v = matrix(sequences * length, kv_heads * head_dim, seed ^ 0x7654_3210);
            let group = Group { queries: q.view(), keys: k.view(), values: v.view(), scale };
            let layout = Layout { head_dim, sharing, causal, narrow };
            let out = run(&[group], layout, heads, sequences, 1);
            prop_assert_eq!(&out, &run(&[group], layout, heads, sequences, 3));
            // Rounding to u relative moves a score by at most 2 u Σ |q k| and a mean of values up to 1 by twice what it moves
            // their weights' logarithms, beside their own rounding.
            let u = if narrow { 2f64.powi(-9) } else { 0.0 };
            let tolerance = (4.0 * u * head_dim as f64 * f64::from(scale.abs())).exp_m1() + 4.0 * u + 1e-5;
            for sequence in 0..sequences {
                let rows = s![sequence * length..(sequence + 1) * length, ..];
                let part = Group { queries: q.slice(rows), keys: k.slice(rows), values: v.slice(rows), scale };
                let expected = slow(&[part], layout, heads);
                let close = |(a, e): (&f32, &f64)| (f64::from(*a) - e).abs() < tolerance;
                prop_assert!(out.slice(rows).iter().zip(&expected).all(close));
            }
        }

        #[test]
        fn groups_share_one_softmax(
            queries in 1..20usize, lengths in proptest::collection::vec(1..90usize, 1..4), heads in 1..4usize,
            head_dim in 1..12usize, seed: u32,
        ) {
            let tensors: Vec<_> = lengths.iter().zip(1..).map(|(&length, n)| {
                let width = heads * head_dim;
                (matrix(queries, width, seed ^ n), matrix(length, width, seed ^ (n << 8)), matrix(length, width, seed ^ (n << 16)))
            }).collect();
            let groups: Vec<_> = tensors.iter().zip([1.0, -0.5, 2.0]).map(|((q, k, v), scale)| {
                Group { queries: q.view(), keys: k.view(), values: v.view(), scale }
            }).collect();
            let layout = Layout { head_dim, sharing: 1, causal: false, narrow: false };
            let out = run(&groups, layout, heads, 1, 2);
            let expected = slow(&groups, layout, heads);
            prop_assert!(out.iter().zip(&expected).all(|(a, e)| (f64::from(*a) - e).abs() < 1e-5));
        }
    }
}
