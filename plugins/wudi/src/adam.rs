//! Adam (Kingma and Ba, arXiv 1412.6980) without weight decay, as PyTorch computes it in f32.

use skillweld_plugin_sdk::vectorize;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// One step's factors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// lr / (1 − β₁ᵗ).
    size: f32,
    /// √(1 − β₂ᵗ).
    root: f32,
}

impl Step {
    /// The `t`-th step, from 1.
    pub(crate) fn new(learning_rate: f64, t: i32) -> Self {
        let size = learning_rate / (1.0 - BETA1.powi(t));
        Self { size: size as f32, root: (1.0 - BETA2.powi(t)).sqrt() as f32 }
    }

    /// Moves `values` against their gradient, which it replaces by how far each went.
    pub(crate) fn take(
        self,
        values: &mut [f32],
        gradient: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        step(values, gradient, first, second, (self.size, self.root));
    }
}

vectorize! {
    fn step(values: &mut [f32], gradient: &mut [f32], first: &mut [f32], second: &mut [f32], factors: (f32, f32)) {
        let (size, root) = factors;
        let (one_less_beta1, beta2) = ((1.0 - BETA1) as f32, BETA2 as f32);
        let one_less_beta2 = (1.0 - BETA2) as f32;
        for (((value, gradient), first), second) in values.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = *gradient;
            *first += one_less_beta1 * (g - *first);
            *second = beta2 * *second + one_less_beta2 * g * g;
            let moved = size * *first / (second.sqrt() / root + EPSILON);
            *value -= moved;
            *gradient = moved;
        }
    }
}
