//! The forward once more: in f64, one formula a line, straight from the tensors, sharing no code with the crate.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "test code; each test file uses its part")]

pub mod expert;
pub mod language;
pub mod vision;

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, concatenate, s};
use skillweld_store::Checkpoint;

/// Tensors by key.
pub struct Tensors(pub BTreeMap<String, ArrayD<f64>>);

impl Tensors {
    pub fn read(checkpoint: &Checkpoint) -> Self {
        let tensor = |key: &str| checkpoint.get(key).unwrap().to_f32().unwrap().mapv(f64::from);
        Self(checkpoint.keys().map(|key| (key.to_owned(), tensor(key))).collect())
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn matrix(&self, key: &str) -> Array2<f64> {
        self.tensor(key).clone().into_dimensionality::<Ix2>().unwrap()
    }

    pub fn vector(&self, key: &str) -> Array1<f64> {
        self.tensor(key).clone().into_dimensionality::<Ix1>().unwrap()
    }

    /// The tensor as rows of its last dimension.
    pub fn rows(&self, key: &str) -> Array2<f64> {
        let tensor = self.tensor(key);
        let width = *tensor.shape().last().unwrap();
        Array2::from_shape_vec((tensor.len() / width, width), tensor.iter().copied().collect()).unwrap()
    }

    fn tensor(&self, key: &str) -> &ArrayD<f64> {
        self.0.get(key).unwrap_or_else(|| panic!("no tensor {key}"))
    }

    /// x Wᵀ + b; the weight's elements beyond its first dimension are one row.
    pub fn linear(&self, name: &str, x: &Array2<f64>) -> Array2<f64> {
        let weight = self.tensor(&format!("{name}.weight"));
        let shape = (weight.shape()[0], x.ncols());
        let weight = Array2::from_shape_vec(shape, weight.iter().copied().collect()).unwrap();
        let y = x.dot(&weight.t());
        if self.has(&format!("{name}.bias")) { y + self.vector(&format!("{name}.bias")) } else { y }
    }

    pub fn layer_norm(&self, name: &str, x: &Array2<f64>, epsilon: f64) -> Array2<f64> {
        let mean = x.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
        let centred = x - &mean;
        let variance = centred.mapv(|c| c * c).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
        centred / (variance + epsilon).mapv(f64::sqrt) * self.vector(&format!("{name}.weight"))
            + self.vector(&format!("{name}.bias"))
    }
}

/// softmax(scores) values, one head; scores of what `seen` forbids do not count.
pub fn attend(
    scores: &Array2<f64>,
    values: &Array2<f64>,
    seen: impl Fn(usize, usize) -> bool,
) -> Array2<f64> {
    let mut weights = Array2::zeros(scores.dim());
    for ((query, key), weight) in weights.indexed_iter_mut() {
        *weight = if seen(query, key) { scores[[query, key]].exp() } else { 0.0 };
    }
    let sums = weights.sum_axis(Axis(1)).insert_axis(Axis(1));
    (weights / sums).dot(values)
}

/// Columns of head `head`, `width` wide.
pub fn head(x: &Array2<f64>, head: usize, width: usize) -> Array2<f64> {
    x.slice(s![.., head * width..(head + 1) * width]).to_owned()
}

pub fn rows(parts: &[Array2<f64>]) -> Array2<f64> {
    concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).unwrap()
}

pub fn columns(parts: &[Array2<f64>]) -> Array2<f64> {
    concatenate(Axis(1), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).unwrap()
}

/// ½ x (1 + erf(x / √2)), erf by its series: exact for |x| < 6, and erf is ±1 beyond.
pub fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    let erf = if z.abs() > 4.5 { z.signum() } else { sum * std::f64::consts::FRAC_2_SQRT_PI };
    0.5 * x * (1.0 + erf)
}

/// Angles of position × frequency, rounded to f32 as models in f32 have them.
pub fn angles(positions: usize, head_dim: usize, theta: f64) -> Array2<f64> {
    Array2::from_shape_fn((positions, head_dim / 2), |(position, pair)| {
        let power = f64::from(theta.powf(f64::from(2.0 * pair as f32 / head_dim as f32)) as f32);
        let frequency = f64::from((1.0 / power) as f32);
        f64::from((position as f64 * frequency) as f32)
    })
}
