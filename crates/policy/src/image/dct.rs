//! One 8 × 8 block through JPEG: transform, quantisation, and back, with the integer transforms of libjpeg.
//!
//! Forward is the accurate integer transform (Loeffler, Ligtenberg and Moschytz, *Practical fast 1-D DCT algorithms
//! with 11 multiplications*, 1989), which libjpeg writes with; inverse is the fast one (Arai, Agui and Nakajima, *A fast
//! DCT-SQ scheme for images*, 1988), which TensorFlow reads with. Their roundings are part of the result.

/// Samples along each side of a block.
pub(super) const SIDE: usize = 8;

/// Eight rows of eight; the passes work on all columns at once.
pub(super) type Block = [[i32; SIDE]; SIDE];

/// Quantisation of one component at one quality.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantization {
    /// What the forward transform's coefficients are divided by: the table's step times the transform's scale.
    divisors: Block,
    /// What the quantised ones are multiplied by for the inverse transform: step times its scale.
    multipliers: Block,
}

/// Steps for luminance at quality 50 (ITU-T T.81, table K.1).
pub(super) const LUMINANCE: Block = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
];

/// Steps for chrominance at quality 50 (ITU-T T.81, table K.2).
pub(super) const CHROMINANCE: Block = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
];

impl Quantization {
    /// A table scaled to a quality of 50 to 100 as libjpeg does: (200 − 2 · quality) percent, at least 1.
    pub(super) fn new(table: &Block, quality: i32) -> Self {
        let step = |v: usize, u: usize| ((table[v][u] * (200 - 2 * quality) + 50) / 100).clamp(1, 255);
        // The inverse transform leaves out the factor √2 cos(kπ/16) of every frequency k but the first.
        let factor = |k: usize| match k {
            0 => 1.0,
            k => std::f64::consts::SQRT_2 * (k as f64 * std::f64::consts::PI / 16.0).cos(),
        };
        let scale = |v: usize, u: usize| (factor(v) * factor(u) * f64::from(1 << 14)).round() as i32;
        let table = |entry: &dyn Fn(usize, usize) -> i32| {
            std::array::from_fn(|v| std::array::from_fn(|u| entry(v, u)))
        };
        Self {
            divisors: table(&|v, u| step(v, u) * 8),
            multipliers: table(&|v, u| shifted(step(v, u) * scale(v, u), 12)),
        }
    }
}

/// What a block of samples, 0 … 255, reads as once it has been written.
#[inline(always)]
pub(super) fn round_trip(samples: &Block, quantization: &Quantization) -> Block {
    let mut block = transposed(samples);
    for row in &mut block {
        for sample in row {
            *sample -= 128;
        }
    }
    let block = forward(&block, |even| even << 2, 11);
    let mut block = forward(&transposed(&block), |even| shifted(even, 2), 15);
    let steps = quantization.divisors.iter().zip(&quantization.multipliers);
    for (row, (divisors, multipliers)) in block.iter_mut().zip(steps) {
        for ((coefficient, divisor), multiplier) in row.iter_mut().zip(divisors).zip(multipliers) {
            // Halves away from zero. Numerator and divisor are small enough for the f32 quotient never to reach the
            // next integer by rounding.
            let quotient = ((coefficient.abs() + divisor / 2) as f32 / *divisor as f32) as i32;
            *coefficient = quotient * coefficient.signum() * multiplier;
        }
    }
    let mut block = transposed(&inverse(&transposed(&inverse(&block))));
    for row in &mut block {
        for sample in row {
            *sample = ((*sample >> 5) + 128).clamp(0, 255);
        }
    }
    block
}

/// x / 2ⁿ, rounded half up.
#[inline(always)]
fn shifted(x: i32, n: u32) -> i32 {
    (x + (1 << (n - 1))) >> n
}

#[inline(always)]
fn transposed(block: &Block) -> Block {
    let mut out = [[0; SIDE]; SIDE];
    for (i, row) in block.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            out[j][i] = *value;
        }
    }
    out
}

/// Accurate forward transform along the first axis, constants with 13 fractional bits. `even` scales the two
/// frequencies that need no multiplication; `shift` is what the others lose.
#[inline(always)]
fn forward(x: &Block, even: impl Fn(i32) -> i32, shift: u32) -> Block {
    let mut out = [[0; SIDE]; SIDE];
    for lane in 0..SIDE {
        let sum = |k: usize| x[k][lane] + x[7 - k][lane];
        let difference = |k: usize| x[k][lane] - x[7 - k][lane];

        let (outer, inner) = (sum(0) + sum(3), sum(1) + sum(2));
        let (outer_odd, inner_odd) = (sum(0) - sum(3), sum(1) - sum(2));
        out[0][lane] = even(outer + inner);
        out[4][lane] = even(outer - inner);
        let turned = (inner_odd + outer_odd) * 4433;
        out[2][lane] = shifted(turned + outer_odd * 6270, shift);
        out[6][lane] = shifted(turned - inner_odd * 15137, shift);

        let [d0, d1, d2, d3] = [difference(0), difference(1), difference(2), difference(3)];
        let both = (d3 + d1 + d2 + d0) * 9633;
        let (near, far) = ((d3 + d0) * -7373, (d2 + d1) * -20995);
        let (first, second) = ((d3 + d1) * -16069 + both, (d2 + d0) * -3196 + both);
        out[7][lane] = shifted(d3 * 2446 + near + first, shift);
        out[5][lane] = shifted(d2 * 16819 + far + second, shift);
        out[3][lane] = shifted(d1 * 25172 + far + first, shift);
        out[1][lane] = shifted(d0 * 12299 + near + second, shift);
    }
    out
}

