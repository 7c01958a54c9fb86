use std::marker::PhantomData;

use skillweld_tensor::Dtype;

use super::expert_persistent::Persistent;
use super::gated_attention::{AttentionGroup, GatedAttention, GatedShape, RotaryTable};
use super::pieces::{EIGHT, check, grid};
use crate::error::require;
use crate::{Argument, Array, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "expert";
/// As in `kernels/src/expert.cu`.
const WARP: usize = 32;
const MOST_WARPS: usize = 16;
const STEPS: usize = 2;
const INPUTS: usize = 32;
const ROWS: usize = 8;
const FEATURES: usize = 8;

/// A linear layer: x · Wᵀ + b.
#[derive(Debug, Clone, Copy)]
pub struct ExpertLinear<'a> {
    /// BF16, features × width.
    pub weight: View<'a>,
    /// F32, features.
    pub bias: View<'a>,
}

/// A LayerNorm's gain and bias, F32, width each.
#[derive(Debug, Clone, Copy)]
pub struct ExpertNorm<'a> {
    /// Multiplied with.
    pub gain: View<'a>,
    /// Added.
    pub bias: View<'a>,
}

/// Keys, turned already, and values of one kind of tokens at one depth.
#[derive(Debug, Clone, Copy)]
pub struct ExpertKeys<'a> {
    /// BF16 or F32, any number × width.
    pub keys: View<'a>,
    /// As many, of the same dtype.
    pub values: View<'a>,
    /// gate / √head_dim.
    pub scale: f32,
}

/// One block of an action expert.
#[derive(Debug, Clone, Copy)]
pub struct ExpertLayer<'a> {
    /// Both query projections, 2 · width features: those that look for action tokens first.
    pub queries: ExpertLinear<'a>,
    /// Keys and values of action tokens and of task tokens.
    pub groups: [ExpertKeys<'a>; 2],
    /// After the attention.
    pub out: ExpertLinear<'a>,
    /// Before the feed-forward layer.
    pub norm: ExpertNorm<'a>,
    /// The feed-forward layer.
    pub feed_forward: ExpertLinear<'a>,
}

/// Sizes of an [`ActionExpert`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertShape {
    /// Actions of a chunk.
    pub rows: usize,
    /// Attention heads.
    pub heads: usize,
    /// Elements of a head: a multiple of 8, at most 256. The trunk is heads · head_dim wide.
    pub head_dim: usize,
    /// Values of an action.
    pub action_dim: usize,
    /// The norms' ε.
    pub epsilon: f32,
}

/// What an [`ActionExpert`] reads.
#[derive(Debug, Clone)]
pub struct ExpertOperands<'a> {
    /// The rows that the first block gets, F32, rows × width.
    pub start: View<'a>,
    /// The blocks, first one first.
    pub layers: Vec<ExpertLayer<'a>>,
    /// What turns the queries.
    pub rotary: RotaryTable<'a>,
    /// The norm before the last layer.
    pub norm: ExpertNorm<'a>,
    /// The last layer, `action_dim` features.
    pub last: ExpertLinear<'a>,
}

/// A whole action expert of MergeVLA's design (arXiv 2511.18810) for one chunk of actions: in every block
/// x ← x + W_o attention(W_q x) + b_o, then x ← ReLU(W_f LayerNorm(x) + b_f); at the end W LayerNorm(x) + b. Keys and values
/// do not depend on x and are given.
///
/// The rows stay f32 throughout and are multiplied as sums of two numbers of 11 bits, a relative error of 2⁻²¹ at most; sums
/// are f32. Of the largest action the error was 5·10⁻⁵ at most after 24 blocks with weights as large as PyTorch's.
///
/// Twin: `skillweld_policy`'s action expert on the CPU.
#[derive(Debug)]
pub struct ActionExpert<'a, M> {
    linears: Vec<Linear>,
    attentions: Vec<GatedAttention<'a, M>>,
    buffers: Vec<Array<M>>,
    persistent: Result<Persistent<M>>,
    operands: PhantomData<&'a mut ()>,
}

/// One launch of `expert_linear`.
#[derive(Debug)]
struct Linear {
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    arguments: [Argument; 12],
}

