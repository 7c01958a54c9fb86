//! The action expert in one cooperative launch: `kernels/src/expert_persistent.cu`.

use skillweld_tensor::Dtype;

use super::expert::{ExpertOperands, ExpertShape};
use super::pieces::table;
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target};

const OPERATION: &str = "expert_persistent";
const WARP: usize = 32;
const STEPS: usize = 2;
const INPUTS: usize = 32;
const ROWS: usize = 8;
const FEATURES: usize = 8;
const KEYS: usize = 8;
const MOST_WARPS: usize = 16;
const WIDEST_HEAD: usize = 128;
/// Parts of a head's keys are combined by the lanes of a warp.
const MOST_SPLITS: usize = 32;
/// Slots of 16 bytes that every thread has for weights, keys and values.
const SLOTS: usize = 4 * STEPS + 8;
/// For blocks with up to eight features of a layer, sixteen of the queries, and a tile of keys a warp; and for others.
const KERNELS: [&str; 2] = ["expert_persistent_once", "expert_persistent_loop"];

/// One launch, and what its blocks of threads tell each other.
#[derive(Debug)]
pub(super) struct Persistent<M> {
    kernel: &'static str,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    arguments: Vec<Argument>,
    pub(super) memory: [M; 3],
}

impl<M: Memory> Persistent<M> {
    /// For operands that were checked. Each refusal says what the other form is needed for.
    pub(super) fn new<T: Target<Memory = M>>(
        target: &T,
        shape: ExpertShape,
        operands: &ExpertOperands<'_>,
        out: u64,
    ) -> Result<Self> {
        let ExpertShape { rows, heads, head_dim, action_dim, epsilon } = shape;
        let width = heads * head_dim;
        let steps = width.div_ceil(INPUTS);
        let fits = rows <= ROWS && head_dim <= WIDEST_HEAD && steps <= STEPS * MOST_WARPS;
        require(fits, OPERATION, || {
            format!(
                "{rows} rows {width} wide with heads of {head_dim}; one launch holds up to {ROWS} rows {} wide with heads of \
                 {WIDEST_HEAD}, others need the kernels of a graph",
                STEPS * MOST_WARPS * INPUTS
            )
        })?;
        let mut keys = operands.layers.iter().flat_map(|layer| &layer.groups);
        require(keys.all(|keys| keys.keys.dtype == Dtype::BF16), OPERATION, || {
            "keys are not BF16, which one launch needs; others need the kernels of a graph".to_owned()
        })?;

        let warps = steps.div_ceil(STEPS).clamp(2 * ROWS * FEATURES / WARP, MOST_WARPS);
        let threads = warps * WARP;
        let key_tiles = |layer: &super::ExpertLayer<'_>| -> usize {
            layer.groups.iter().map(|group| (group.keys.numel / width).div_ceil(KEYS)).sum()
        };
        let most_tiles = operands.layers.iter().map(key_tiles).max().unwrap_or(0);
        let sizes = |together: usize| {
            // Every block has features of every layer, so that one that has read all of them knows that all were there.
            let blocks = width.div_ceil(width.div_ceil(together.max(1)));
            let splits = (blocks / heads).clamp(1, MOST_SPLITS.min(most_tiles.max(1)));
            let most_parts = most_tiles.div_ceil(splits).min(warps);
            let own = width.div_ceil(blocks).div_ceil(FEATURES) * threads;
            let shared = 16 * SLOTS * threads
                + 4 * most_parts * ROWS * (head_dim + 2)
                + 4 * 2 * warps * 2 * ROWS * FEATURES
                + 16 * warps * ROWS
                + 4 * own;
            (blocks, splits, most_parts, shared)
        };
        // How many run together depends on what they need, and what they need on how many share the work.
        let resident = |shared: usize| -> Result<usize> {
            let [once, looping] =
                KERNELS.map(|kernel| target.resident_blocks(kernel, threads as u32, shared as u32));
            Ok(once?.min(looping?) as usize)
        };
        let mut most = width;
        let (blocks, splits, most_parts, shared) = loop {
            let (blocks, splits, most_parts, shared) = sizes(most);
            let together = resident(shared)?;
            if together >= blocks {
                break (blocks, splits, most_parts, shared);
            }
            require(together > 0, OPERATION, || {
                format!(
                    "{shared} bytes of shared memory a block are more than this GPU has; the kernels of a graph need less"
                )
            })?;
            most = together;
        };
        let once = width.max(action_dim).div_ceil(blocks) <= FEATURES
            && (2 * width).div_ceil(blocks) <= 2 * FEATURES
            && heads * splits <= blocks
            && most_tiles <= splits * warps;

