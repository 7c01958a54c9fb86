use skillweld_tensor::Dtype;

use super::pieces::EIGHT;
use super::prefill_attention::{AttentionShape, ColumnsView};
use super::rows::{RowsView, RowsViewMut, count, float, padded, shaped, start, typed};
use crate::error::require;
use crate::{Argument, Result, Target};

const OPERATION: &str = "plain_attention";
/// As in `kernels/src/plain_attention.cu`.
const THREADS: u32 = 128;
const QUERIES: usize = 4;
const GROUPS: usize = 3;
/// Shared memory that every GPU gives a block that asks for it.
const SHARED_BYTES: usize = 99 * 1024;

/// Keys and values of one kind, with the queries that look for them.
#[derive(Debug, Clone, Copy)]
pub struct GroupView<'a> {
    /// Queries, tokens × width.
    pub queries: RowsView<'a>,
    /// Keys, any number × width.
    pub keys: RowsView<'a>,
    /// Values, as many as keys.
    pub values: RowsView<'a>,
    /// What scores are multiplied with before the softmax over all groups.
    pub scale: f32,
}

/// softmax(q kᵀ / √head_dim) v for each head of each sequence, in f32: queries and out of one dtype, keys and values of
/// one, BF16 or F32, keys not wider than queries. Any width of heads.
///
/// Twin: the policy's CPU backend, `attention` in f32.
///
/// # Errors
/// Operands that do not fit; more keys than scores of four queries fit into shared memory (about 6000); whatever the
/// target refuses.
pub fn plain_attention<T: Target>(
    target: &T,
    queries: ColumnsView<'_>,
    keys: ColumnsView<'_>,
    values: ColumnsView<'_>,
    shape: AttentionShape,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    let rows = queries.rows.rows;
    let length = shape.length(OPERATION, rows)?;
    for (name, columns) in [("keys", keys), ("values", values)] {
        require(columns.rows.rows == rows, OPERATION, || {
            format!("`{name}` has {} rows, and {rows} are needed", columns.rows.rows)
        })?;
    }
    let scale = (shape.head_dim as f32).sqrt().recip();
    let group = (queries, keys, values, length, scale);
    run(target, &[group], shape, length, out)
}

/// One softmax over the keys of one to three groups, each with its own queries and scale: rows of the queries × width. All
/// queries of one shape, all keys and values as wide; dtypes as in [`plain_attention`].
///
/// Twin: the policy's CPU backend, `gated_attention`.
///
/// # Errors
/// As [`plain_attention`].
pub fn plain_gated_attention<T: Target>(
    target: &T,
    groups: &[GroupView<'_>],
    heads: usize,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    require((1..=GROUPS).contains(&groups.len()), OPERATION, || {
        format!("{} groups of keys; it takes 1 to {GROUPS}", groups.len())
    })?;
    let (length, width) = (groups[0].queries.rows, groups[0].queries.columns);
    require(heads > 0 && width.is_multiple_of(heads), OPERATION, || {
        format!("queries of width {width} do not split into {heads} heads")
    })?;
    for group in groups {
        shaped(OPERATION, "queries", (group.queries.rows, group.queries.columns), (length, width))?;
        shaped(OPERATION, "keys", (group.keys.rows, group.keys.columns), (group.keys.rows, width))?;
        shaped(OPERATION, "values", (group.values.rows, group.values.columns), (group.keys.rows, width))?;
    }
    let head_dim = width / heads;
    let shape = AttentionShape { sequences: 1, heads, kv_heads: heads, head_dim, causal: false };
    let whole = |rows| ColumnsView { rows, start: 0 };
    let groups: Vec<_> = groups
        .iter()
        .map(|group| {
            (whole(group.queries), whole(group.keys), whole(group.values), group.keys.rows, group.scale)
        })
        .collect();
    run(target, &groups, shape, length, out)
}

/// Queries, keys, values, keys of one sequence, scale.
type Group<'a> = (ColumnsView<'a>, ColumnsView<'a>, ColumnsView<'a>, usize, f32);

fn run<T: Target>(
    target: &T,
    groups: &[Group<'_>],
    shape: AttentionShape,
    length: usize,
    out: &mut RowsViewMut<'_>,
) -> Result<()> {
    let AttentionShape { sequences, heads, kv_heads, head_dim, causal } = shape;
    let (queries, keys, values, ..) = groups[0];
    shaped(OPERATION, "out", (out.rows, out.columns), (sequences * length, heads * head_dim))?;
    typed(OPERATION, "out", out.dtype(), queries.rows.dtype())?;
    require(queries.rows.dtype() == Dtype::F32 || keys.rows.dtype() == Dtype::BF16, OPERATION, || {
        format!("keys of {} are wider than queries of {}", keys.rows.dtype(), queries.rows.dtype())
    })?;
    let mut arguments = Vec::new();
    for (q, k, v, count_, scale) in groups {
        typed(OPERATION, "queries", q.rows.dtype(), queries.rows.dtype())?;
        for (name, columns) in [("keys", k), ("values", v)] {
            typed(OPERATION, name, columns.rows.dtype(), keys.rows.dtype())?;
            let aligned = !head_dim.is_multiple_of(EIGHT) || columns.start.is_multiple_of(EIGHT);
            require(aligned, OPERATION, || format!("`{name}` begins at column {}", columns.start))?;
        }
        arguments.extend([
            Argument::U64(q.address(OPERATION, "queries", heads * head_dim)?),
            Argument::U64(k.address(OPERATION, "keys", kv_heads * head_dim)?),
            Argument::U64(v.address(OPERATION, "values", kv_heads * head_dim)?),
            count(OPERATION, "keys", *count_)?,
            Argument::F32(*scale),
        ]);
    }
    for _ in groups.len()..GROUPS {
        let none =
            [Argument::U64(0), Argument::U64(0), Argument::U64(0), Argument::U32(0), Argument::F32(0.0)];
        arguments.extend(none);
    }
    arguments.extend([
        queries.stride(OPERATION)?,
        keys.stride(OPERATION)?,
        values.stride(OPERATION)?,
        out.address(),
        count(OPERATION, "stride", padded(out.columns))?,
        count(OPERATION, "length", length)?,
        count(OPERATION, "heads", heads / kv_heads)?,
        count(OPERATION, "head_dim", head_dim)?,
        Argument::U32(u32::from(causal)),
    ]);
    let total: usize = groups.iter().map(|group| group.3).sum();
    require(total > 0 || length == 0, OPERATION, || "there are no keys".to_owned())?;
    let shared_bytes = 4 * QUERIES * (GROUPS * head_dim + total + 1);
    require(shared_bytes <= SHARED_BYTES, OPERATION, || {
        format!("{total} keys: the scores of {QUERIES} queries do not fit into shared memory")
    })?;
    let kernel = format!(
        "{OPERATION}_{}_{}",
        float(OPERATION, queries.rows.dtype())?,
        float(OPERATION, keys.rows.dtype())?
    );
    let grid = [length.div_ceil(QUERIES), heads, sequences];
    // SAFETY: all groups' matrices were checked to have rows for all sequences and columns for all heads, and one stride.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        start(target, &kernel, grid, THREADS, shared_bytes, &arguments)
    }
}
