//! Tables of rotary position embeddings (arXiv 2104.09864), computed on the host.

use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};

use crate::backend::{Backend, Result, RopeTable};

/// How precisely a table is computed. It must be the way it was in training: in bf16, position 511 is 512, and cosines are
/// off by up to 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePrecision {
    /// Inverse frequencies, positions, angles and their cosines each rounded to bf16, as PyTorch computes a module that was
    /// converted to bf16.
    Bf16,
    /// The same in f16.
    F16,
    /// Each of them rounded to f32, as PyTorch computes in f32.
    F32,
    /// Everything in f64, rounded to f32 at the end.
    Exact,
}

impl RopePrecision {
    fn round(self, value: f64) -> f64 {
        match self {
            Self::Bf16 => bf16::from_f32(value as f32).to_f64(),
            Self::F16 => f16::from_f32(value as f32).to_f64(),
            Self::F32 => f64::from(value as f32),
            Self::Exact => value,
        }
    }
}

/// The rotary embedding of heads `head_dim` wide: position p turns pair i by p · θ^(−2i / head_dim).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Width of a head; even.
    pub head_dim: usize,
    /// The base θ.
    pub theta: f64,
    /// How it is computed.
    pub precision: RopePrecision,
}

impl Rope {
    /// cos and sin of positions 0 .. `positions`, each `positions` × (head_dim / 2), row by row.
    pub fn cos_sin(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let half = self.head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|pair| self.frequency(pair)).collect();
        let round = |value| self.precision.round(value);
        let angles = (0..positions * half).map(|index| {
            let position = round((index / half) as f64);
            round(position * frequencies[index % half])
        });
        angles.map(|angle| (round(angle.cos()) as f32, round(angle.sin()) as f32)).unzip()
    }

    fn frequency(&self, pair: usize) -> f64 {
        // A module in bf16 was built in f32 and converted afterwards.
        let built =
            if self.precision == RopePrecision::Exact { RopePrecision::Exact } else { RopePrecision::F32 };
        let exponent = built.round((2 * pair) as f64 / self.head_dim as f64);
        let frequency = built.round(1.0 / built.round(self.theta.powf(exponent)));
        self.precision.round(frequency)
    }
}

/// One embedding's table on a backend, as long as the longest sequence so far.
#[derive(Debug)]
pub(crate) struct RopeCache<M> {
    rope: Rope,
    longest: Mutex<Option<Arc<RopeTable<M>>>>,
}

impl<M> RopeCache<M> {
    pub(crate) fn new(rope: Rope) -> Self {
        Self { rope, longest: Mutex::new(None) }
    }

    /// A table of at least `positions` positions.
    pub(crate) fn table<B: Backend<Matrix = M>>(
        &self,
        backend: &B,
        positions: usize,
    ) -> Result<Arc<RopeTable<M>>>
    where
        M: crate::backend::Matrix,
    {
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = longest.as_ref().filter(|table| table.cos.rows() >= positions) {
            return Ok(Arc::clone(table));
        }
        let (cos, sin) = self.rope.cos_sin(positions);
        let half = self.rope.head_dim / 2;
        let upload = |values: &[f32]| backend.upload(positions, half, values);
        let table = Arc::new(RopeTable { cos: upload(&cos)?, sin: upload(&sin)? });
        *longest = Some(Arc::clone(&table));
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_cosines_of_angles() {
        let expected = [0.0f64, 0.0, 1.0, 0.1, 2.0, 0.2];
        for precision in [RopePrecision::Exact, RopePrecision::F32] {
            let (cos, sin) = Rope { head_dim: 4, theta: 100.0, precision }.cos_sin(3);
            for (index, angle) in expected.into_iter().enumerate() {
                assert!((f64::from(cos[index]) - angle.cos()).abs() < 1e-7);
                assert!((f64::from(sin[index]) - angle.sin()).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn f16_tables_round_every_step_to_f16() {
        let (cos, sin) = Rope { head_dim: 4, theta: 100.0, precision: RopePrecision::F16 }.cos_sin(600);
        let round = |value: f64| f16::from_f64(value).to_f64();
        for position in [0, 1, 77, 599] {
            for (pair, frequency) in [1.0, 0.1].into_iter().enumerate() {
                let angle = round(f64::from(position) * round(frequency));
                let index = 2 * position as usize + pair;
                assert_eq!(f64::from(cos[index]), round(angle.cos()), "{position} {pair}");
                assert_eq!(f64::from(sin[index]), round(angle.sin()), "{position} {pair}");
            }
        }
    }

    #[test]
    fn bf16_tables_lose_positions() {
        let table = |precision| Rope { head_dim: 112, theta: 10_000.0, precision }.cos_sin(513);
        let (cos, sin) = table(RopePrecision::Bf16);
        // 511 needs nine bits and becomes 512.
        assert_eq!(
            (&cos[511 * 56..512 * 56], &sin[511 * 56..512 * 56]),
            (&cos[512 * 56..], &sin[512 * 56..])
        );
        assert_eq!(cos[511 * 56], bf16::from_f64(512f64.cos()).to_f32());
        let (exact, _) = table(RopePrecision::Exact);
        let largest = cos.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest > 0.9, "{largest}");
        let (single, _) = table(RopePrecision::F32);
        let largest = single.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!((1e-7..1e-4).contains(&largest), "{largest}");
    }
}
