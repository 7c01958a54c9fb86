//! How far two ways of computing the same thing may lie apart.
//!
//! A sum of n products in f32 is off by at most (n + 1)·ε·Σ|terms| with ε = 2⁻²³ (Higham, *Accuracy and Stability of
//! Numerical Algorithms*, section 3.1, with room for the products). The terms are at most the gain of the parameters
//! times the inputs, so element i of a result may be off by
//!
//! ```text
//! (n + 8) · ε · gain · Σ_k |x_k,i|        gain = Π over numeric parameters of max(|v|, 1/|v|)
//! ```
//!
//! where 8 leaves room for normalisation and a square root. A method on whole matrices mixes elements: the
//! sum becomes the norm of all inputs.

use skillweld_plugin_host::{Method, flags};

use crate::case::Case;

/// Largest difference allowed for element `index` of what `method` gives for `case`.
pub(crate) fn of_element(method: &Method, case: &Case, index: usize) -> f64 {
    let rounding = (case.experts.len() as f64 + 8.0) * f64::from(f32::EPSILON) * case.parameters.gain();
    let size = if !method.has(flags::MATRIX) {
        case.experts.iter().map(|expert| f64::from(expert[index].abs())).sum::<f64>()
    } else {
        let square = |x: &f32| f64::from(*x).powi(2);
        case.experts.iter().map(|expert| expert.iter().map(square).sum::<f64>().sqrt()).sum()
    };
    rounding * size
}

/// True when the two differ by at most `tolerance`, or are the same bits (a NaN included).
pub(crate) fn close(a: f32, b: f32, tolerance: f64) -> bool {
    (f64::from(a) - f64::from(b)).abs() <= tolerance || a.to_bits() == b.to_bits()
}
