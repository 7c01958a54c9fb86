use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use skillweld_gpu::Target;
use skillweld_gpu::ops::{RowsView, RowsViewMut, padded, precise_layer_norm, precise_linear, precise_read};
use skillweld_tensor::Dtype;

use super::matrix::{GpuMatrix, widened};
use super::shared::{Buffer, Shared, State};
use super::weight::GpuWeight;
use crate::backend::{Result, TrunkBlock};

/// Actions × width in f64, as on the processor.
pub struct GpuTrunk<T: Target> {
    /// Never written again once it is whole.
    buffer: Arc<Buffer<T>>,
    rows: usize,
    columns: usize,
}

/// The rows that trunks start from, sent once: a few an action expert.
pub(super) struct Constants<T: Target>(Mutex<Vec<(Vec<f32>, GpuTrunk<T>)>>);

impl<T: Target> Default for Constants<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Target> fmt::Debug for GpuTrunk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuTrunk({} × {})", self.rows, self.columns)
    }
}

impl<T: Target + Send> GpuTrunk<T> {
    /// `rows` rows, all with these values.
    pub(super) fn start(
        shared: &Arc<Shared<T>>,
        constants: &Constants<T>,
        rows: usize,
        values: &[f32],
    ) -> Result<Self> {
        let mut constants = constants.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(of, trunk): &&(Vec<f32>, Self)| trunk.rows == rows && of == values;
        if let Some((_, trunk)) = constants.iter().find(same) {
            return Ok(trunk.share());
        }
        let columns = values.len();
        let row: Vec<f64> = values.iter().copied().map(f64::from).collect();
        let bytes: Vec<u8> =
            widened(&row.repeat(rows), columns).into_iter().flat_map(f64::to_le_bytes).collect();
        let state = shared.state();
        let mut buffer = shared.array(&state, Dtype::F64, rows * padded(columns))?;
        state.upload(buffer.array_mut(), &bytes)?;
        let trunk = Self { buffer: Arc::new(buffer), rows, columns };
        constants.push((values.to_vec(), trunk.share()));
        Ok(trunk)
    }

    fn share(&self) -> Self {
        Self { buffer: Arc::clone(&self.buffer), rows: self.rows, columns: self.columns }
    }

    /// A matrix that `fill` writes.
    fn made(
        shared: &Arc<Shared<T>>,
        state: &State<T>,
        (rows, columns): (usize, usize),
        fill: impl FnOnce(&mut RowsViewMut<'_>) -> skillweld_gpu::Result<()>,
    ) -> Result<Self> {
        let mut buffer = shared.array(state, Dtype::F64, rows * padded(columns))?;
        if columns != padded(columns) {
            // What follows a row is never written, and multiplied.
            state.target.fill(buffer.array_mut().memory_mut(), 0)?;
        }
        fill(&mut RowsViewMut::new(buffer.array_mut().view_mut(), rows, columns)?)?;
        Ok(Self { buffer: Arc::new(buffer), rows, columns })
    }

    fn view(&self) -> Result<RowsView<'_>> {
        Ok(RowsView::new(self.buffer.array().view(), self.rows, self.columns)?)
    }

    /// Rounded to f32.
    pub(super) fn read(&self, shared: &Arc<Shared<T>>) -> Result<GpuMatrix<T>> {
        let state = shared.state();
        let mut out = GpuMatrix::new(shared, &state, Dtype::F32, self.rows, self.columns)?;
        precise_read(&state.target, self.view()?, &mut out.fresh()?)?;
        Ok(out)
    }

    /// x ← ReLU(feed_forward(norm(x + out(attended)))).
    pub(super) fn block(
        &mut self,
        shared: &Arc<Shared<T>>,
        attended: &GpuMatrix<T>,
        block: &TrunkBlock<'_, GpuWeight<T>>,
    ) -> Result<()> {
        let state = shared.state();
        let target = &state.target;
        let (weight, bias) = (block.out.0.matrix()?, block.out.1.vector());
        let (gain, norm_bias) = (block.norm.0.vector(), block.norm.1.vector());
        let (from, x) = (attended.view()?, self.view()?);
        let normed = Self::made(shared, &state, (self.rows, block.out.0.rows()), |out| {
            precise_linear(target, from, weight, bias, Some(x), false, out)?;
            precise_layer_norm(target, out, gain, norm_bias, block.epsilon)
        })?;
        let (weight, bias) = (block.feed_forward.0.matrix()?, block.feed_forward.1.vector());
        let from = normed.view()?;
        let next = Self::made(shared, &state, (self.rows, block.feed_forward.0.rows()), |out| {
            precise_linear(target, from, weight, bias, None, true, out)
        })?;
        *self = next;
        Ok(())
    }
}
