use std::marker::PhantomData;

use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check, grid, table};
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "router";
/// As in `kernels/src/router.cu`.
const WARP: usize = 32;
const MOST_WARPS: usize = 16;
const STEPS: usize = 2;
const INPUTS: usize = 32;
const ROWS: usize = 8;
const FEATURES: usize = 8;

/// One subspace, and the tokens that are projected on it.
#[derive(Debug, Clone, Copy)]
pub struct RouterSubspace<'a> {
    /// P: F32, rank × width.
    pub basis: View<'a>,
    /// Hidden states, BF16 or F32, tokens × width.
    pub hidden: View<'a>,
}

/// The score of every task: the mean over its subspaces P of (mean over tokens h of ‖P h‖₂), in one launch (MergeVLA, arXiv
/// 2511.18810).
///
/// Both factors are multiplied as sums of two numbers of 11 bits, and norms are added in f64, in the same order every time.
///
/// Twin: `skillweld_router::score`.
#[derive(Debug)]
pub struct RouterScores<'a, M> {
    kernel: &'static str,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    arguments: [Argument; 7],
    // What the arguments point to besides the operands.
    memory: [M; 4],
    operands: PhantomData<&'a mut ()>,
}

impl<'a, M: Memory> RouterScores<'a, M> {
    /// Checks the operands. Rows are `width` elements long, a multiple of 8 (what is beyond a token's width is zero);
    /// `scores` is F32, one a task.
    ///
    /// # Errors
    /// No tasks, a task without subspaces, a subspace without rows or tokens, operands whose dtypes or lengths do not fit; no
    /// memory.
    #[expect(clippy::needless_pass_by_value, reason = "its borrow lasts as long as this")]
    pub fn new<T: Target<Memory = M>>(
        target: &T,
        width: usize,
        tasks: &[Vec<RouterSubspace<'a>>],
        scores: ViewMut<'a>,
    ) -> Result<Self> {
        require(width > 0 && width.is_multiple_of(EIGHT) && u32::try_from(width).is_ok(), OPERATION, || {
            format!("rows of {width} elements; a multiple of 8 can be projected")
        })?;
        check(OPERATION, "scores", (scores.address, scores.dtype, scores.numel), Dtype::F32, tasks.len())?;
        let first = tasks.first().and_then(|task| task.first());
        let dtype = first.map_or(Dtype::F32, |first| first.hidden.dtype);
        require(first.is_some() && matches!(dtype, Dtype::BF16 | Dtype::F32), OPERATION, || {
            format!("{} tasks with hidden states in {dtype}; BF16 and F32 can be projected", tasks.len())
        })?;
        let (mut pieces, mut ranges, mut tiles) = (Vec::new(), Vec::new(), 0u64);
        for (index, task) in tasks.iter().enumerate() {
            require(!task.is_empty(), OPERATION, || format!("task {index} has no subspace"))?;
            let before = tiles;
            for subspace in task {
                let [rank, tokens] = check_subspace(subspace, width, dtype)?;
                pieces.extend([
                    subspace.basis.address,
                    subspace.hidden.address,
                    tiles,
                    tokens as u64 | (rank as u64) << 32,
                    index as u64,
                ]);
                tiles += tokens.div_ceil(ROWS) as u64;
            }
            ranges.extend([before, tiles - before, (task.len() as f64).to_bits()]);
        }
        let warps = width.div_ceil(INPUTS).div_ceil(STEPS).min(MOST_WARPS);
        let uploaded = |words: &[u64]| -> Result<M> {
            let bytes = table(words.iter().copied());
            let mut memory = target.allocate(bytes.len())?;
            target.upload(&mut memory, 0, &bytes).map(|()| memory)
        };
        let mut counters = target.allocate(4 * tasks.len())?;
        target.fill(&mut counters, 0)?;
        let memory = [uploaded(&pieces)?, uploaded(&ranges)?, target.allocate(8 * tiles as usize)?, counters];
        let arguments = [
            Argument::U64(memory[0].address()),
            Argument::U32((pieces.len() / 5) as u32),
            Argument::U64(memory[1].address()),
            Argument::U32(width as u32),
            Argument::U64(memory[2].address()),
            Argument::U64(memory[3].address()),
            Argument::U64(scores.address),
        ];
        Ok(Self {
            kernel: if dtype == Dtype::BF16 { "router_bf16" } else { "router_f32" },
            blocks: grid(OPERATION, tiles as usize)?,
            threads: (warps * WARP) as u32,
            shared_bytes: (4 * 2 * warps * ROWS * FEATURES) as u32,
            arguments,
            memory,
            operands: PhantomData,
        })
    }

    /// Asks for the launch; again, for the same operands, as often as wanted.
    ///
    /// # Errors
    /// Whatever the target refuses.
    pub fn run<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        let launch = Launch {
            kernel: self.kernel,
            grid: [self.blocks, 1, 1],
            threads: self.threads,
            shared_bytes: self.shared_bytes,
            cooperative: false,
            arguments: &self.arguments,
        };
        // SAFETY: the arguments were made in `new` from operands that it checked and that are borrowed as long as this, and
        // from memory that this owns.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)
        }
    }

    /// The memory that recorded launches go on using when the operands' borrows end.
    pub fn into_memory(self) -> [M; 4] {
        self.memory
    }
}

/// Rank and tokens, if the operands fit.
fn check_subspace(subspace: &RouterSubspace<'_>, width: usize, dtype: Dtype) -> Result<[usize; 2]> {
    let RouterSubspace { basis, hidden } = subspace;
    let [rank, tokens] = [basis.numel / width, hidden.numel / width];
    check(OPERATION, "basis", (basis.address, basis.dtype, basis.numel), Dtype::F32, rank * width)?;
    check(OPERATION, "hidden", (hidden.address, hidden.dtype, hidden.numel), dtype, tokens * width)?;
    let fits = rank > 0 && tokens > 0 && u32::try_from(rank).is_ok() && u32::try_from(tokens).is_ok();
    require(fits, OPERATION, || format!("{tokens} tokens and a subspace of {rank} rows"))?;
    Ok([rank, tokens])
}
