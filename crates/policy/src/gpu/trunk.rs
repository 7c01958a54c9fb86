use std::fmt;
use std::sync::Arc;

use skillweld_gpu::Target;
use skillweld_gpu::ops::{RowsView, RowsViewMut, padded, precise_layer_norm, precise_linear, precise_read};
use skillweld_tensor::Dtype;

use super::matrix::{Buffer, GpuMatrix, Shared, widened};
use super::weight::GpuWeight;
use crate::backend::{Matrix, Result, TrunkBlock};

/// Actions × width in f64, as on the processor.
pub struct GpuTrunk<T: Target> {
    buffer: Buffer<T>,
    rows: usize,
    columns: usize,
}

impl<T: Target> fmt::Debug for GpuTrunk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuTrunk({} × {})", self.rows, self.columns)
    }
}

impl<T: Target + Send> GpuTrunk<T> {
    /// `rows` rows, all with these values.
    pub(super) fn start(shared: &Arc<Shared<T>>, rows: usize, values: &[f32]) -> Result<Self> {
        let columns = values.len();
        let row: Vec<f64> = values.iter().copied().map(f64::from).collect();
        let bytes: Vec<u8> =
            widened(&row.repeat(rows), columns).into_iter().flat_map(f64::to_le_bytes).collect();
        let state = shared.state();
        let mut trunk = Self::new(shared, &state.target, rows, columns)?;
        state.target.upload(trunk.buffer.array_mut().memory_mut(), 0, &bytes)?;
        Ok(trunk)
    }

    fn new(shared: &Arc<Shared<T>>, target: &T, rows: usize, columns: usize) -> Result<Self> {
        let mut buffer = shared.array(target, Dtype::F64, rows * padded(columns))?;
        if columns != padded(columns) {
            target.fill(buffer.array_mut().memory_mut(), 0)?; // what follows a row is never written, and multiplied
        }
        Ok(Self { buffer, rows, columns })
    }

    fn view(&self) -> Result<RowsView<'_>> {
        Ok(RowsView::new(self.buffer.array().view(), self.rows, self.columns)?)
    }

    fn view_mut(&mut self) -> Result<RowsViewMut<'_>> {
        Ok(RowsViewMut::new(self.buffer.array_mut().view_mut(), self.rows, self.columns)?)
    }

    /// Rounded to f32.
    pub(super) fn read(&self, shared: &Arc<Shared<T>>) -> Result<GpuMatrix<T>> {
        let state = shared.state();
        let mut out = shared.matrix(&state.target, Dtype::F32, self.rows, self.columns)?;
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
        let mut sum = Self::new(shared, target, attended.rows(), block.out.0.rows())?;
        let (weight, bias) = (block.out.0.matrix()?, block.out.1.vector());
        precise_linear(
            target,
            attended.view()?,
            weight,
            bias,
            Some(self.view()?),
            false,
            &mut sum.view_mut()?,
        )?;
        let (gain, bias) = (block.norm.0.vector(), block.norm.1.vector());
        precise_layer_norm(target, &mut sum.view_mut()?, gain, bias, block.epsilon)?;
        let (weight, bias) = (block.feed_forward.0.matrix()?, block.feed_forward.1.vector());
        let mut next = Self::new(shared, target, sum.rows, block.feed_forward.0.rows())?;
        precise_linear(target, sum.view()?, weight, bias, None, true, &mut next.view_mut()?)?;
        *self = next;
        Ok(())
    }
}
