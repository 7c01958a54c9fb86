//! The backend of a GPU, over any [`Target`]: a [`Device`](skillweld_gpu::Device), or the emulation in tests.
//!
//! Activations are f32 or bf16, whatever loses nothing against [`Cpu`](crate::Cpu) that matters: in bf16, what a linear
//! layer reads next is stored in bf16, for it would be rounded anyway; the residual stream stays f32, and so do matrices
//! of a few rows, whose bytes do not count. Operations are asked for and not waited for.

mod attention;
mod matrix;
mod recordings;
mod shared;
mod trunk;
mod weight;

use std::fmt;
use std::sync::Arc;

use skillweld_gpu::Target;
use skillweld_gpu::ops::{self, Linear, LinearThen, PatchShape, RopePairs, RowsViewMut, padded};
use skillweld_linalg::Threads;
use skillweld_tensor::Dtype;

use crate::backend::{
    AttentionShape, Backend, Columns, KeyGroup, Matrix, Pairing, PatchGrid, ReadBlock, Repeated, Result,
    RopeTable, Rows, Then, TrunkBlock, WeightKind,
};
use crate::cpu::Precision;
use recordings::Recordings;
use shared::Shared;

pub use matrix::GpuMatrix;
use trunk::Constants;
pub use trunk::GpuTrunk;
pub use weight::GpuWeight;

/// Rows up to which results stay f32 whatever reads them: their bytes do not count, and actions are among them.
const FEW_ROWS: usize = 64;
/// Runs of neighbouring indices up to which rows are gathered run by run, with no list of indices to send.
const FEW_RUNS: usize = 4;

/// Runs models on a GPU.
pub struct Gpu<T: Target> {
    shared: Arc<Shared<T>>,
    recordings: Recordings<T>,
    constants: Constants<T>,
    precision: Precision,
    threads: Threads,
}

impl<T: Target> fmt::Debug for Gpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("precision", &self.precision).finish_non_exhaustive()
    }
}

impl<T: Target + Send> Gpu<T> {
    /// With weights kept and multiplied in this precision; `threads` of the processor read them.
    ///
    /// # Errors
    /// No memory on the target.
    pub fn new(target: T, precision: Precision, threads: Threads) -> Result<Self> {
        let shared = Arc::new(Shared::new(target)?);
        let (recordings, constants) = (Recordings::default(), Constants::default());
        Ok(Self { shared, recordings, constants, precision, threads })
    }

    /// For another model's weights, on the same target: with the same order of work, and memory in common.
    #[must_use]
    pub fn for_another_model(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            recordings: Recordings::default(),
            constants: Constants::default(),
            precision: self.precision,
            threads: self.threads,
        }
    }

    /// What activations are stored in that a linear layer or an attention reads next.
    fn narrow(&self) -> Dtype {
        self.precision.dtype()
    }

    /// A new matrix, written by `fill`.
    fn made(
        &self,
        dtype: Dtype,
        (rows, columns): (usize, usize),
        fill: impl FnOnce(&T, &mut RowsViewMut<'_>) -> skillweld_gpu::Result<()>,
    ) -> Result<GpuMatrix<T>> {
        let state = self.shared.state();
        let mut out = GpuMatrix::new(&self.shared, &state, dtype, rows, columns)?;
        fill(&state.target, &mut out.fresh()?)?;
        Ok(out)
    }

    /// The matrix in this dtype: itself, or a copy.
    fn converted(&self, x: &GpuMatrix<T>, dtype: Dtype) -> Result<GpuMatrix<T>> {
        if x.dtype() == dtype {
            return Ok(x.slice(0..x.rows()));
        }
        let from = x.view()?;
        self.made(dtype, (x.rows(), x.columns()), |target, out| ops::copy_rows(target, from, out))
    }
}

/// The dtype of matrices joined: the widest of them.
fn widest<'a, T: Target + 'a>(mut parts: impl Iterator<Item = &'a GpuMatrix<T>>) -> Dtype {
    if parts.any(|part| part.dtype() == Dtype::F32) { Dtype::F32 } else { Dtype::BF16 }
}

