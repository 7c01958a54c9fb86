//! Products against sums in f64, within what their dtype allows, and bit for bit against themselves on more threads.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::num::NonZeroUsize;

use half::bf16;
use ndarray::{Array2, ArrayView2, Axis, s};
use proptest::prelude::*;
use skillweld_linalg::{InstructionSet, Kernel, LinalgError, PackedWeight, Product, Right, Threads};
use skillweld_tensor::Dtype;

fn threads(count: usize) -> Threads {
    Threads::new(NonZeroUsize::new(count).unwrap())
}

fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_fn((rows, columns), |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

fn narrowed(a: &ArrayView2<'_, f32>) -> Array2<f32> {
    a.mapv(|value| bf16::from_f32(value).to_f32())
}

fn product<'a>(x: &ArrayView2<'a, f32>, right: impl Into<Right<'a>>, n: usize, count: usize) -> Array2<f32> {
    let mut out = Array2::from_elem((x.nrows(), n), f32::NAN);
    Product::new(*x, right).write(threads(count), &mut out.view_mut()).unwrap();
    out
}

/// |out − x · b| ≤ (k + 2) · ε · |x| · |b|: k roundings in any order, of products that may be rounded as well.
fn assert_product(out: &Array2<f32>, x: &ArrayView2<'_, f32>, b: &ArrayView2<'_, f32>) {
    let sums = x.mapv(f64::from).dot(&b.mapv(f64::from));
    let sizes = x.mapv(|v| f64::from(v.abs())).dot(&b.mapv(|v| f64::from(v.abs())));
    let units = f64::from(f32::EPSILON) * (x.ncols() + 2) as f64;
    for ((at, out), (sum, size)) in out.indexed_iter().zip(sums.iter().zip(&sizes)) {
        let error = (f64::from(*out) - sum).abs();
        assert!(error <= units * size, "{at:?} is {out}, not {sum}: off by {error}");
    }
}

