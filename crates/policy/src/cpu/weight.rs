use std::sync::{Mutex, PoisonError};

use half::bf16;
use half::slice::HalfFloatSliceExt;
use ndarray::ArrayView2;
use skillweld_linalg::{LinalgError, PackedWeight, Threads, WeightBlock};

use crate::backend::{ReadBlock, Result, WeightKind};

use super::Precision;

/// Elements that one thread reads and writes at once, about: few enough for a core's L2 cache.
const BLOCK: usize = 1 << 14;

/// A weight in memory.
#[derive(Debug)]
pub enum CpuWeight {
    /// Output × input features, in the order in which products read it.
    Matrix(PackedWeight),
    /// Rows to look up, or a trunk's output × input features.
    Table(Table),
    /// One row.
    Vector(Vec<f32>),
}

/// Rows as they are stored, in the model's [`Precision`].
#[derive(Debug)]
pub struct Table {
    rows: usize,
    columns: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl CpuWeight {
    pub(super) fn zeros(
        kind: WeightKind,
        precision: Precision,
        rows: usize,
        columns: usize,
    ) -> std::result::Result<Self, LinalgError> {
        let len = rows * columns;
        Ok(match kind {
            WeightKind::Matrix => Self::Matrix(PackedWeight::zeros(precision.dtype(), rows, columns)?),
            WeightKind::Vector => Self::Vector(vec![0.0; len]),
            WeightKind::Table | WeightKind::TrunkMatrix => Self::Table(Table {
                rows,
                columns,
                values: match precision {
                    Precision::F32 => Values::F32(vec![0.0; len]),
                    Precision::Bf16 => Values::Bf16(vec![bf16::ZERO; len]),
                },
            }),
        })
    }

    pub(super) fn matrix(&self) -> &PackedWeight {
        match self {
            Self::Matrix(matrix) => matrix,
            _ => unreachable!("linear layers are planned as matrices"),
        }
    }

    pub(super) fn table(&self) -> &Table {
        match self {
            Self::Table(table) => table,
            _ => unreachable!("embeddings and trunk layers are planned as tables"),
        }
    }

    pub(super) fn vector(&self) -> &[f32] {
        match self {
            Self::Vector(vector) => vector,
            _ => unreachable!("biases and gains are planned as vectors"),
        }
    }

    /// The weight in parts that threads write side by side, with the flattened index of each part's first element.
    fn blocks_mut(&mut self) -> Vec<(usize, Block<'_>)> {
        match self {
            Self::Matrix(matrix) => {
                let columns = matrix.in_features();
                let blocks = matrix.blocks_mut(BLOCK / columns.max(1));
                blocks.map(|block| (block.first_row() * columns, Block::Packed(block, columns))).collect()
            }
            Self::Vector(values) | Self::Table(Table { values: Values::F32(values), .. }) => {
                numbered(values.chunks_mut(BLOCK).map(Block::F32))
            }
            Self::Table(Table { values: Values::Bf16(values), .. }) => {
                numbered(values.chunks_mut(BLOCK).map(Block::Bf16))
            }
        }
    }
}

impl Table {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Decodes one row.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let range = row * self.columns..(row + 1) * self.columns;
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::Bf16(values) => values[range].convert_to_f32_slice(out),
        }
    }
}

/// Part of a weight.
enum Block<'a> {
    /// Whole rows, this many values each.
    Packed(WeightBlock<'a>, usize),
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

fn numbered<'a>(blocks: impl Iterator<Item = Block<'a>>) -> Vec<(usize, Block<'a>)> {
    (0..).step_by(BLOCK).zip(blocks).collect()
}

impl Block<'_> {
    /// Overwrites the block with what `read` gives, rounded once.
    fn write(&mut self, scratch: &mut Vec<f32>, read: impl Fn(&mut [f32]) -> Result<()>) -> Result<()> {
        match self {
            Self::Packed(block, columns) => {
                let shape = (block.rows(), *columns);
                scratch.resize(shape.0 * shape.1, 0.0);
                read(scratch)?;
                let rows = ArrayView2::from_shape(shape, scratch)
                    .unwrap_or_else(|_| unreachable!("scratch has the block's size"));
                Ok(block.write(&rows)?)
            }
            Self::F32(values) => read(values),
            Self::Bf16(values) => {
                scratch.resize(values.len(), 0.0);
                read(scratch)?;
                values.convert_from_f32_slice(scratch);
                Ok(())
            }
        }
    }
}

/// Overwrites weights in place, their blocks in parallel.
pub(super) fn write(threads: Threads, weights: &mut [&mut CpuWeight], read: &ReadBlock<'_>) -> Result<()> {
    let blocks = weights.iter_mut().enumerate().flat_map(|(index, weight)| {
        weight.blocks_mut().into_iter().map(move |(offset, block)| (index, offset, Mutex::new(block)))
    });
    let blocks: Vec<_> = blocks.collect();
    threads.for_each(blocks.len(), Vec::new, |scratch, part| {
        let (index, offset, block) = &blocks[part];
        let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
        block.write(scratch, |out| read(*index, *offset, out))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_element_is_written(rows in 1..400usize, columns in 1..200usize, narrow: bool, count in 1..4usize) {
            let precision = if narrow { Precision::Bf16 } else { Precision::F32 };
            let kinds = [WeightKind::Matrix, WeightKind::Table];
            let mut weights = kinds.map(|kind| CpuWeight::zeros(kind, precision, rows, columns).unwrap());
            let threads = Threads::new(NonZeroUsize::new(count).unwrap());
            // Integers below 2⁸ are exact in bf16.
            let value = |weight: usize, index: usize| ((index * 7 + weight) % 251) as f32;
            let mut targets: Vec<_> = weights.iter_mut().collect();
            write(threads, &mut targets, &|weight, offset, out| {
                out.iter_mut().enumerate().for_each(|(i, out)| *out = value(weight, offset + i));
                Ok(())
            }).unwrap();
            let matrix = weights[0].matrix().to_f32();
            for row in 0..rows {
                let mut looked_up = vec![f32::NAN; columns];
                weights[1].table().row(row, &mut looked_up);
                for (column, &looked_up) in looked_up.iter().enumerate() {
                    let index = row * columns + column;
                    prop_assert_eq!(matrix[[row, column]], value(0, index));
                    prop_assert_eq!(looked_up, value(1, index));
                }
            }
        }
    }
}
