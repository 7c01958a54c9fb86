use std::sync::{Mutex, PoisonError};

use half::bf16;
use half::slice::HalfFloatSliceExt;
use ndarray::ArrayView2;
use skillweld_linalg::{LinalgError, PackedWeight, Threads, WeightBlock};
use skillweld_tensor::Dtype;

use crate::backend::{ReadBlock, Result, ValuesMut, WeightKind};

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

/// A thread's rows on their way into panels.
#[derive(Default)]
struct Scratch {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
}

impl Block<'_> {
    /// Overwrites the block with what `read` gives.
    fn write(&mut self, scratch: &mut Scratch, read: impl Fn(ValuesMut<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Packed(block, columns) if block.dtype() == Dtype::BF16 => {
                let rows =
                    rows(&mut scratch.bf16, (block.rows(), *columns), |out| read(ValuesMut::Bf16(out)))?;
                Ok(block.write_bf16(&rows)?)
            }
            Self::Packed(block, columns) => {
                let rows = rows(&mut scratch.f32, (block.rows(), *columns), |out| read(ValuesMut::F32(out)))?;
                Ok(block.write_f32(&rows)?)
            }
            Self::F32(values) => read(ValuesMut::F32(values)),
            Self::Bf16(values) => read(ValuesMut::Bf16(values)),
        }
    }
}

/// Rows that `read` fills, in a buffer that is kept.
fn rows<T: Copy + Default>(
    buffer: &mut Vec<T>,
    (rows, columns): (usize, usize),
    read: impl Fn(&mut [T]) -> Result<()>,
) -> Result<ArrayView2<'_, T>> {
    buffer.resize(rows * columns, T::default());
    read(buffer)?;
    let rows = ArrayView2::from_shape((rows, columns), buffer);
    Ok(rows.unwrap_or_else(|_| unreachable!("the buffer has the block's size")))
}

/// Overwrites weights in place, their blocks in parallel.
pub(super) fn write(threads: Threads, weights: &mut [&mut CpuWeight], read: &ReadBlock<'_>) -> Result<()> {
    let blocks = weights.iter_mut().enumerate().flat_map(|(index, weight)| {
        weight.blocks_mut().into_iter().map(move |(offset, block)| (index, offset, Mutex::new(block)))
    });
    let blocks: Vec<_> = blocks.collect();
    threads.for_each(blocks.len(), Scratch::default, |scratch, part| {
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
                let value = |i| value(weight, offset + i);
                match out {
                    ValuesMut::F32(out) => out.iter_mut().enumerate().for_each(|(i, out)| *out = value(i)),
                    ValuesMut::Bf16(out) => {
                        out.iter_mut().enumerate().for_each(|(i, out)| *out = bf16::from_f32(value(i)));
                    }
                }
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
