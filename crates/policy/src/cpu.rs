//! The backend that every machine has.
//!
//! Activations are f32, row by row. Results do not depend on the number of threads: work is cut at fixed places, and no
//! sum is split between threads.

mod attention;
mod math;
mod matrix;
mod norm;
mod patches;
mod rope;
mod tiles;
mod trunk;
mod weight;

use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayView2, Axis, s};
use skillweld_linalg::{Product, Threads};
use skillweld_tensor::Dtype;

use crate::backend::{
    AttentionShape, Backend, Columns, KeyGroup, Matrix, Pairing, PatchGrid, ReadBlock, Result, RopeTable,
    Rows, Then, TrunkBlock, WeightKind,
};
use attention::{Group, Layout, attend};
pub use matrix::CpuMatrix;
use matrix::Pool;
pub use trunk::CpuTrunk;
pub use weight::CpuWeight;

/// Values that a thread takes at once in what is done row by row.
const VALUES_AT_ONCE: usize = 1 << 15;

/// What weights are kept and multiplied in. Sums and activations are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    F32,
    /// bf16. Linear layers round their inputs to bf16 as well, and so does the attention of towers and language model.
    Bf16,
}

impl Precision {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
        }
    }
}

/// Runs models on the processor.
#[derive(Debug)]
pub struct Cpu {
    threads: Threads,
    precision: Precision,
    pool: Arc<Pool>,
}

impl Cpu {
    /// With this many threads and weights kept in this precision.
    pub fn new(threads: Threads, precision: Precision) -> Self {
        Self { threads, precision, pool: Arc::default() }
    }

    /// A new matrix, each row written by `fill(row, values)`.
    fn by_row(&self, rows: usize, columns: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> CpuMatrix {
        let mut out = self.pool.matrix(rows, columns);
        self.each_row(&mut out, fill);
        out
    }

    /// Calls `work(row, values)` for every row, several at once.
    fn each_row(&self, matrix: &mut CpuMatrix, work: impl Fn(usize, &mut [f32]) + Sync) {
        let columns = matrix.columns().max(1);
        let rows = (VALUES_AT_ONCE / columns).max(1);
        let blocks: Vec<_> = matrix.chunks_mut(rows * columns).map(Mutex::new).collect();
        let Ok(()) = self.threads.for_each(
            blocks.len(),
            || (),
            |(), index| {
                let mut block = blocks[index].lock().unwrap_or_else(PoisonError::into_inner);
                for (row, values) in (index * rows..).zip(block.chunks_exact_mut(columns)) {
                    work(row, values);
                }
                Ok::<_, Infallible>(())
            },
        );
    }
}

/// Some rows of `width` columns.
fn part<'a>(columns: &Columns<'a, CpuMatrix>, rows: Range<usize>, width: usize) -> ArrayView2<'a, f32> {
    columns.matrix.view().slice_move(s![rows, columns.start..columns.start + width])
}

impl Backend for Cpu {
    type Weight = CpuWeight;
    type Matrix = CpuMatrix;
    type Trunk = CpuTrunk;

    fn allocate(&self, kind: WeightKind, rows: usize, columns: usize) -> Result<CpuWeight> {
        Ok(CpuWeight::zeros(kind, self.precision, rows, columns)?)
    }

    fn write(&self, weights: &mut [&mut CpuWeight], read: &ReadBlock<'_>) -> Result<()> {
        weight::write(self.threads, weights, read)
    }

