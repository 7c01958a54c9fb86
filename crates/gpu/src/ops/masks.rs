use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check, check_mask, grid, suffix, table, uploaded};
use crate::error::require;
use crate::{Argument, GpuError, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "masks";
/// As in `kernels/src/masks.cu`.
const THREADS: u32 = 256;
const ROUNDS: usize = 2;
const TILE: usize = THREADS as usize * ROUNDS * EIGHT;
/// Experts whose masks one pass makes.
const EXPERTS_AT_ONCE: usize = 4;
/// Masks that can be compared at once.
const MOST_COUNTED: usize = 8;

/// What of a task vector a task keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum MaskRule {
    /// M_k = 1\[|τ_k| > λ_k |τ − τ_k|\] (TALL masks, arXiv 2405.07813); one λ an expert.
    Tall {
        /// λ_k: larger keeps less.
        lambdas: Vec<f32>,
    },
    /// M_k = 1\[τ_k and τ have the same nonzero sign\] (EMR, arXiv 2405.17461).
    SameSign,
}

/// One expert of a [`MaskedVectors`].
#[derive(Debug)]
pub struct ExpertMask<'a> {
    /// τ_k, as long as τ and of the same dtype.
    pub task_vector: View<'a>,
    /// M_k: U8, ceil(numel / 8) bytes; element 8j + i becomes bit i of byte j, bits past the end zero.
    pub mask: ViewMut<'a>,
}

/// One tensor of a [`make_masks`].
#[derive(Debug)]
pub struct MaskedVectors<'a> {
    /// τ: BF16, F16 or F32.
    pub merged: View<'a>,
    /// One an expert, the same number for every tensor.
    pub experts: Vec<ExpertMask<'a>>,
}

/// The masks of every expert, over any number of tensors: one launch for up to four experts, τ read once in it.
///
/// Twins: the plugins `tall` and `emr` (mask), the same bits.
///
/// # Errors
/// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; whatever the target refuses.
pub fn make_masks<T: Target>(target: &T, mut tensors: Vec<MaskedVectors<'_>>, rule: &MaskRule) -> Result<()> {
    tensors.retain(|tensor| tensor.merged.numel > 0);
    let Some((dtype, experts)) = tensors.first().map(|tensor| (tensor.merged.dtype, tensor.experts.len()))
    else {
        return Ok(());
    };
    let (rule, lambdas) = match rule {
        MaskRule::Tall { lambdas } => ("tall", lambdas.clone()),
        MaskRule::SameSign => ("sign", vec![0.0; experts]),
    };
    require(lambdas.len() == experts, OPERATION, || format!("{} λ for {experts} experts", lambdas.len()))?;
    for tensor in &tensors {
        check_tensor(tensor, dtype, experts)?;
    }
    let mut pieces = Vec::new();
    let mut tiles = 0;
    for MaskedVectors { merged, .. } in &tensors {
        pieces.extend([merged.address, merged.numel as u64, tiles as u64]);
        tiles += merged.numel.div_ceil(TILE);
    }
    let pieces = uploaded(target, &table(pieces))?;
    for first in (0..experts).step_by(EXPERTS_AT_ONCE) {
        let range = first..experts.min(first + EXPERTS_AT_ONCE);
        let parts = tensors.iter().flat_map(|tensor| &tensor.experts[range.clone()]);
        let parts =
            uploaded(target, &table(parts.flat_map(|part| [part.task_vector.address, part.mask.address])))?;
        let lambdas: Vec<u8> =
            lambdas[range.clone()].iter().flat_map(|lambda| lambda.to_le_bytes()).collect();
        let lambdas = uploaded(target, &lambdas)?;
        let kernel = format!("{OPERATION}_{rule}_{}_{}", suffix(OPERATION, dtype)?, range.len());
        let arguments = [
            Argument::U64(pieces.address()),
            Argument::U32(tensors.len() as u32),
            Argument::U64(parts.address()),
            Argument::U64(lambdas.address()),
        ];
        let launch = Launch {
            kernel: &kernel,
            grid: [grid(OPERATION, tiles)?, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
            cooperative: false,
            arguments: &arguments,
        };
        // SAFETY: the tables were made of operands that were checked above and are borrowed until this returns; memory is
        // freed in the order of the target's work.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)?;
        }
    }
    Ok(())
}