/// Fast inverse transform along the first axis, constants with 8 fractional bits, products rounded down.
#[inline(always)]
fn inverse(x: &Block) -> Block {
    let times = |value: i32, constant: i32| (value * constant) >> 8;
    let mut out = [[0; SIDE]; SIDE];
    for lane in 0..SIDE {
        let at = |k: usize| x[k][lane];
        let (sum, difference) = (at(0) + at(4), at(0) - at(4));
        let bent = at(2) + at(6);
        let turned = times(at(2) - at(6), 362) - bent;
        let even = [sum + bent, difference + turned, difference - turned, sum - bent];

        let (a, b) = (at(5) + at(3), at(5) - at(3));
        let (c, d) = (at(1) + at(7), at(1) - at(7));
        let both = times(b + d, 473);
        let odd0 = c + a;
        let odd1 = times(b, -669) + both - odd0;
        let odd2 = times(c - a, 362) - odd1;
        let odd3 = times(d, 277) - both + odd2;
        // The last frequency enters with the other sign.
        let odd = [odd0, odd1, odd2, -odd3];
        for k in 0..4 {
            out[k][lane] = even[k] + odd[k];
            out[7 - k][lane] = even[k] - odd[k];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// JPEG by its definition (ITU-T T.81, A.3.3 and A.3.4), in f64, and how far a sample may be off because coefficients
    /// that lie beside a half may be rounded to the other side.
    fn reference(samples: &Block, steps: &Block) -> ([[f64; SIDE]; SIDE], f64) {
        let basis = |k: usize, n: usize| {
            let scale = if k == 0 { 0.5 / 2f64.sqrt() } else { 0.5 };
            scale * ((2 * n + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()
        };
        let mut coefficients = [[0.0; SIDE]; SIDE];
        let mut out = [[128.0; SIDE]; SIDE];
        let mut doubt = 0.0;
        let all = || (0..SIDE * SIDE).map(|index| (index / SIDE, index % SIDE));
        for (v, u) in all() {
            let sum: f64 =
                all().map(|(y, x)| f64::from(samples[y][x] - 128) * basis(v, y) * basis(u, x)).sum();
            let step = f64::from(steps[v][u]);
            // Integers know a coefficient to a half, and no basis is larger than a quarter.
            if ((sum / step).fract().abs() - 0.5).abs() * step < 0.5 {
                doubt += 0.25 * step;
            }
            coefficients[v][u] = (sum / step).round() * step;
        }
        for (y, x) in all() {
            out[y][x] += all().map(|(v, u)| coefficients[v][u] * basis(v, y) * basis(u, x)).sum::<f64>();
            out[y][x] = out[y][x].clamp(0.0, 255.0);
        }
        (out, doubt)
    }

    #[test]
    fn the_inverse_transforms_scales_are_libjpegs() {
        // The first two rows of its table, with 14 fractional bits; step 1 leaves 2 of them.
        let scales = [
            [16384, 22725, 21407, 19266, 16384, 12873, 8867, 4520],
            [22725, 31521, 29692, 26722, 22725, 17855, 12299, 6270],
        ];
        let ones = Quantization::new(&[[1; SIDE]; SIDE], 100);
        for (row, scales) in ones.multipliers.iter().zip(scales) {
            assert_eq!(*row, scales.map(|scale| (scale + 2048) >> 12));
        }
    }

    proptest! {
        #[test]
        fn integers_stay_near_the_definition(samples: [[u8; SIDE]; SIDE], quality in 50i32..=95) {
            let samples = samples.map(|row| row.map(i32::from));
            let quantization = Quantization::new(&LUMINANCE, quality);
            let steps = quantization.divisors.map(|row| row.map(|divisor| divisor / 8));
            let (exact, doubt) = reference(&samples, &steps);
            for (row, exact) in round_trip(&samples, &quantization).iter().zip(&exact) {
                for (sample, exact) in row.iter().zip(exact) {
                    // The fast inverse transform is off by a few levels where contrasts are extreme.
                    prop_assert!((f64::from(*sample) - exact).abs() <= 6.0 + doubt, "{sample} {exact} ± {doubt}");
                }
            }
        }

        #[test]
        fn a_flat_block_keeps_its_level(level: u8) {
            let flat = [[i32::from(level); SIDE]; SIDE];
            // Quality 95 has a step of 2 for the mean of luminance: an eighth of that in every sample.
            prop_assert_eq!(round_trip(&flat, &Quantization::new(&LUMINANCE, 95)), flat);
        }
    }
}