impl<'a, M: Memory> ActionExpert<'a, M> {
    /// Checks the operands and makes room for what stands between the kernels. `out` is rows × action_dim, F32.
    ///
    /// # Errors
    /// Operands whose dtypes, lengths or sizes do not fit; no memory.
    #[expect(clippy::needless_pass_by_value, reason = "its borrow lasts as long as this")]
    pub fn new<T: Target<Memory = M>>(
        target: &T,
        shape: ExpertShape,
        operands: &ExpertOperands<'a>,
        out: ViewMut<'a>,
    ) -> Result<Self> {
        check_operands(shape, operands, &out)?;
        let ExpertShape { rows, heads, head_dim, action_dim, .. } = shape;
        let width = heads * head_dim;
        let buffer = |width: usize| target.array(Dtype::F32, rows * width);
        let [mut queries, mut attended, mut sum, mut trunk] =
            [buffer(2 * width)?, buffer(width)?, buffer(width)?, buffer(width)?];
        let address = |buffer: &Array<M>| buffer.memory().address();
        let (mut linears, mut attentions) = (Vec::new(), Vec::new());
        let mut x = operands.start.address;
        for layer in &operands.layers {
            let plain = LinearPlan { from: x, ..LinearPlan::new(shape, layer.queries, 2 * width) };
            linears.push(plain.launch(target, address(&queries))?);
            attentions.push(attention(target, shape, layer, operands.rotary, &queries, &mut attended)?);
            let residual =
                LinearPlan { from: address(&attended), ..LinearPlan::new(shape, layer.out, width) };
            linears.push(LinearPlan { residual: x, ..residual }.launch(target, address(&sum))?);
            let feed =
                LinearPlan { from: address(&sum), ..LinearPlan::new(shape, layer.feed_forward, width) };
            let feed = LinearPlan { norm: Some(layer.norm), relu: true, ..feed };
            linears.push(feed.launch(target, address(&trunk))?);
            x = address(&trunk);
        }
        let last = LinearPlan { from: x, ..LinearPlan::new(shape, operands.last, action_dim) };
        linears.push(LinearPlan { norm: Some(operands.norm), ..last }.launch(target, out.address)?);
        for buffer in [&mut queries, &mut attended, &mut sum, &mut trunk] {
            target.fill(buffer.memory_mut(), 0)?;
        }
        let buffers = vec![queries, attended, sum, trunk];
        let persistent = Persistent::new(target, shape, operands, out.address);
        Ok(Self { linears, attentions, buffers, persistent, operands: PhantomData })
    }

    /// Asks for the whole expert, four kernels a block: to be recorded in a [`Graph`](crate::Graph).
    ///
    /// # Errors
    /// Whatever the target refuses.
    pub fn run_graph_kernels<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        // Weights, keys and values are nobody's to write, so all but the first launch begin before the one ahead has ended.
        let mut first = true;
        let (blocks, last) = self.linears.split_at(3 * self.attentions.len());
        for (attention, linears) in self.attentions.iter_mut().zip(blocks.chunks_exact(3)) {
            linears[0].run(target, !std::mem::take(&mut first))?;
            attention.run_early(target)?;
            linears[1].run(target, true)?;
            linears[2].run(target, true)?;
        }
        last.iter().try_for_each(|linear| linear.run(target, !first))
    }

    /// Asks for the whole expert in one cooperative launch.
    ///
    /// # Errors
    /// Sizes or dtypes that one launch does not hold, which [`ActionExpert::run_graph_kernels`] does; whatever the target
    /// refuses.
    pub fn run_persistent<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        self.persistent.as_ref().map_err(Clone::clone)?.run(target)
    }

    /// The memory that recorded launches go on using when the operands' borrows end.
    pub fn into_memory(self) -> Vec<M> {
        let buffers = self.buffers.into_iter().map(Array::into_memory);
        let attentions = self.attentions.into_iter().flat_map(GatedAttention::into_memory);
        let persistent = self.persistent.into_iter().flat_map(|persistent| persistent.memory);
        buffers.chain(attentions).chain(persistent).collect()
    }
}

/// A block's attention, from `queries` to `out`.
fn attention<'a, T: Target>(
    target: &T,
    shape: ExpertShape,
    layer: &ExpertLayer<'a>,
    rotary: RotaryTable<'a>,
    queries: &Array<T::Memory>,
    out: &mut Array<T::Memory>,
) -> Result<GatedAttention<'a, T::Memory>> {
    let ExpertShape { rows, heads, head_dim, .. } = shape;
    let width = heads * head_dim;
    let group = |(index, keys): (usize, &ExpertKeys<'a>)| {
        // Rows of both queries lie side by side.
        let from = index * width;
        let until = if rows == 0 { from } else { from + (2 * rows - 1) * width };
        let queries = queries.view().slice(from.min(queries.numel())..until.min(queries.numel()));
        AttentionGroup { queries: queries.unbound(), keys: keys.keys, values: keys.values, scale: keys.scale }
    };
    let groups: Vec<_> = layer.groups.iter().enumerate().map(group).collect();
    let gated = GatedShape { rows, heads, head_dim, query_stride: 2 * width };
    GatedAttention::new(target, gated, &groups, Some(rotary), out.view_mut().unbound())
}

/// What goes into an `expert_linear`.
#[derive(Debug, Clone, Copy)]
struct LinearPlan<'a> {
    shape: ExpertShape,
    linear: ExpertLinear<'a>,
    features: usize,
    from: u64,
    residual: u64,
    norm: Option<ExpertNorm<'a>>,
    relu: bool,
}