/// Shapes around the kernels' tiles, around blocks of k (256, 384, 512) and of rows (384, 480), around what is packed at
/// once (480), and around pieces of columns (64 to 128; AMX takes 128 to 256).
fn shapes() -> impl Strategy<Value = (usize, usize, usize)> {
    prop_oneof![
        (0..40usize, 0..80usize, 0..150usize),
        (1..20usize, 500..530usize, 1..20usize),
        (1..4usize, 470..490usize, 1..4usize),
        (375..395usize, 250..265usize, 50..140usize),
        (470..490usize, 380..390usize, 20..60usize),
        (1..20usize, 250..390usize, 120..300usize),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matrices_of_any_strides_multiply((m, k, n) in shapes(), layout in 0..16u8, seed: u64) {
        // Every other row, columns from the third on, both orders.
        let strided = |rows: usize, columns: usize, seed, bits: u8| {
            let (r, c) = if bits & 1 == 0 { (rows, columns) } else { (columns, rows) };
            (matrix(2 * r, c + 5, seed), r, c, bits)
        };
        let view = |(a, r, c, bits): &(Array2<f32>, usize, usize, u8)| {
            let mut view = a.slice(s![..2 * r; 2, 3..3 + c]).to_owned();
            if bits & 2 != 0 {
                view.invert_axis(Axis(0));
            }
            if bits & 1 == 0 { view } else { view.reversed_axes() }
        };
        let (x, b) = (strided(m, k, seed, layout & 3), strided(k, n, !seed, layout >> 2));
        let (x, b) = (view(&x), view(&b));
        let one = product(&x.view(), b.view(), n, 1);
        assert_product(&one, &x.view(), &b.view());
        for count in [2, 3, 8] {
            prop_assert_eq!(&product(&x.view(), b.view(), n, count), &one);
        }
    }

    #[test]
    fn packed_weights_multiply((m, k, n) in shapes(), seed: u64) {
        let (x, weight) = (matrix(m, k, seed), matrix(n, k, !seed));
        let packed = PackedWeight::from_f32(&weight.view());
        prop_assert_eq!(&packed.to_f32(), &weight);
        let one = product(&x.view(), &packed, n, 1);
        prop_assert_eq!(&product(&x.view(), weight.t(), n, 1), &one);
        prop_assert_eq!(&product(&x.view(), &packed, n, 3), &one);
    }

    #[test]
    fn bf16_weights_multiply((m, k, n) in shapes(), seed: u64) {
        let (x, weight) = (matrix(m, k, seed), matrix(n, k, !seed));
        let packed = PackedWeight::from_bf16(&weight.mapv(bf16::from_f32).view());
        let weight = narrowed(&weight.view());
        prop_assert_eq!(&packed.to_f32(), &weight);
        let one = product(&x.view(), &packed, n, 1);
        assert_product(&one, &narrowed(&x.view()).view(), &weight.t());
        prop_assert_eq!(&product(&x.view(), &packed, n, 3), &one);
        // The same on every other kernel that there is.
        for kernel in InstructionSet::ALL.into_iter().filter_map(|set| Kernel::of(set).ok()) {
            let mut out = Array2::zeros((m, n));
            Product::new(&x, &packed).kernel(kernel).write(threads(2), &mut out.view_mut()).unwrap();
            assert_product(&out, &narrowed(&x.view()).view(), &weight.t());
        }
    }

    #[test]
    fn both_sides_may_be_rounded((m, k, n) in shapes(), transposed: bool, count in 1..4usize, seed: u64) {
        let (x, stored) = (matrix(m, k, seed), if transposed { matrix(n, k, !seed) } else { matrix(k, n, !seed) });
        let right = if transposed { stored.t() } else { stored.view() };
        for kernel in InstructionSet::ALL.into_iter().filter_map(|set| Kernel::of(set).ok()) {
            let mut out = Array2::zeros((m, n));
            Product::new(&x, right).narrow(true).kernel(kernel).write(threads(count), &mut out.view_mut()).unwrap();
            if [InstructionSet::Avx512Bf16, InstructionSet::Amx].contains(&kernel.instruction_set()) {
                assert_product(&out, &narrowed(&x.view()).view(), &narrowed(&right).view());
            } else {
                assert_product(&out, &x.view(), &right);
            }
        }
    }

    #[test]
    fn rows_are_rewritten_in_place(n in 1..80usize, k in 1..70usize, rows in 1..50usize, narrow: bool, seed: u64) {
        let dtype = if narrow { Dtype::BF16 } else { Dtype::F32 };
        let mut weight = PackedWeight::zeros(dtype, n, k).unwrap();
        for seed in [seed, !seed] {
            let values = matrix(n, k, seed);
            let mut next = 0;
            for mut block in weight.blocks_mut(rows) {
                prop_assert_eq!(block.first_row(), next);
                let part = next..next + block.rows();
                next = part.end;
                let values = values.slice(s![part, ..]);
                let written = if narrow {
                    block.write_bf16(&values.mapv(bf16::from_f32).view())
                } else {
                    block.write_f32(&values)
                };
                prop_assert_eq!((written, block.dtype()), (Ok(()), dtype));
            }
            prop_assert_eq!(next, n);
            prop_assert_eq!(weight.to_f32(), if narrow { narrowed(&values.view()) } else { values });
        }
        // No more memory than the values, with rows rounded up to 32 and columns to 32.
        let padded = n.next_multiple_of(32) * k.next_multiple_of(32);
        let size = if narrow { 2 } else { 4 };
        prop_assert!(weight.bytes() <= padded * size);
    }

    #[test]
    fn bias_and_what_follows_see_every_element_once((m, k, n) in shapes(), count in 1..4usize, seed: u64) {
        let (x, weight, bias) = (matrix(m, k, seed), matrix(n, k, !seed), matrix(1, n, seed ^ 1));
        let plain = product(&x.view(), weight.t(), n, 1);
        let then = |row: usize, column: usize, values: &mut [f32]| {
            for (value, column) in values.iter_mut().zip(column..) {
                *value = 2.0 * *value + (row * n + column) as f32;
            }
        };
        let mut out = Array2::zeros((m, n));
        Product::new(&x, weight.t())
            .bias(bias.as_slice().unwrap())
            .then(&then)
            .write(threads(count), &mut out.view_mut())
            .unwrap();
        let expected = Array2::from_shape_fn((m, n), |(i, j)| {
            2.0 * (plain[[i, j]] + bias[[0, j]]) + (i * n + j) as f32
        });
        prop_assert_eq!(out, expected);
    }
}

/// Heads side by side in one matrix, as attention has them: rows are farther apart than they are wide.
#[test]
fn heads_of_attention_multiply_in_place() {
    let (tokens, heads, width) = (37, 3, 64);
    let [q, k, v] = [1, 2, 3].map(|seed| matrix(tokens, heads * width, seed));
    let mut out = Array2::zeros((tokens, heads * width));
    for head in 0..heads {
        let columns = s![.., head * width..(head + 1) * width];
        let (q, k, v) = (q.slice(columns), k.slice(columns), v.slice(columns));
        let scores = product(&q, k.reversed_axes(), tokens, 2);
        assert_product(&scores, &q, &k.t());
        Product::new(&scores, v).write(Threads::ONE, &mut out.slice_mut(columns)).unwrap();
        assert_product(&out.slice(columns).to_owned(), &scores.view(), &v);
    }
}

#[test]
fn a_product_inside_a_job_ends() {
    let (x, weight) = (matrix(70, 90, 1), matrix(150, 90, 2));
    let alone = product(&x.view(), weight.t(), 150, 1);
    let packed = PackedWeight::from_bf16(&weight.mapv(bf16::from_f32).view());
    let alone_bf16 = product(&x.view(), &packed, 150, 1);
    let result = threads(3).for_each(
        20,
        || (),
        |(), _| {
            let same = product(&x.view(), weight.t(), 150, 2) == alone;
            let same_bf16 = product(&x.view(), &packed, 150, 2) == alone_bf16;
            if same && same_bf16 { Ok(()) } else { Err("another result inside a job") }
        },
    );
    assert_eq!(result, Ok(()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, weight) = (matrix(3, 5, 1), matrix(4, 5, 2));
    let write = |product: Product<'_>, rows, columns| {
        product.write(Threads::ONE, &mut Array2::zeros((rows, columns)).view_mut()).unwrap_err().to_string()
    };
    let right = Product::new(&x, weight.t());
    assert_eq!(write(Product::new(&x, weight.view()), 3, 5), "a product: 3 × 5 and 4 × 5 do not fit");
    assert_eq!(write(right, 3, 5), "writing a product: 3 × 4 and 3 × 5 do not fit");
    assert_eq!(write(right.bias(&[0.0][..]), 3, 4), "adding a bias to a product: 3 × 4 and 1 × 1 do not fit");
    let mut columns = Array2::zeros((4, 3)).reversed_axes();
    let refused = right.write(Threads::ONE, &mut columns.view_mut());
    assert_eq!(refused, Err(LinalgError::NotContiguous { rows: 3, cols: 4 }));
    assert_eq!(PackedWeight::zeros(Dtype::F16, 1, 1).unwrap_err(), LinalgError::Dtype { dtype: Dtype::F16 });
    let mut packed = PackedWeight::from_f32(&weight.view());
    let mut block = packed.blocks_mut(16).next().unwrap();
    let refused = block.write_f32(&x.view()).unwrap_err().to_string();
    assert_eq!(refused, "rewriting a block of a weight: 4 × 5 and 3 × 5 do not fit");
    let narrow = weight.mapv(bf16::from_f32);
    assert_eq!(
        block.write_bf16(&narrow.view()),
        Err(LinalgError::OtherDtype { weight: Dtype::F32, given: Dtype::BF16 })
    );
    let mut packed = PackedWeight::from_bf16(&narrow.view());
    let mut block = packed.blocks_mut(16).next().unwrap();
    assert_eq!(
        block.write_f32(&weight.view()),
        Err(LinalgError::OtherDtype { weight: Dtype::BF16, given: Dtype::F32 })
    );
}
