//! Adam over the rows of a matrix, a few of them at a time through all steps.

use skillweld_plugin_sdk::linalg::ndarray::{Array2, ArrayViewMut2, Axis};
use skillweld_plugin_sdk::linalg::{PackedWeight, matrix_mut, multiply_packed};
use skillweld_plugin_sdk::{Block, Result};

use crate::adam::Step;

/// How gradients follow from the moves of τ.
pub(crate) struct Descent {
    /// m × K: what the gradient follows from.
    pub(crate) state: Array2<f32>,
    pub(crate) gradient: Gradient,
    /// K × n, packed: a move u of τ changes the state by u · changeᵀ.
    pub(crate) change: PackedWeight,
}

/// The gradient of some rows from their state.
pub(crate) enum Gradient {
    /// state · weightᵀ, the weight being n × K.
    Product(PackedWeight),
    /// The state itself.
    State,
}

/// Values of a row that a block of rows has together: four of these matrices share a cache with the weights' panels.
const BLOCK_LEN: usize = 1 << 17;
/// Rows of whole bands of the products.
const BAND: usize = 48;
/// Steps between two questions whether to stop.
const STEPS: usize = 16;

impl Descent {
    /// Moves `values`, m × n, through all steps.
    pub(crate) fn run(mut self, block: &Block<'_>, values: &mut ArrayViewMut2<'_, f32>) -> Result {
        let (m, n) = values.dim();
        if n == 0 {
            return Ok(());
        }
        let steps: Vec<Step> = (1..=block.integer("iterations") as i32)
            .map(|t| Step::new(block.number("learning_rate"), t))
            .collect();
        let rows = (BLOCK_LEN / n / BAND * BAND).clamp(BAND, 4 * BAND);
        let states = self.state.axis_chunks_iter_mut(Axis(0), rows);
        let mut buffers = [(); 3].map(|()| vec![0.0; rows * n]);
        for (index, (mut values, mut state)) in
            values.axis_chunks_iter_mut(Axis(0), rows).zip(states).enumerate()
        {
            let Some(values) = values.as_slice_mut() else { return Err("rows with gaps".into()) };
            let [gradient, first, second] = &mut buffers;
            let [gradient, first, second] =
                [gradient, first, second].map(|buffer| &mut buffer[..values.len()]);
            first.fill(0.0);
            second.fill(0.0);
            let mut change = Array2::zeros(state.dim());
            for (t, step) in steps.iter().enumerate() {
                if t % STEPS == 0 {
                    block.check_cancelled()?;
                }
                let mut gradients = matrix_mut(gradient, (state.nrows(), n))?;
                match &self.gradient {
                    Gradient::Product(weight) => multiply_packed(&state.view(), weight, &mut gradients)?,
                    Gradient::State => gradients.assign(&state),
                }
                step.take(values, gradient, first, second);
                let moved = matrix_mut(gradient, (state.nrows(), n))?;
                multiply_packed(&moved.view(), &self.change, &mut change.view_mut())?;
                state -= &change;
            }
            block.progress(((index + 1) * rows).min(m) as f64 / m as f64);
        }
        Ok(())
    }
}