impl<'a> LinearPlan<'a> {
    fn new(shape: ExpertShape, linear: ExpertLinear<'a>, features: usize) -> Self {
        Self { shape, linear, features, from: 0, residual: 0, norm: None, relu: false }
    }

    fn launch<T: Target>(self, target: &T, out: u64) -> Result<Linear> {
        let ExpertShape { rows, heads, head_dim, epsilon, .. } = self.shape;
        let width = heads * head_dim;
        // A thread for every sum at least.
        let warps = width.div_ceil(INPUTS).div_ceil(STEPS).clamp(2 * ROWS * FEATURES / WARP, MOST_WARPS);
        let threads = (warps * WARP) as u32;
        // Sums of every warp, then the moments of its rows: four numbers each.
        let shared = |tiles: usize| (4 * warps * (tiles * ROWS * FEATURES + 4 * ROWS)) as u32;
        // Every block reads all rows, so none waits for another to end: two tiles a block if there are too many.
        let together = target.resident_blocks("expert_linear_1", threads, shared(1))? as usize;
        let tiles = if self.features.div_ceil(FEATURES) <= together { 1 } else { 2 };
        let arguments = [
            Argument::U64(self.from),
            Argument::U64(self.linear.weight.address),
            Argument::U64(self.linear.bias.address),
            Argument::U64(self.residual),
            Argument::U64(self.norm.map_or(0, |norm| norm.gain.address)),
            Argument::U64(self.norm.map_or(0, |norm| norm.bias.address)),
            Argument::F32(epsilon),
            Argument::U32(self.relu.into()),
            Argument::U32(rows as u32),
            Argument::U32(width as u32),
            Argument::U32(self.features as u32),
            Argument::U64(out),
        ];
        Ok(Linear {
            kernel: if tiles == 1 { "expert_linear_1" } else { "expert_linear_2" },
            grid: [grid(OPERATION, self.features.div_ceil(tiles * FEATURES))?, rows.div_ceil(ROWS) as u32, 1],
            threads,
            shared_bytes: shared(tiles),
            arguments,
        })
    }
}

impl Linear {
    /// `early`: right after another launch of the expert.
    fn run<T: Target>(&self, target: &T, early: bool) -> Result<()> {
        let launch = Launch {
            kernel: self.kernel,
            grid: self.grid,
            threads: self.threads,
            shared_bytes: self.shared_bytes,
            cooperative: false,
            arguments: &self.arguments,
        };
        // SAFETY: the arguments were made in `ActionExpert::new` from operands that it checked and that are borrowed as long
        // as the expert, and from buffers that it owns. Kernels of the expert wait for one another.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            if early { target.launch_early(&launch) } else { target.launch(&launch) }
        }
    }
}

fn check_operands(shape: ExpertShape, operands: &ExpertOperands<'_>, out: &ViewMut<'_>) -> Result<()> {
    let ExpertShape { rows, heads, head_dim, action_dim, .. } = shape;
    let width = heads * head_dim;
    require(rows > 0 && width > 0 && action_dim > 0 && head_dim.is_multiple_of(EIGHT), OPERATION, || {
        format!(
            "{rows} rows, {heads} heads {head_dim} wide and {action_dim} values an action are no expert; heads are a multiple \
             of 8 wide"
        )
    })?;
    let fits = u32::try_from(2 * width).is_ok() && u32::try_from(rows).is_ok();
    require(fits && u32::try_from(action_dim).is_ok(), OPERATION, || {
        format!("an expert {width} wide with {rows} rows")
    })?;
    let view = |name: &str, view: View<'_>, dtype, numel| {
        check(OPERATION, name, (view.address, view.dtype, view.numel), dtype, numel)
    };
    let linear = |name: &str, linear: ExpertLinear<'_>, features: usize| {
        view(&format!("{name}.weight"), linear.weight, Dtype::BF16, features * width)?;
        view(&format!("{name}.bias"), linear.bias, Dtype::F32, features)
    };
    let norm = |name: &str, norm: ExpertNorm<'_>| {
        view(&format!("{name}.gain"), norm.gain, Dtype::F32, width)?;
        view(&format!("{name}.bias"), norm.bias, Dtype::F32, width)
    };
    view("start", operands.start, Dtype::F32, rows * width)?;
    for (index, layer) in operands.layers.iter().enumerate() {
        linear(&format!("layers.{index}.queries"), layer.queries, 2 * width)?;
        linear(&format!("layers.{index}.out"), layer.out, width)?;
        linear(&format!("layers.{index}.feed_forward"), layer.feed_forward, width)?;
        norm(&format!("layers.{index}.norm"), layer.norm)?;
    }
    norm("norm", operands.norm)?;
    linear("last", operands.last, action_dim)?;
    check(OPERATION, "out", (out.address, out.dtype, out.numel), Dtype::F32, rows * action_dim)
}
