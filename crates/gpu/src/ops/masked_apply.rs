use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check, check_mask, grid, suffix, table, uploaded};
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "masked_apply";
/// As in `kernels/src/masked_apply.cu`.
const THREADS: u32 = 256;
const ROUNDS: usize = 4;
const TILE: usize = THREADS as usize * ROUNDS * EIGHT;
/// Tasks that one pass writes.
const TASKS_AT_ONCE: usize = 4;

/// One task of a [`MaskedTensor`].
#[derive(Debug)]
pub struct TaskOutput<'a> {
    /// M_k: U8, ceil(numel / 8) bytes, element 8j + i in bit i of byte j.
    pub mask: View<'a>,
    /// Where the task's weights go: numel elements of the base's dtype.
    pub out: ViewMut<'a>,
}

/// One tensor of a [`MaskedApply`].
#[derive(Debug)]
pub struct MaskedTensor<'a> {
    /// Θ₀: BF16, F16 or F32.
    pub base: View<'a>,
    /// τ, as long and of the same dtype.
    pub task_vector: View<'a>,
    /// One a task, in the order of the scales.
    pub tasks: Vec<TaskOutput<'a>>,
}

/// Θ₀ + s_k · M_k ⊙ τ for every task k, over any number of tensors (MergeVLA, arXiv 2511.18810, equation 5 with EMR's
/// rescaler): one launch for up to four tasks, Θ₀ and τ read once.
///
/// Twin: [`skillweld_tensor::apply_mask`], rounded once; the same bits.
#[derive(Debug)]
pub struct MaskedApply<'a, M> {
    passes: Vec<Pass<M>>,
    tensors: std::marker::PhantomData<&'a mut ()>,
}

#[derive(Debug)]
struct Pass<M> {
    kernel: String,
    blocks: u32,
    piece_count: u32,
    pieces: M,
    tasks: M,
    scales: M,
}

impl<'a, M: Memory> MaskedApply<'a, M> {
    /// Checks the operands and lays out the launches.
    ///
    /// # Errors
    /// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; no memory for the tables.
    pub fn new<T: Target<Memory = M>>(
        target: &T,
        mut tensors: Vec<MaskedTensor<'a>>,
        scales: &[f32],
    ) -> Result<Self> {
        tensors.retain(|tensor| tensor.base.numel > 0);
        let Some(dtype) = tensors.first().map(|tensor| tensor.base.dtype) else {
            return Ok(Self { passes: Vec::new(), tensors: std::marker::PhantomData });
        };
        for tensor in &tensors {
            check_tensor(tensor, dtype, scales.len())?;
        }
        let mut pieces = Vec::new();
        let mut tiles = 0;
        for tensor in &tensors {
            let numel = tensor.base.numel;
            pieces.extend([tensor.base.address, tensor.task_vector.address, numel as u64, tiles as u64]);
            tiles += numel.div_ceil(TILE);
        }
        let pieces = table(pieces);
        let mut passes = Vec::new();
        for first in (0..scales.len()).step_by(TASKS_AT_ONCE) {
            let range = first..scales.len().min(first + TASKS_AT_ONCE);
            let tasks = tensors.iter().flat_map(|tensor| &tensor.tasks[range.clone()]);
            let tasks = table(tasks.flat_map(|task| [task.mask.address, task.out.address]));
            let scales: Vec<u8> =
                scales[range.clone()].iter().flat_map(|scale| scale.to_le_bytes()).collect();
            passes.push(Pass {
                kernel: format!("{OPERATION}_{}_{}", suffix(OPERATION, dtype)?, range.len()),
                blocks: grid(OPERATION, tiles)?,
                piece_count: tensors.len() as u32,
                pieces: uploaded(target, &pieces)?,
                tasks: uploaded(target, &tasks)?,
                scales: uploaded(target, &scales)?,
            });
        }
        Ok(Self { passes, tensors: std::marker::PhantomData })
    }

    /// Asks for the launches; again, for the same tensors, as often as wanted.
    ///
    /// # Errors
    /// Whatever the target refuses.
    pub fn run<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        for pass in &self.passes {
            let arguments = [
                Argument::U64(pass.pieces.address()),
                Argument::U32(pass.piece_count),
                Argument::U64(pass.tasks.address()),
                Argument::U64(pass.scales.address()),
            ];
            let launch = Launch {
                kernel: &pass.kernel,
                grid: [pass.blocks, 1, 1],
                threads: THREADS,
                shared_bytes: 0,
                cooperative: false,
                arguments: &arguments,
            };
            // SAFETY: the tables were made in `new` from operands that it checked, and those are borrowed as long as this.
            #[expect(unsafe_code, reason = "a checked launch")]
            unsafe {
                target.launch(&launch)?;
            }
        }
        Ok(())
    }
}

fn check_tensor(tensor: &MaskedTensor<'_>, dtype: Dtype, tasks: usize) -> Result<()> {
    let numel = tensor.base.numel;
    check(OPERATION, "base", (tensor.base.address, tensor.base.dtype, numel), dtype, numel)?;
    let task_vector = tensor.task_vector;
    check(
        OPERATION,
        "task_vector",
        (task_vector.address, task_vector.dtype, task_vector.numel),
        dtype,
        numel,
    )?;
    require(tensor.tasks.len() == tasks, OPERATION, || {
        format!("{} outputs for {tasks} scales", tensor.tasks.len())
    })?;
    for TaskOutput { mask, out } in &tensor.tasks {
        check_mask(OPERATION, (mask.dtype, mask.numel), numel)?;
        check(OPERATION, "out", (out.address, out.dtype, out.numel), dtype, numel)?;
    }
    Ok(())
}
