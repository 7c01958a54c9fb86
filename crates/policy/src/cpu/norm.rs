//! Norms over rows.

use skillweld_simd::vectorize;

vectorize! {
    /// out = (x − mean) / √(variance + ε) ⊙ gain + bias.
    pub(super) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let mean = sum(x, |x| x) / x.len() as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
            *out = (x - mean) * scale * gain + bias;
        }
    }

    /// out = x / √(mean(x²) + ε) ⊙ gain.
    pub(super) fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]) {
        let scale = 1.0 / (sum(x, |x| x * x) / x.len() as f32 + epsilon).sqrt();
        for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
            *out = x * scale * gain;
        }
    }
}

/// Σ f(x) in sixteen lanes, whatever the instruction set: a plain sum would not vectorise, and lose digits.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn norms_equal_their_formulas(
            elements in proptest::collection::vec((-5f32..5.0, -2f32..2.0, -2f32..2.0), 1..130), offset in -9f32..9.0,
        ) {
            let x: Vec<f32> = elements.iter().map(|e| e.0 + offset).collect();
            let gain: Vec<f32> = elements.iter().map(|e| e.1).collect();
            let bias: Vec<f32> = elements.iter().map(|e| e.2).collect();
            let exact: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let n = exact.len() as f64;
            let mean = exact.iter().sum::<f64>() / n;
            let variance = exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let square = exact.iter().map(|x| x * x).sum::<f64>() / n;
            let epsilon = 1e-2;
            let (mut layer, mut rms) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            layer_norm(&x, &gain, &bias, epsilon, &mut layer);
            rms_norm(&x, &gain, epsilon, &mut rms);
            for i in 0..x.len() {
                let (gain, bias, epsilon) = (f64::from(gain[i]), f64::from(bias[i]), f64::from(epsilon));
                let expected = (exact[i] - mean) / (variance + epsilon).sqrt() * gain + bias;
                prop_assert!((f64::from(layer[i]) - expected).abs() < 3e-5, "{} {expected}", layer[i]);
                let expected = exact[i] / (square + epsilon).sqrt() * gain;
                prop_assert!((f64::from(rms[i]) - expected).abs() < 3e-6, "{} {expected}", rms[i]);
            }
        }
    }
}
