use skillweld_tensor::Dtype;

use super::pieces::EIGHT;
use super::rows::{RowsView, RowsViewMut, count, padded, shaped, start, typed};
use crate::error::require;
use crate::{Argument, Result, Target};

const OPERATION: &str = "prefill_attention";
/// As in `kernels/src/prefill_attention.cu`.
const THREADS: u32 = 256;
const QUERIES: usize = 64;
/// The widest head.
const WIDEST: usize = 128;

/// Shape of a softmax attention within sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences of equal length that lie one after the other in the rows.
    pub sequences: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; each serves heads / kv_heads neighbouring heads of queries.
    pub kv_heads: usize,
    /// Width of a head; scores are divided by its square root.
    pub head_dim: usize,
    /// A token sees itself and what stands before it.
    pub causal: bool,
}

/// Columns of a matrix from `start` on: one of queries, keys and values, which may lie side by side.
#[derive(Debug, Clone, Copy)]
pub struct ColumnsView<'a> {
    /// Of this matrix.
    pub rows: RowsView<'a>,
    /// The first column.
    pub start: usize,
}

impl ColumnsView<'_> {
    /// Address of the first one, where `width` of them are there.
    pub(super) fn address(&self, operation: &'static str, name: &str, width: usize) -> Result<u64> {
        let end = self.start.saturating_add(width);
        require(end <= self.rows.columns, operation, || {
            format!(
                "`{name}` has {} columns, and {width} from {} on are needed",
                self.rows.columns, self.start
            )
        })?;
        Ok(self.rows.values.address + (self.start * self.rows.dtype().bits() / 8) as u64)
    }

    pub(super) fn stride(&self, operation: &'static str) -> Result<Argument> {
        count(operation, "stride", padded(self.rows.columns))
    }
}

impl AttentionShape {
    /// Rows of a sequence, once heads divide evenly and rows are whole sequences.
    pub(super) fn length(&self, operation: &'static str, rows: usize) -> Result<usize> {
        let Self { sequences, heads, kv_heads, head_dim, .. } = *self;
        require(kv_heads > 0 && heads.is_multiple_of(kv_heads) && head_dim > 0, operation, || {
            format!("{heads} heads {head_dim} wide cannot share {kv_heads} heads of keys evenly")
        })?;
        require(sequences > 0 && rows.is_multiple_of(sequences), operation, || {
            format!("{rows} rows are no {sequences} sequences of equal length")
        })?;
        Ok(rows / sequences)
    }
}

/// True for heads that [`prefill_attention`] takes.
pub fn prefill_attention_takes(head_dim: usize) -> bool {
    head_dim.is_multiple_of(EIGHT) && (EIGHT..=WIDEST).contains(&head_dim)
}

/// softmax(q kᵀ / √head_dim) v for each head of each sequence, on matrix units: all BF16, sums and softmax in f32, out
/// rows × (heads · head_dim). Heads are a multiple of 8 wide, at most 128; columns begin on a multiple of 8.
///
/// Twin: the policy's CPU backend, `attention` in bf16, which rounds the scaled queries instead of the queries.
///
/// # Errors
/// Operands that do not fit; whatever the target refuses.
pub fn prefill_attention<T: Target>(
    target: &T,
    queries: ColumnsView<'_>,
    keys: ColumnsView<'_>,
    values: ColumnsView<'_>,
    shape: AttentionShape,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    let AttentionShape { sequences, heads, kv_heads, head_dim, causal } = shape;
    let rows = queries.rows.rows;
    let length = shape.length(OPERATION, rows)?;
    require(prefill_attention_takes(head_dim), OPERATION, || {
        format!("heads {head_dim} wide; it takes multiples of {EIGHT} up to {WIDEST}")
    })?;
    for (name, columns) in [("queries", queries), ("keys", keys), ("values", values)] {
        typed(OPERATION, name, columns.rows.dtype(), Dtype::BF16)?;
        require(columns.start.is_multiple_of(EIGHT) && columns.rows.rows == rows, OPERATION, || {
            format!(
                "`{name}` has {} rows from column {} on, and {rows} are needed",
                columns.rows.rows, columns.start
            )
        })?;
    }
    typed(OPERATION, "out", out.dtype(), Dtype::BF16)?;
    shaped(OPERATION, "out", (out.rows, out.columns), (rows, heads * head_dim))?;
    let steps = head_dim.div_ceil(16);
    let keys_of_tile = if steps <= 4 { 128 } else { 64 };
    let pitch = steps * 16 + 8;
    let shared_bytes = 2 * pitch * (QUERIES + 4 * keys_of_tile);
    let arguments = [
        Argument::U64(queries.address(OPERATION, "queries", heads * head_dim)?),
        Argument::U64(keys.address(OPERATION, "keys", kv_heads * head_dim)?),
        Argument::U64(values.address(OPERATION, "values", kv_heads * head_dim)?),
        queries.stride(OPERATION)?,
        keys.stride(OPERATION)?,
        values.stride(OPERATION)?,
        out.address(),
        count(OPERATION, "stride", padded(out.columns))?,
        count(OPERATION, "length", length)?,
        count(OPERATION, "heads", heads / kv_heads)?,
        count(OPERATION, "head_dim", head_dim)?,
        Argument::U32(u32::from(causal)),
        Argument::F32(std::f32::consts::LOG2_E / (head_dim as f32).sqrt()),
    ];
    let grid = [length.div_ceil(QUERIES), heads, sequences];
    // SAFETY: every operand has rows for all sequences and columns for all heads, its own stride, and begins on 16 bytes.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &format!("{OPERATION}_{steps}"), grid, THREADS, shared_bytes, &arguments)
    }
}