fn check_tensor(tensor: &MaskedVectors<'_>, dtype: Dtype, experts: usize) -> Result<()> {
    let merged = tensor.merged;
    let numel = merged.numel;
    check(OPERATION, "merged", (merged.address, merged.dtype, numel), dtype, numel)?;
    require(tensor.experts.len() == experts, OPERATION, || {
        format!("{} experts in one tensor, {experts} in another", tensor.experts.len())
    })?;
    for ExpertMask { task_vector, mask } in &tensor.experts {
        check(
            OPERATION,
            "task_vector",
            (task_vector.address, task_vector.dtype, task_vector.numel),
            dtype,
            numel,
        )?;
        check_mask(OPERATION, (mask.dtype, mask.numel), numel)?;
    }
    Ok(())
}

/// How masks of one tensor overlap, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskCounts {
    /// Elements that each expert keeps.
    pub ones: Vec<u64>,
    /// Elements that both of a pair keep: (0, 1), (0, 2), …, (1, 2), …
    pub both: Vec<u64>,
    /// Elements that exactly one expert keeps: the numerator of the selfish ratio.
    pub selfish: u64,
}

/// Counts what masks have in common; exact.
///
/// Twins: [`skillweld_tensor::count_ones`], [`skillweld_tensor::count_both`].
///
/// # Errors
/// No mask, more than eight, masks of different length, or that do not begin on 16 bytes; whatever the target refuses.
pub fn count_masks<T: Target>(target: &T, masks: &[View<'_>]) -> Result<MaskCounts> {
    let experts = masks.len();
    require((1..=MOST_COUNTED).contains(&experts), OPERATION, || {
        format!("{experts} masks, and 1 to {MOST_COUNTED} can be counted at once")
    })?;
    let bytes = masks[0].numel;
    for mask in masks {
        check(OPERATION, "mask", (mask.address, mask.dtype, mask.numel), Dtype::U8, bytes)?;
    }
    let pairs = experts * (experts - 1) / 2;
    let counts = experts + pairs + 1;
    let mut totals = target.array(Dtype::U64, counts)?;
    target.fill(totals.memory_mut(), 0)?;
    let addresses = uploaded(target, &table(masks.iter().map(|mask| mask.address)))?;
    let kernel = format!("{OPERATION}_count_{experts}");
    let shared_bytes = (counts * size_of::<u32>()) as u32;
    let words = bytes.div_ceil(16 * THREADS as usize);
    let blocks = words.min(target.resident_blocks(&kernel, THREADS, shared_bytes)? as usize);
    if blocks > 0 {
        let arguments = [
            Argument::U64(addresses.address()),
            Argument::U64(bytes as u64),
            Argument::U64(totals.view_mut().address),
        ];
        let launch = Launch {
            kernel: &kernel,
            grid: [blocks as u32, 1, 1],
            threads: THREADS,
            shared_bytes,
            cooperative: false,
            arguments: &arguments,
        };
        // SAFETY: as many masks and counts as the kernel's name says, all of the length that it is told.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)?;
        }
    }
    let totals = target.read(&totals)?;
    let (words, []) = totals.as_chunks::<8>() else {
        return Err(GpuError::Operands { operation: OPERATION, problem: "counts of odd length".to_owned() });
    };
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let (ones, rest) = words.split_at(experts);
    let (both, selfish) = rest.split_at(pairs);
    Ok(MaskCounts { ones: ones.to_vec(), both: both.to_vec(), selfish: selfish[0] })
}
