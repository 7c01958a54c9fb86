//! Every kernel against sums in f64, and AMX's tiles emulated, so that packing and tiling are tested on any processor.

use half::bf16;
use ndarray::{Array2, ArrayView2, s};
use proptest::prelude::*;

use super::{
    Bands, COLUMNS, Element, InstructionSet, Kernel, PANELS_TOGETHER, Place, Shape, multiply, pack_band,
    pack_panel, widen_panel,
};

fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_fn((rows, columns), |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

fn packed<T: Element>(kernel: Kernel, weight: &ArrayView2<'_, T>, depth: usize) -> Vec<T> {
    let place = Place::Cache;
    let panels = weight.nrows().div_ceil(COLUMNS).next_multiple_of(PANELS_TOGETHER);
    let mut packed = vec![T::default(); panels * COLUMNS * depth];
    for (first, panel) in (0..weight.nrows()).step_by(COLUMNS).zip(packed.chunks_exact_mut(COLUMNS * depth)) {
        let last = weight.nrows().min(first + COLUMNS);
        pack_panel(kernel, &weight.slice(s![first..last, ..]), panel, place);
    }
    packed
}

/// `before` + x · weightᵀ in f64, and what f32 may differ from it by: γ(depth) · (|before| + |x| · |weight|ᵀ).
fn reference(
    before: &Array2<f32>,
    x: &ArrayView2<'_, f32>,
    weight: &ArrayView2<'_, f32>,
) -> (Array2<f64>, Array2<f64>) {
    let wide = |a: &ArrayView2<'_, f32>| a.mapv(f64::from);
    let magnitude = |a: &ArrayView2<'_, f32>| a.mapv(|v| f64::from(v.abs()));
    let sums = before.mapv(f64::from) + wide(x).dot(&wide(weight).t());
    let sizes = magnitude(&before.view()) + magnitude(x).dot(&magnitude(weight).t());
    (sums, sizes * (f64::from(f32::EPSILON) * (x.ncols() + 2) as f64))
}

fn assert_close(out: &ArrayView2<'_, f32>, (sums, tolerance): &(Array2<f64>, Array2<f64>), what: &str) {
    for ((at, out), (sum, tolerance)) in out.indexed_iter().zip(sums.iter().zip(tolerance)) {
        let error = (f64::from(*out) - sum).abs();
        assert!(error <= *tolerance, "{what}: {at:?} is {out}, not {sum}: off by {error}, over {tolerance}");
    }
}

/// The bands of x, `depth` steps each, whatever the kernel packs them with.
fn banded<T: Element>(kernel: Kernel, x: &Array2<T>, depth: usize) -> Vec<T> {
    let rows = T::shape(kernel).band_rows;
    let mut padded = Array2::from_elem((x.nrows().next_multiple_of(rows), depth), T::default());
    padded.slice_mut(s![..x.nrows(), ..x.ncols()]).assign(x);
    let mut bands = vec![T::default(); padded.len()];
    for (rows, band) in padded.as_slice().unwrap().chunks(rows * depth).zip(bands.chunks_mut(rows * depth)) {
        pack_band(kernel, rows, depth, depth, band);
    }
    bands
}

/// x · weightᵀ on one kernel: added to `before` or, without it, alone.
fn product<T: Element>(
    kernel: Kernel,
    x: &Array2<T>,
    weight: &Array2<T>,
    before: Option<&Array2<f32>>,
) -> Array2<f32> {
    let depth = x.ncols().next_multiple_of(T::STEPS);
    let (bands, panels) = (banded(kernel, x, depth), packed(kernel, &weight.view(), depth));
    let (m, n) = (x.nrows(), weight.nrows());
    // Wider than need be, and full of what must be overwritten.
    let stride = n.next_multiple_of(32) + 32;
    let mut out = Array2::from_elem((m.next_multiple_of(T::shape(kernel).band_rows), stride), f32::NAN);
    if let Some(before) = before {
        out.slice_mut(s![..m, ..n]).assign(before);
    }
    let (bands, panels) = (Bands::new(&bands, depth), (&panels[..], COLUMNS * depth));
    let sums = (out.as_slice_mut().unwrap(), stride);
    multiply(kernel, bands, (0..m, 0..depth), panels, n, sums, before.is_some());
    assert!(out.slice(s![.., stride - 32..]).iter().all(|beyond| beyond.is_nan()));
    out.slice(s![..m, ..n]).to_owned()
}

fn kernels() -> impl Iterator<Item = Kernel> {
    InstructionSet::ALL.into_iter().filter_map(|set| Kernel::of(set).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn f32_kernels_multiply(m in 1..40usize, n in 1..70usize, k in 1..90usize, add: bool, seed: u64) {
        let (x, weight, before) = (matrix(m, k, seed), matrix(n, k, !seed), matrix(m, n, seed ^ 1));
        let before = add.then_some(&before);
        let expected = reference(before.unwrap_or(&Array2::zeros((m, n))), &x.view(), &weight.view());
        for kernel in kernels() {
            let panels = packed(kernel, &weight.view(), k);
            prop_assert_eq!(&panels, &packed(Kernel::PORTABLE, &weight.view(), k));
            let out = product(kernel, &x, &weight, before);
            assert_close(&out.view(), &expected, kernel.instruction_set().name());
        }
    }

    #[test]
    fn bf16_kernels_multiply(m in 1..70usize, n in 1..70usize, k in 1..130usize, add: bool, seed: u64) {
        let (x, weight) = (matrix(m, k, seed).mapv(bf16::from_f32), matrix(n, k, !seed).mapv(bf16::from_f32));
        let before = matrix(m, n, seed ^ 1);
        let before = add.then_some(&before);
        let (wide_x, wide_weight) = (x.mapv(bf16::to_f32), weight.mapv(bf16::to_f32));
        let expected = reference(before.unwrap_or(&Array2::zeros((m, n))), &wide_x.view(), &wide_weight.view());
        let mut portable = None;
        for kernel in kernels() {
            let panels = packed(kernel, &weight.view(), k.next_multiple_of(bf16::STEPS));
            prop_assert_eq!(&panels, &packed(Kernel::PORTABLE, &weight.view(), k.next_multiple_of(bf16::STEPS)));
            let out = if kernel.takes_bf16() {
                product(kernel, &x, &weight, before)
            } else {
                product(kernel, &wide_x, &wide_weight, before)
            };
            assert_close(&out.view(), &expected, kernel.instruction_set().name());
            if !kernel.takes_bf16() {
                // Products of bf16 are exact in f32, so fusing them into the sum changes nothing.
                prop_assert_eq!(portable.get_or_insert_with(|| out.clone()), &out);
            }
        }
    }

    #[test]
    fn bands_hold_units_of_rows(words in 1..40usize, seed: u64) {
        fn check<T: Element + PartialEq + std::fmt::Debug>(kernel: Kernel, units: usize, value: impl Fn(f32) -> T, seed: u64) {
            let Shape { band_rows, unit, .. } = T::shape(kernel);
            let steps = units * unit;
            let x = matrix(band_rows, steps, seed).mapv(value);
            for (at, packed) in banded(kernel, &x, steps).into_iter().enumerate() {
                let (row, step) = (at / unit % band_rows, at / unit / band_rows * unit + at % unit);
                assert_eq!(packed, x[[row, step]], "{kernel:?}: row {row}, step {step}");
            }
        }
        for kernel in kernels() {
            check(kernel, words, |value| value, seed);
            check(kernel, words, bf16::from_f32, seed);
        }
    }
}

proptest! {
    #[test]
    fn panels_widen_exactly(bits in proptest::collection::vec(any::<u16>(), 96)) {
        let panel: Vec<bf16> = bits.into_iter().map(bf16::from_bits).collect();
        for kernel in kernels() {
            let mut wide = vec![0.0; panel.len()];
            widen_panel(kernel, &panel, &mut wide);
            for (k, values) in wide.chunks_exact(16).enumerate() {
                for (column, value) in values.iter().enumerate() {
                    // Signalling NaNs too: only bits move.
                    let expected = u32::from(panel[k / 2 * 32 + 2 * column + k % 2].to_bits()) << 16;
                    let quiet = if f32::from_bits(expected).is_nan() { 0x0040_0000 } else { 0 };
                    prop_assert_eq!(value.to_bits() | quiet, expected | quiet);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod emulated {
    use super::super::{Block, amx};
    use super::*;

    type Register = [[u8; 64]; 16];

    /// `tileloadd` with the configuration that `amx::block` loads: 16 rows of 64 bytes, `stride` bytes apart.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load<T>(from: *const T, stride: usize) -> Register {
        // SAFETY: the caller's.
        std::array::from_fn(|row| unsafe { from.byte_add(row * stride).cast::<[u8; 64]>().read_unaligned() })
    }

    /// `tilestored`.
    ///
    /// # Safety
    /// 16 rows of 64 bytes, `stride` bytes apart, can be written.
    unsafe fn store(to: *mut f32, stride: usize, register: &Register) {
        for (row, bytes) in register.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { to.byte_add(row * stride).cast::<[u8; 64]>().write_unaligned(*bytes) };
        }
    }

    /// `tdpbf16ps` as Intel's manual describes it: for each row m of `a` and each pair k of it, column n of row k of `b`
    /// is a pair as well; the products of the even halves and those of the odd ones are added up by themselves.
    fn multiply_pairs(sums: &mut Register, a: &Register, b: &Register) {
        let half =
            |bytes: &[u8; 64], i: usize| bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32();
        for m in 0..16 {
            for n in 0..16 {
                let at = 4 * n..4 * n + 4;
                let (mut even, mut odd) = (0.0f32, 0.0f32);
                for (k, b) in b.iter().enumerate() {
                    even = half(&a[m], 2 * k).mul_add(half(b, 2 * n), even);
                    odd = half(&a[m], 2 * k + 1).mul_add(half(b, 2 * n + 1), odd);
                }
                let sum = f32::from_le_bytes(sums[m][at.clone()].try_into().unwrap()) + (even + odd);
                sums[m][at].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }

    /// What the assembly of `amx::tile` does, instruction by instruction.
    unsafe fn tile(t: &amx::Tile) {
        let halves = if t.tall { 2 } else { 1 };
        for (half, x) in t.x.into_iter().enumerate().take(halves) {
            for (side, panel) in t.panels.into_iter().enumerate() {
                // SAFETY: the caller promises the rows and panels that `Tile` describes.
                unsafe {
                    let out = t.out.byte_add(16 * half * t.out_stride + 64 * side);
                    let mut sums = if t.accumulate { load(out, t.out_stride) } else { [[0; 64]; 16] };
                    for step in 0..t.steps {
                        let a = load(x.byte_add(1024 * step), 64);
                        let b = load(panel.byte_add(1024 * step), 64);
                        multiply_pairs(&mut sums, &a, &b);
                    }
                    store(out, t.out_stride, &sums);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn amx_multiplies_what_is_packed(m in 1..80usize, n in 1..80usize, k in 1..130usize, add: bool, seed: u64) {
            let depth = k.next_multiple_of(bf16::STEPS);
            let (x, weight) = (matrix(m, k, seed).mapv(bf16::from_f32), matrix(n, k, !seed).mapv(bf16::from_f32));
            let (rows, columns) = (m.next_multiple_of(16), n.next_multiple_of(32));
            let mut out = matrix(rows, columns, seed ^ 1);
            let start = out.slice(s![..m, ..n]).mapv(|v| if add { v } else { 0.0 });
            let expected =
                reference(&start, &x.mapv(bf16::to_f32).view(), &weight.mapv(bf16::to_f32).view());
            // Bands as AMX has them, but packed by hand: there may be no such kernel here.
            let mut bands = vec![bf16::ZERO; rows * depth];
            for ((row, step), value) in x.indexed_iter() {
                bands[row / 16 * 16 * depth + step / 32 * 512 + row % 16 * 32 + step % 32] = *value;
            }
            let panels = packed(Kernel::PORTABLE, &weight.view(), depth);
            let block = Block {
                x: bands.as_ptr(),
                band_stride: 16 * depth,
                panels: panels.as_ptr(),
                panel_stride: COLUMNS * depth,
                out: out.as_mut_ptr(),
                out_stride: columns,
                rows: m,
                columns,
                depth,
                accumulate: add,
            };
            // SAFETY: `block` points into the buffers above, all in whole bands, panels and tiles.
            unsafe { amx::tiles(&block, tile) };
            assert_close(&out.slice(s![..m, ..n]), &expected, "emulated AMX");
        }
    }
}