        // As `Exchange` of the kernel's source; rows are filled up to whole steps.
        let whole_steps = |width: usize| width.next_multiple_of(INPUTS);
        let place = ROWS * (3 * whole_steps(width) + 2 * heads * whole_steps(head_dim))
            + heads * splits * ROWS * (head_dim + 4);
        let mut exchange = target.allocate(2 * 4 * place)?;
        target.fill(&mut exchange, 0xff)?;
        let mut uses = target.allocate(4)?;
        target.fill(&mut uses, 0)?;
        let layers = layer_table(operands, width);
        let mut table = target.allocate(layers.len())?;
        target.upload(&mut table, 0, &layers)?;
        let arguments = vec![
            Argument::U64(table.address()),
            Argument::U32(operands.layers.len() as u32),
            Argument::U64(operands.start.address),
            Argument::U64(operands.rotary.cos.address),
            Argument::U64(operands.rotary.sin.address),
            Argument::U64(operands.norm.gain.address),
            Argument::U64(operands.norm.bias.address),
            Argument::U64(operands.last.weight.address),
            Argument::U64(operands.last.bias.address),
            Argument::U64(out),
            Argument::U64(exchange.address()),
            Argument::U64(uses.address()),
            Argument::U32(rows as u32),
            Argument::U32(heads as u32),
            Argument::U32(head_dim as u32),
            Argument::U32(action_dim as u32),
            Argument::U32(splits as u32),
            Argument::U32(splits.next_power_of_two() as u32),
            Argument::U32(most_parts as u32),
            Argument::F32(epsilon),
        ];
        Ok(Self {
            kernel: KERNELS[usize::from(!once)],
            blocks: blocks as u32,
            threads: threads as u32,
            shared_bytes: shared as u32,
            arguments,
            memory: [exchange, uses, table],
        })
    }

    pub(super) fn run<T: Target<Memory = M>>(&self, target: &T) -> Result<()> {
        let launch = Launch {
            kernel: self.kernel,
            grid: [self.blocks, 1, 1],
            threads: self.threads,
            shared_bytes: self.shared_bytes,
            cooperative: true,
            arguments: &self.arguments,
        };
        // SAFETY: the arguments were made from operands that the expert checked and borrows, and from memory of this.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)
        }
    }
}

/// `Layer` of the kernel's source, one after the other.
fn layer_table(operands: &ExpertOperands<'_>, width: usize) -> Vec<u8> {
    let words = operands.layers.iter().flat_map(|layer| {
        let [action, task] = layer.groups;
        let count = |keys: super::ExpertKeys<'_>| (keys.keys.numel / width) as u64;
        let pair = |low: u64, high: u64| low | high << 32;
        [
            layer.queries.weight.address,
            layer.queries.bias.address,
            layer.out.weight.address,
            layer.out.bias.address,
            layer.norm.gain.address,
            layer.norm.bias.address,
            layer.feed_forward.weight.address,
            layer.feed_forward.bias.address,
            action.keys.address,
            task.keys.address,
            action.values.address,
            task.values.address,
            pair(count(action), count(task)),
            pair(action.scale.to_bits().into(), task.scale.to_bits().into()),
        ]
    });
    table(words)
}
