//! Factors of [`LowRank`](super::LowRank) that the matrix units cannot read as they are, split into bf16 parts.

use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, grid, table, uploaded};
use crate::{Argument, Launch, Memory, Result, Target, View};

const KERNEL: &str = "low_rank_split";
/// As in `kernels/src/low_rank_split.cu`.
const THREADS: usize = 256;

/// One factor, row by row.
pub(super) struct Factor<'a> {
    pub(super) values: View<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Factor<'_> {
    /// Whether the matrix units can read it as it is: bf16, and every row begins on 16 bytes.
    pub(super) fn fits(&self) -> bool {
        self.values.dtype == Dtype::BF16 && self.columns.is_multiple_of(EIGHT)
    }

    /// Number of bf16 numbers whose sum is exactly an element.
    fn parts(&self) -> usize {
        match self.values.dtype {
            Dtype::BF16 => 1,
            Dtype::F16 => 2,
            _ => 3,
        }
    }
}

/// All factors of an operation that are split, in one launch.
#[derive(Debug)]
pub(super) struct Splits<M> {
    pieces: Vec<u64>,
    piece_count: u32,
    tiles: usize,
    parts: Vec<M>,
    table: Option<M>,
}

impl<M> Default for Splits<M> {
    fn default() -> Self {
        Self { pieces: Vec::new(), piece_count: 0, tiles: 0, parts: Vec::new(), table: None }
    }
}

impl<M: Memory> Splits<M> {
    /// Addresses of the factor's parts, at most `most`, the largest first: matrices of bf16 whose rows and columns are
    /// those of the factor rounded up to multiples of 8. They hold their values after [`Self::run`].
    pub(super) fn parts<T: Target<Memory = M>>(
        &mut self,
        target: &T,
        factor: &Factor<'_>,
        most: usize,
    ) -> Result<Vec<u64>> {
        let count = factor.parts().min(most);
        let (rows, pitch) = (factor.rows.next_multiple_of(EIGHT), factor.columns.next_multiple_of(EIGHT));
        let part_bytes = rows * pitch * 2;
        let memory = target.allocate(part_bytes * count)?;
        let stored: u64 = match factor.values.dtype {
            Dtype::BF16 => 0,
            Dtype::F16 => 1,
            _ => 2,
        };
        let address = memory.address();
        let pair = |low: usize, high: usize| low as u64 | (high as u64) << 32;
        self.pieces.extend([
            factor.values.address,
            address,
            self.tiles as u64,
            pair(factor.rows, factor.columns),
            pair(rows, pitch),
            stored | (count as u64) << 32,
        ]);
        self.piece_count += 1;
        self.tiles += (rows * pitch / EIGHT).div_ceil(THREADS);
        self.parts.push(memory);
        Ok((0..count).map(|part| address + (part * part_bytes) as u64).collect())
    }

    /// Makes the table of everything that was asked for.
    pub(super) fn lay_out<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        if !self.pieces.is_empty() {
            self.table = Some(uploaded(target, &table(self.pieces.drain(..)))?);
        }
        Ok(())
    }

    /// Splits all factors.
    pub(super) fn run<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let arguments = [Argument::U64(table.address()), Argument::U32(self.piece_count)];
        let launch = Launch {
            kernel: KERNEL,
            grid: [grid(KERNEL, self.tiles)?, 1, 1],
            threads: THREADS as u32,
            shared_bytes: 0,
            cooperative: false,
            arguments: &arguments,
        };
        // SAFETY: the table names factors that the operation checked and borrows, and parts that are this value's own.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)
        }
    }
}