/// Neighbouring indices as ranges.
fn runs(indices: &[u32]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for &index in indices {
        let index = index as usize;
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

impl<T: Target + Send> Backend for Gpu<T> {
    type Weight = GpuWeight<T>;
    type Matrix = GpuMatrix<T>;
    type Trunk = GpuTrunk<T>;

    fn allocate(&self, kind: WeightKind, rows: usize, columns: usize) -> Result<GpuWeight<T>> {
        GpuWeight::zeros(&self.shared.state().target, kind, self.narrow(), rows, columns)
    }

    fn write(&self, weights: &mut [&mut GpuWeight<T>], read: &ReadBlock<'_>) -> Result<()> {
        weight::write(&self.shared.state().target, self.threads, weights, read)
    }

    fn upload(&self, rows: usize, columns: usize, values: &[f32]) -> Result<GpuMatrix<T>> {
        let state = self.shared.state();
        let mut matrix = GpuMatrix::new(&self.shared, &state, Dtype::F32, rows, columns)?;
        matrix.upload(&state, values)?;
        Ok(matrix)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(self.shared.state().target.synchronize()?)
    }

    fn repeated(
        &self,
        what: Repeated,
        inputs: &[&GpuMatrix<T>],
        work: &dyn Fn() -> Result<Vec<GpuMatrix<T>>>,
    ) -> Result<Vec<GpuMatrix<T>>> {
        self.recordings.repeated(&self.shared, what, inputs, work)
    }

    fn linear(
        &self,
        x: &GpuMatrix<T>,
        weight: &GpuWeight<T>,
        bias: Option<&GpuWeight<T>>,
        then: Then<'_, Self>,
    ) -> Result<GpuMatrix<T>> {
        let dtype = match &then {
            Then::AddTo { .. } => Dtype::F32,
            Then::SiluGate(gate) => gate.dtype(),
            Then::Keep if x.rows() <= FEW_ROWS => Dtype::F32,
            Then::Keep | Then::Gelu => self.narrow(),
        };
        let x = self.converted(x, self.narrow())?;
        let residual = match &then {
            Then::AddTo { residual, .. } => Some(self.converted(residual, dtype)?),
            _ => None,
        };
        let mut state = self.shared.state();
        let mut out = GpuMatrix::new(&self.shared, &state, dtype, x.rows(), weight.rows())?;
        let then = match (&then, &residual) {
            (Then::AddTo { scale, .. }, Some(residual)) => {
                LinearThen::AddTo { residual: residual.view()?.values(), scale: scale.map(GpuWeight::vector) }
            }
            (Then::Gelu, _) => LinearThen::Gelu,
            (Then::SiluGate(gate), _) => LinearThen::SiluGate(gate.view()?.values()),
            _ => LinearThen::Keep,
        };
        // Padded sizes: zeros times zeros add nothing, and what follows a row of the result comes out zero.
        let layer = Linear {
            x: x.view()?.values(),
            weight: weight.view(),
            bias: bias.map(GpuWeight::vector),
            rows: x.rows(),
            columns: padded(weight.rows()),
            inner: padded(weight.columns()),
            then,
            out: out.fresh()?.into_values(),
        };
        let state = &mut *state;
        ops::linear(&state.target, &mut state.scratch, &layer)?;
        Ok(out)
    }

    fn layer_norm(
        &self,
        x: &GpuMatrix<T>,
        gain: &GpuWeight<T>,
        bias: &GpuWeight<T>,
        epsilon: f32,
    ) -> Result<GpuMatrix<T>> {
        let (from, gain, bias) = (x.view()?, gain.vector(), bias.vector());
        self.made(self.narrow(), (x.rows(), x.columns()), |target, out| {
            ops::layer_norm(target, from, gain, bias, epsilon, out)
        })
    }

    fn rms_norm(&self, x: &GpuMatrix<T>, gain: &GpuWeight<T>, epsilon: f32) -> Result<GpuMatrix<T>> {
        let (from, gain) = (x.view()?, gain.vector());
        self.made(self.narrow(), (x.rows(), x.columns()), |target, out| {
            ops::rms_norm(target, from, gain, epsilon, out)
        })
    }

    fn rope(&self, x: &mut GpuMatrix<T>, table: &RopeTable<GpuMatrix<T>>, pairing: Pairing) -> Result<()> {
        if x.view_mut().is_none() {
            let from = x.view()?;
            *x = self
                .made(x.dtype(), (x.rows(), x.columns()), |target, out| ops::copy_rows(target, from, out))?;
        }
        let pairs = match pairing {
            Pairing::Halves => RopePairs::Halves,
            Pairing::Neighbours => RopePairs::Neighbours,
        };
        let state = self.shared.state();
        ops::rope(&state.target, &mut x.fresh()?, table.cos.view()?, table.sin.view()?, pairs)?;
        Ok(())
    }

    fn attention(
        &self,
        queries: Columns<'_, GpuMatrix<T>>,
        keys: Columns<'_, GpuMatrix<T>>,
        values: Columns<'_, GpuMatrix<T>>,
        shape: AttentionShape,
    ) -> Result<GpuMatrix<T>> {
        attention::within_sequences(self, &[queries, keys, values], shape)
    }

    fn gated_attention(&self, groups: &[KeyGroup<'_, GpuMatrix<T>>], heads: usize) -> Result<GpuMatrix<T>> {
        attention::over_groups(self, groups, heads)
    }

    fn trunk_start(&self, rows: usize, values: &[f32]) -> Result<GpuTrunk<T>> {
        GpuTrunk::start(&self.shared, &self.constants, rows, values)
    }

    fn trunk_read(&self, trunk: &GpuTrunk<T>) -> Result<GpuMatrix<T>> {
        trunk.read(&self.shared)
    }

    fn trunk_block(
        &self,
        x: &mut GpuTrunk<T>,
        attended: &GpuMatrix<T>,
        block: TrunkBlock<'_, GpuWeight<T>>,
    ) -> Result<()> {
        x.block(&self.shared, attended, &block)
    }

    fn patches(&self, pixels: &GpuMatrix<T>, grid: PatchGrid) -> Result<GpuMatrix<T>> {
        let PatchGrid { images, channels_per_image, first_channel, channels, image_side, patch_side } = grid;
        let shape =
            PatchShape { images, channels_per_image, first_channel, channels, image_side, patch_side };
        let from = pixels.view()?;
        self.made(self.narrow(), (images * grid.patches(), grid.patch_len()), |target, out| {
            ops::patches(target, from, shape, out)
        })
    }

    fn gather(&self, table: &GpuWeight<T>, indices: &[u32]) -> Result<GpuMatrix<T>> {
        let from = table.matrix()?;
        assert!(indices.iter().all(|&index| (index as usize) < table.rows()), "an index past the table");
        let runs = runs(indices);
        if runs.len() > FEW_RUNS {
            let state = self.shared.state();
            let bytes: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
            let mut list = self.shared.array(&state, Dtype::U32, indices.len())?;
            state.upload(list.array_mut(), &bytes)?;
            let mut out = GpuMatrix::new(&self.shared, &state, from.dtype(), indices.len(), table.columns())?;
            ops::gather_rows(&state.target, from, list.array().view(), &mut out.fresh()?)?;
            return Ok(out);
        }
        self.made(from.dtype(), (indices.len(), table.columns()), |target, out| {
            copy_below(target, out, runs.into_iter().map(|run| from.slice(run)))
        })
    }

    fn concat_rows(&self, parts: &[Rows<'_, GpuMatrix<T>>]) -> Result<GpuMatrix<T>> {
        if let [Rows { matrix, rows }] = parts {
            return Ok(matrix.slice(rows.clone()));
        }
        let dtype = widest(parts.iter().map(|part| part.matrix));
        let (rows, columns) = (parts.iter().map(|part| part.rows.len()).sum(), parts[0].matrix.columns());
        let views = parts.iter().map(|part| Ok(part.matrix.view()?.slice(part.rows.clone())));
        let views = views.collect::<Result<Vec<_>>>()?;
        self.made(dtype, (rows, columns), |target, out| copy_below(target, out, views.into_iter()))
    }

    fn concat_columns(&self, parts: &[&GpuMatrix<T>]) -> Result<GpuMatrix<T>> {
        let dtype = widest(parts.iter().copied());
        let columns = parts.iter().map(|part| part.columns()).sum();
        let views = parts.iter().map(|part| part.view()).collect::<Result<Vec<_>>>()?;
        self.made(dtype, (parts[0].rows(), columns), |target, out| {
            let mut first = 0;
            for view in views {
                ops::copy_columns(target, view, out, first)?;
                first += view.columns();
            }
            Ok(())
        })
    }
}

/// Copies parts one below the other.
fn copy_below<'a, T: Target>(
    target: &T,
    out: &mut RowsViewMut<'_>,
    parts: impl Iterator<Item = ops::RowsView<'a>>,
) -> skillweld_gpu::Result<()> {
    let mut first = 0;
    for part in parts {
        let rows = first..first + part.rows();
        ops::copy_rows(target, part, &mut out.slice(rows.clone()))?;
        first = rows.end;
    }
    Ok(())
}
