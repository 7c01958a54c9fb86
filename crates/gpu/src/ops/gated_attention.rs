use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check};
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "gated_attention";
/// As in `kernels/src/gated_attention.cu`.
const GROUPS: usize = 3;
const QUERIES: usize = 8;
const KEYS: usize = 8;
const WARP: usize = 32;
const MOST_WARPS: usize = 8;
/// Heads of up to this width have kernels of their own.
const NARROW_HEAD: usize = 128;
const WIDEST_HEAD: usize = 256;

/// Keys and values of one kind, with the queries that look for them.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGroup<'a> {
    /// Queries, BF16 or F32: `rows` rows that begin `query_stride` elements after one another, heads side by side.
    pub queries: View<'a>,
    /// Keys, BF16 or F32, any number × (heads · head_dim).
    pub keys: View<'a>,
    /// Values, as many as keys and of their dtype.
    pub values: View<'a>,
    /// What scores are multiplied with: gate / √head_dim.
    pub scale: f32,
}

/// cos and sin of a rotary embedding that turns the queries' neighbouring elements 2i and 2i + 1, each by the angle of its
/// own column mod half: F32, `rows` × (head_dim / 2) each.
#[derive(Debug, Clone, Copy)]
pub struct RotaryTable<'a> {
    /// cos(position · frequency).
    pub cos: View<'a>,
    /// sin(position · frequency).
    pub sin: View<'a>,
}

/// Sizes of a [`GatedAttention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatedShape {
    /// Queries of a head.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a head: a multiple of 8, at most 256.
    pub head_dim: usize,
    /// Elements between two rows of queries; at least heads · head_dim.
    pub query_stride: usize,
}

/// softmax(\[s_1 · q_1 k_1ᵀ, s_2 · q_2 k_2ᵀ, …\]) \[v_1; v_2; …\] for every head, with one softmax over one to three groups of
/// keys: the cross-attention of an action expert (arXiv 2511.18810), in one launch.
///
/// Queries and the softmax's weights are multiplied as sums of two numbers of 11 bits: a relative error of 2⁻²¹ in each,
/// and sums in f32.
///
/// Twin: `gated_attention` of `skillweld_policy`'s CPU backend, after `rope` of the queries if a table is given.
#[derive(Debug)]
pub struct GatedAttention<'a, M> {
    kernel: String,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    arguments: Vec<Argument>,
    // What the arguments point to besides the operands.
    workspace: M,
    counters: M,
    operands: std::marker::PhantomData<&'a mut ()>,
}

impl<'a, M: Memory> GatedAttention<'a, M> {
    /// Checks the operands and makes room for what blocks tell each other. `out` is rows × (heads · head_dim), BF16 or F32.
    ///
    /// # Errors
    /// Operands whose dtypes, lengths or sizes do not fit; no keys at all; no memory.
    #[expect(clippy::needless_pass_by_value, reason = "its borrow lasts as long as this")]
    pub fn new<T: Target<Memory = M>>(
        target: &T,
        shape: GatedShape,
        groups: &[AttentionGroup<'a>],
        rotary: Option<RotaryTable<'a>>,
        out: ViewMut<'a>,
    ) -> Result<Self> {
        let GatedShape { rows, heads, head_dim, query_stride } = shape;
        let (key_dtype, query_dtype) = check_operands(shape, groups, rotary, &out)?;
        let suffix = if key_dtype == Dtype::BF16 { "bf16" } else { "f32" };
        let kernel = format!("{OPERATION}_{suffix}_{}", if head_dim <= NARROW_HEAD { 2 } else { 4 });

        let tiles: usize = groups.iter().map(|group| keys_of(shape, group).div_ceil(KEYS)).sum();
        let query_tiles = rows.div_ceil(QUERIES);
        let warps = tiles.clamp(1, MOST_WARPS);
        let threads = (warps * WARP) as u32;
        let shared_bytes = (warps * QUERIES * (head_dim + 2) * 4 + 4) as u32;
        // Blocks that share a head and eight queries.
        let teams = heads * query_tiles;
        // As many blocks as run together, and none without work.
        let together = target.resident_blocks(&kernel, threads, shared_bytes)? as usize;
        let splits = (together / teams.max(1)).clamp(1, tiles.div_ceil(warps));
        let workspace = target.allocate(teams * splits * QUERIES * (head_dim + 2) * 4)?;
        let mut counters = target.allocate(teams * 4)?;
        target.fill(&mut counters, 0)?;

        let mut arguments = Vec::new();
        for index in 0..GROUPS {
            let group = groups.get(index);
            let address = |view: Option<View<'_>>| Argument::U64(view.map_or(0, |view| view.address));
            arguments.extend([
                address(group.map(|group| group.queries)),
                address(group.map(|group| group.keys)),
                address(group.map(|group| group.values)),
                Argument::U32(group.map_or(0, |group| keys_of(shape, group) as u32)),
                Argument::F32(group.map_or(0.0, |group| group.scale)),
            ]);
        }
        let bf16 = u32::from(query_dtype == Dtype::BF16) | u32::from(out.dtype == Dtype::BF16) << 1;
        arguments.extend([
            Argument::U32(rows as u32),
            Argument::U32(head_dim as u32),
            Argument::U32(query_stride as u32),
            Argument::U32(bf16),
            Argument::U64(rotary.map_or(0, |table| table.cos.address)),
            Argument::U64(rotary.map_or(0, |table| table.sin.address)),
            Argument::U64(out.address),
            Argument::U64(workspace.address()),
            Argument::U64(counters.address()),
        ]);
        let grid = [splits as u32, heads as u32, query_tiles as u32];
        Ok(Self {
            kernel,
            grid,
            threads,
            shared_bytes,
            arguments,
            workspace,
            counters,
            operands: std::marker::PhantomData,
        })
    }

    /// The memory that recorded launches go on using when the operands' borrows end.
    pub fn into_memory(self) -> [M; 2] {
        [self.workspace, self.counters]
    }

    /// Asks for the launch; again, for the same operands, as often as wanted.
    ///
    /// # Errors
    /// Whatever the target refuses.
    pub fn run<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        self.launch(target, false)
    }

