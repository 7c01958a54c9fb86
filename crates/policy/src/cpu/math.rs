//! exp and erf without branches, so that loops over them vectorise; and the activations made of them.
//!
//! Multiplications and additions are fused explicitly: half the instructions, and the same bits on every processor, if
//! slowly on one without them.

use skillweld_simd::vectorize;

/// eˣ to 2 ulp; below −87.3 as there, above 88.3 as there: never 0 or infinite.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to an integer, which then stands in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    /// ln 2 in two parts; products of the first with integers below 2⁸ are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;

    // Comparisons that are false for NaN: it stays NaN.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = (-n).mul_add(LN2_LOW, (-n).mul_add(LN2_HIGH, x));
    // Taylor's series on |r| ≤ ½ ln 2: the first term left out is 5e-9.
    let p = (1.0 / 5040.0f32).mul_add(r, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * power
}

/// The error function to 1.2e-7 absolute and 2e-7 relative.
#[inline(always)]
fn erf(x: f32) -> f32 {
    /// erf(x) / x in powers of x² for |x| < 0.9, fitted to least maximal error.
    const SMALL: [f32; 7] = [
        7.889_119e-5,
        -8.020_841e-4,
        5.189_535e-3,
        -2.685_444_4e-2,
        0.112_836,
        -0.376_126_26,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    /// −ln(1 − erf(x)) / x in powers of x for 0.9 ≤ x ≤ 4, likewise.
    const LARGE: [f32; 9] = [
        -2.320_739e-6,
        3.696_671_8e-5,
        -2.344_452e-4,
        5.720_857_3e-4,
        1.680_306_9e-3,
        -2.110_176_2e-2,
        0.104_053_1,
        0.636_145_83,
        1.128_455_8,
    ];
    let polynomial =
        |coefficients: &[f32], x: f32| coefficients.iter().fold(0.0f32, |sum, c| sum.mul_add(x, *c));
    let magnitude = x.abs().min(4.0);
    let small = magnitude * polynomial(&SMALL, magnitude * magnitude);
    let large = 1.0 - exp(-(magnitude * polynomial(&LARGE, magnitude)));
    let value = if magnitude < 0.9 { small } else { large };
    value.copysign(x)
}

vectorize! {
    /// ½ y (1 + erf(y / √2)).
    pub(super) fn gelu(values: &mut [f32]) {
        for value in values {
            let half = 0.5 * *value;
            *value = half.mul_add(erf(*value * std::f32::consts::FRAC_1_SQRT_2), half);
        }
    }

    /// silu(gate) · y.
    pub(super) fn silu_gate(values: &mut [f32], gates: &[f32]) {
        for (value, &gate) in values.iter_mut().zip(gates) {
            *value *= gate / (1.0 + exp(-gate));
        }
    }

    /// residual + y.
    pub(super) fn add(values: &mut [f32], residual: &[f32]) {
        for (value, residual) in values.iter_mut().zip(residual) {
            *value += residual;
        }
    }

    /// residual + scale · y.
    pub(super) fn scale_and_add(values: &mut [f32], scale: &[f32], residual: &[f32]) {
        for ((value, scale), residual) in values.iter_mut().zip(scale).zip(residual) {
            *value = residual + scale * *value;
        }
    }

    /// factor · y.
    pub(super) fn scale(values: &mut [f32], factor: f32) {
        for value in values {
            *value *= factor;
        }
    }

    /// values\[i\] = exp(values\[i\] − shift); returns their sum.
    pub(super) fn exp_and_sum(values: &mut [f32], shift: f32) -> f32 {
        let mut lanes = [0.0f32; 16];
        let (chunks, rest) = values.as_chunks_mut::<16>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *value = exp(*value - shift);
                *lane += *value;
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *value = exp(*value - shift);
            *lane += *value;
        }
        lanes.iter().sum()
    }

    /// The largest value.
    pub(super) fn maximum(values: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane = if *value > *lane { *value } else { *lane };
        }
        lanes.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// erf by its series Σ (−1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1)) · 2/√π in f64: slow, and exact enough where |x| ≤ 4.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    proptest! {
        #[test]
        fn exp_is_exact_to_two_ulp(x in -87.0f32..88.0) {
            let expected = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) / expected - 1.0).abs() < 2.4e-7, "{} {}", exp(x), expected);
        }

        #[test]
        fn erf_is_that_of_its_series(x in -4.0f32..4.0) {
            let expected = erf_series(f64::from(x));
            prop_assert!((f64::from(erf(x)) - expected).abs() < 2e-7, "{} {}", erf(x), expected);
            prop_assert!((f64::from(erf(x)) - expected).abs() <= 2.5e-7 * expected.abs());
        }

        #[test]
        fn activations(values in proptest::collection::vec((-9f32..9.0, -9f32..9.0), 0..70)) {
            let (x, gate): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let applied = |f: &dyn Fn(&mut [f32])| {
                let mut y = x.clone();
                f(&mut y);
                y
            };
            let close = |actual: f32, expected: f64| (f64::from(actual) - expected).abs() <= 1e-6 * (1.0 + expected.abs());
            let (gelu, gated) = (applied(&gelu), applied(&|y| silu_gate(y, &gate)));
            for i in 0..x.len() {
                let (x, gate) = (f64::from(x[i]), f64::from(gate[i]));
                let z = (x / 2f64.sqrt()).clamp(-4.0, 4.0);
                prop_assert!(close(gelu[i], 0.5 * x * (1.0 + erf_series(z))), "gelu({x}) = {}", gelu[i]);
                prop_assert!(close(gated[i], x * gate / (1.0 + (-gate).exp())));
            }
        }

        #[test]
        fn sums_and_maxima(values in proptest::collection::vec(-20f32..3.0, 1..70)) {
            let largest = maximum(&values);
            prop_assert_eq!(largest, values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut powers = values.clone();
            let sum = exp_and_sum(&mut powers, largest);
            let expected: Vec<f64> = values.iter().map(|&x| f64::from(x - largest).exp()).collect();
            for (power, expected) in powers.iter().zip(&expected) {
                prop_assert!((f64::from(*power) - expected).abs() < 1e-6 * expected);
            }
            let expected: f64 = expected.iter().sum();
            prop_assert!((f64::from(sum) - expected).abs() < 1e-6 * expected);
        }
    }

    #[test]
    fn exp_is_finite_everywhere() {
        for x in [f32::NEG_INFINITY, -1e30, -104.0, 89.0, 1e30, f32::INFINITY] {
            assert!(exp(x).is_finite() && exp(x) >= 0.0, "exp({x}) = {}", exp(x));
        }
    }
}