    fn upload(&self, rows: usize, columns: usize, values: &[f32]) -> Result<CpuMatrix> {
        let mut matrix = self.pool.matrix(rows, columns);
        matrix.copy_from_slice(values);
        Ok(matrix)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// Threads that have an observation each need not wait for one another after every product.
    fn side_by_side(&self) -> Threads {
        self.threads
    }

    fn linear(
        &self,
        x: &CpuMatrix,
        weight: &CpuWeight,
        bias: Option<&CpuWeight>,
        then: Then<'_, Self>,
    ) -> Result<CpuMatrix> {
        let weight = weight.matrix();
        let mut out = self.pool.matrix(x.rows(), weight.out_features());
        let finish = |row: usize, column: usize, values: &mut [f32]| {
            let columns = column..column + values.len();
            match &then {
                Then::Keep => {}
                Then::Gelu => math::gelu(values),
                Then::SiluGate(gate) => math::silu_gate(values, &gate.row(row)[columns]),
                Then::AddTo { residual, scale: None } => math::add(values, &residual.row(row)[columns]),
                Then::AddTo { residual, scale: Some(scale) } => {
                    let scale = &scale.vector()[columns.clone()];
                    math::scale_and_add(values, scale, &residual.row(row)[columns]);
                }
            }
        };
        let product = Product::new(x.view(), weight).bias(bias.map(CpuWeight::vector)).then(&finish);
        product.write(self.threads, &mut out.view_mut())?;
        Ok(out)
    }

    fn layer_norm(
        &self,
        x: &CpuMatrix,
        gain: &CpuWeight,
        bias: &CpuWeight,
        epsilon: f32,
    ) -> Result<CpuMatrix> {
        let (gain, bias) = (gain.vector(), bias.vector());
        Ok(self.by_row(x.rows(), x.columns(), |row, out| {
            norm::layer_norm(x.row(row), gain, bias, epsilon, out);
        }))
    }

    fn rms_norm(&self, x: &CpuMatrix, gain: &CpuWeight, epsilon: f32) -> Result<CpuMatrix> {
        let gain = gain.vector();
        Ok(self.by_row(x.rows(), x.columns(), |row, out| norm::rms_norm(x.row(row), gain, epsilon, out)))
    }

    fn rope(&self, x: &mut CpuMatrix, table: &RopeTable<CpuMatrix>, pairing: Pairing) -> Result<()> {
        self.each_row(x, |row, values| {
            let (cos, sin) = (table.cos.row(row), table.sin.row(row));
            match pairing {
                Pairing::Halves => rope::turn_halves(values, cos, sin),
                Pairing::Neighbours => rope::turn_neighbours(values, cos, sin),
            }
        });
        Ok(())
    }

    fn attention(
        &self,
        queries: Columns<'_, CpuMatrix>,
        keys: Columns<'_, CpuMatrix>,
        values: Columns<'_, CpuMatrix>,
        shape: AttentionShape,
    ) -> Result<CpuMatrix> {
        let AttentionShape { sequences, heads, kv_heads, head_dim, causal } = shape;
        let mut out = self.pool.matrix(queries.matrix.rows(), heads * head_dim);
        let length = out.rows() / sequences;
        let narrow = self.precision == Precision::Bf16;
        let layout = Layout { head_dim, sharing: heads / kv_heads, causal, narrow };
        let scale = (head_dim as f32).sqrt().recip();
        let mut view = out.view_mut();
        let sequences = view.axis_chunks_iter_mut(Axis(0), length.max(1)).enumerate().map(|(index, out)| {
            let rows = index * length..(index + 1) * length;
            let group = Group {
                queries: part(&queries, rows.clone(), heads * head_dim),
                keys: part(&keys, rows.clone(), kv_heads * head_dim),
                values: part(&values, rows, kv_heads * head_dim),
                scale,
            };
            (vec![group], out)
        });
        attend(self.threads, layout, sequences)?;
        Ok(out)
    }

    fn gated_attention(&self, groups: &[KeyGroup<'_, CpuMatrix>], heads: usize) -> Result<CpuMatrix> {
        let mut out = self.pool.matrix(groups[0].queries.rows(), groups[0].queries.columns());
        // A handful of queries: packing keys and values costs more than multiplying, and rounding them would tell.
        let layout = Layout { head_dim: out.columns() / heads, sharing: 1, causal: false, narrow: false };
        let groups = groups.iter().map(|&KeyGroup { queries, keys, values, scale }| Group {
            queries: queries.view(),
            keys: keys.view(),
            values: values.view(),
            scale,
        });
        let groups = groups.collect();
        attend(self.threads, layout, std::iter::once((groups, out.view_mut())))?;
        Ok(out)
    }

    fn trunk_start(&self, rows: usize, values: &[f32]) -> Result<CpuTrunk> {
        Ok(CpuTrunk::new(rows, values))
    }

    fn trunk_read(&self, trunk: &CpuTrunk) -> Result<CpuMatrix> {
        Ok(self.by_row(trunk.rows(), trunk.columns(), |row, out| trunk.round_row(row, out)))
    }

    fn trunk_block(
        &self,
        x: &mut CpuTrunk,
        attended: &CpuMatrix,
        block: TrunkBlock<'_, CpuWeight>,
    ) -> Result<()> {
        trunk::block(self.threads, x, attended, &block);
        Ok(())
    }

    fn patches(&self, pixels: &CpuMatrix, grid: PatchGrid) -> Result<CpuMatrix> {
        let rows = grid.images * grid.patches();
        Ok(self.by_row(rows, grid.patch_len(), |row, out| patches::copy_patch(pixels, grid, row, out)))
    }

    fn gather(&self, table: &CpuWeight, indices: &[u32]) -> Result<CpuMatrix> {
        let table = table.table();
        Ok(self.by_row(indices.len(), table.columns(), |row, out| table.row(indices[row] as usize, out)))
    }

    fn concat_rows(&self, parts: &[Rows<'_, CpuMatrix>]) -> Result<CpuMatrix> {
        let (rows, columns) = (parts.iter().map(|part| part.rows.len()).sum(), parts[0].matrix.columns());
        let mut out = self.pool.matrix(rows, columns);
        let mut rest = &mut out[..];
        for part in parts {
            let (here, after) = rest.split_at_mut(part.rows.len() * columns);
            here.copy_from_slice(&part.matrix[part.rows.start * columns..part.rows.end * columns]);
            rest = after;
        }
        Ok(out)
    }

    fn concat_columns(&self, parts: &[&CpuMatrix]) -> Result<CpuMatrix> {
        let columns = parts.iter().map(|part| part.columns()).sum();
        Ok(self.by_row(parts[0].rows(), columns, |row, mut out| {
            for part in parts {
                let (here, after) = out.split_at_mut(part.columns());
                here.copy_from_slice(part.row(row));
                out = after;
            }
        }))
    }
}