    /// The same right after another launch whose kernel writes neither keys, values nor the rotary table: they are loaded
    /// while it still runs.
    pub(super) fn run_early<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        self.launch(target, true)
    }

    fn launch<T: Target<Memory = M>>(&mut self, target: &T, early: bool) -> Result<()> {
        if self.grid[2] == 0 {
            return Ok(());
        }
        let launch = Launch {
            kernel: &self.kernel,
            grid: self.grid,
            threads: self.threads,
            shared_bytes: self.shared_bytes,
            cooperative: false,
            arguments: &self.arguments,
        };
        // SAFETY: the arguments were made in `new` from operands that it checked and that are borrowed as long as this, and
        // from memory that this owns. `run_early` is only asked for where it says.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            if early { target.launch_early(&launch) } else { target.launch(&launch) }
        }
    }
}

/// Number of keys of a group.
fn keys_of(shape: GatedShape, group: &AttentionGroup<'_>) -> usize {
    group.keys.numel / (shape.heads * shape.head_dim)
}

/// The dtypes of keys and of queries, if everything fits.
fn check_operands(
    shape: GatedShape,
    groups: &[AttentionGroup<'_>],
    rotary: Option<RotaryTable<'_>>,
    out: &ViewMut<'_>,
) -> Result<(Dtype, Dtype)> {
    let GatedShape { rows, heads, head_dim, query_stride } = shape;
    let width = heads * head_dim;
    require(
        heads > 0 && head_dim > 0 && head_dim.is_multiple_of(EIGHT) && head_dim <= WIDEST_HEAD,
        OPERATION,
        || format!("{heads} heads {head_dim} wide; heads are a multiple of 8 wide and at most {WIDEST_HEAD}"),
    )?;
    require(query_stride >= width && query_stride.is_multiple_of(EIGHT), OPERATION, || {
        format!(
            "rows of queries {width} wide cannot begin every {query_stride} elements; a multiple of 8 does"
        )
    })?;
    require((1..=GROUPS).contains(&groups.len()), OPERATION, || {
        format!("{} groups of keys; one to {GROUPS} can be attended to", groups.len())
    })?;
    let (key_dtype, query_dtype) = (groups[0].keys.dtype, groups[0].queries.dtype);
    for (name, dtype) in [("keys", key_dtype), ("queries", query_dtype), ("out", out.dtype)] {
        require(matches!(dtype, Dtype::BF16 | Dtype::F32), OPERATION, || {
            format!("`{name}` is {dtype}; BF16 and F32 can be attended with")
        })?;
    }
    let queries = if rows == 0 { 0 } else { (rows - 1) * query_stride + width };
    for group in groups {
        let AttentionGroup { queries: query, keys, values, .. } = group;
        let keys_numel = keys_of(shape, group) * width;
        check(OPERATION, "queries", (query.address, query.dtype, query.numel), query_dtype, queries)?;
        check(OPERATION, "keys", (keys.address, keys.dtype, keys.numel), key_dtype, keys_numel)?;
        check(OPERATION, "values", (values.address, values.dtype, values.numel), key_dtype, keys.numel)?;
    }
    let count: usize = groups.iter().map(|group| keys_of(shape, group)).sum();
    let fits =
        u32::try_from(count).is_ok() && u32::try_from(rows).is_ok() && u32::try_from(query_stride).is_ok();
    require(count > 0 && fits, OPERATION, || format!("{rows} queries cannot attend to {count} keys"))?;
    if let Some(RotaryTable { cos, sin }) = rotary {
        for (name, table) in [("cos", cos), ("sin", sin)] {
            check(
                OPERATION,
                name,
                (table.address, table.dtype, table.numel),
                Dtype::F32,
                rows * head_dim / 2,
            )?;
        }
    }
    check(OPERATION, "out", (out.address, out.dtype, out.numel), out.dtype, rows * width)?;
    Ok((key_dtype, query_dtype))
}
