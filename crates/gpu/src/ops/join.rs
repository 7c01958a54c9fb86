use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check, grid, suffix, table, uploaded};
use super::thresholds::{ThresholdScope, Thresholds};
use crate::error::require;
use crate::{Argument, GpuError, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "join";
/// As in `kernels/src/join.cu`.
const THREADS: u32 = 256;
const ROUNDS: usize = 4;
const TILE: usize = THREADS as usize * ROUNDS * EIGHT;
/// Experts that the kernels are compiled for: each takes up to so many.
const MOST_EXPERTS: [usize; 3] = [2, 4, 8];
/// 2³²: keeps whatever the random number is.
const ALL: u64 = 1 << 32;

/// One tensor to merge.
#[derive(Debug)]
pub struct JoinTensor<'a> {
    /// Θ₀, added to what comes out; without it a task vector comes out.
    pub base: Option<View<'a>>,
    /// τ_1 … τ_N: BF16, F16 or F32, all alike.
    pub experts: Vec<View<'a>>,
    /// The result, of the same dtype and length.
    pub out: ViewMut<'a>,
    /// Of the tensor's random numbers; only [`Thinning::Drop`] draws.
    pub seed: u64,
}

/// How weighted task vectors v_k become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Join {
    /// Σ v_k / divisor: linear merging and task arithmetic.
    Sum {
        /// 1, or Σ w_k.
        divisor: f32,
    },
    /// Σ of the v_k that have the sign of Σ v_k (TIES-Merging, arXiv 2306.01708).
    Consensus {
        /// Sign taken where the sum is zero: 1, −1, or 0 for none.
        zero_sum: f32,
        /// Divide by the sum of the weights of those that agree.
        mean: bool,
    },
}

/// What is kept of each task vector before it is weighed.
#[derive(Debug)]
pub enum Thinning<'a, M> {
    /// Everything.
    Nothing,
    /// Entries above their expert's threshold (TIES).
    Trim(&'a Thresholds<M>),
    /// Elements whose random number is below the expert's density · 2³² (DARE, arXiv 2311.03099), the plugins' numbers:
    /// Philox of the tensor's seed, expert k in stream k.
    Drop {
        /// One an expert, 0 ..= 1.
        densities: &'a [f64],
    },
}

/// v_k = w_k · thinned τ_k joined, times λ, over any number of tensors in one launch.
///
/// Twins: the plugins `task_arithmetic`, `ties`, `dare_linear`, `dare_ties`, with Θ₀ added and one rounding; the same bits.
///
/// # Errors
/// Operands whose dtypes, lengths or numbers do not fit, or that do not begin on 16 bytes; more than eight experts;
/// whatever the target refuses.
pub fn join<T: Target>(
    target: &T,
    tensors: &[JoinTensor<'_>],
    (weights, lambda): (&[f32], f32),
    join: Join,
    thinning: &Thinning<'_, T::Memory>,
) -> Result<()> {
    let experts = weights.len();
    let (name, searches, per_piece) = match thinning {
        Thinning::Nothing => ("", 0, false),
        Thinning::Trim(thresholds) => {
            let per_piece = thresholds.scope == ThresholdScope::Tensor;
            let needed = experts * if per_piece { tensors.len() } else { 1 };
            require(thresholds.count == needed, OPERATION, || {
                format!("{} thresholds, and {needed} are needed", thresholds.count)
            })?;
            (if per_piece { "trim_some_" } else { "trim_" }, thresholds.searches.address(), per_piece)
        }
        Thinning::Drop { densities } => {
            require(densities.len() == experts, OPERATION, || {
                format!("{} densities for {experts} weights", densities.len())
            })?;
            ("drop_", 0, false)
        }
    };
    let consensus = matches!(join, Join::Consensus { .. });
    require(consensus || !matches!(thinning, Thinning::Trim(_)), OPERATION, || {
        "a sum of trimmed task vectors is no method; trimming goes with a consensus".to_owned()
    })?;
    let name = format!("{name}{}", if consensus { "consensus" } else { "sum" });
    let Some(laid) = Laid::new(target, tensors, experts)? else { return Ok(()) };
    let mut below = vec![ALL; experts];
    if let Thinning::Drop { densities } = thinning {
        let number =
            |density: f64| if density < 1.0 { u64::from((density * ALL as f64) as u32) } else { ALL };
        below = densities.iter().map(|&density| number(density)).collect();
    }
    let rule = uploaded(target, &rule(weights, lambda, join, per_piece, &below))?;
    let arguments = [Argument::U64(rule.address()), Argument::U64(searches)];
    laid.launch(target, &name, &arguments)
}

/// τ = σ · max |τ_k| over the experts that have the sign σ of Σ τ_k, zero where the sum is (EMR, arXiv 2405.17461).
///
/// Twin: the plugin `emr`, rounded once; the same bits.
///
/// # Errors
/// As [`join`]; a tensor with a base.
pub fn elect<T: Target>(target: &T, tensors: &[JoinTensor<'_>]) -> Result<()> {
    let experts = tensors.first().map_or(0, |tensor| tensor.experts.len());
    require(tensors.iter().all(|tensor| tensor.base.is_none()), OPERATION, || {
        "an election gives task vectors; `base` must be left out".to_owned()
    })?;
    let Some(laid) = Laid::new(target, tensors, experts)? else { return Ok(()) };
    laid.launch(target, "elect", &[Argument::I32(experts as i32)])
}

/// Tables of the tensors, on the target.
struct Laid<M> {
    pieces: M,
    piece_count: u32,
    vectors: M,
    blocks: u32,
    /// End of the kernel's name.
    suffix: String,
}

impl<M: Memory> Laid<M> {
    /// `None` when there is nothing to do.
    fn new<T: Target<Memory = M>>(
        target: &T,
        tensors: &[JoinTensor<'_>],
        experts: usize,
    ) -> Result<Option<Self>> {
        let Some(dtype) = tensors.first().map(|tensor| tensor.out.dtype) else { return Ok(None) };
        let most =
            MOST_EXPERTS.into_iter().find(|&most| experts <= most).ok_or_else(|| GpuError::Operands {
                operation: OPERATION,
                problem: format!("{experts} experts, and {} can be joined at once", MOST_EXPERTS[2]),
            })?;
        let mut pieces = Vec::new();
        let mut tiles = 0;
        for tensor in tensors {
            check_tensor(tensor, dtype, experts)?;
            let base = tensor.base.map_or(0, |base| base.address);
            let numel = tensor.out.numel;
            pieces.extend([base, tensor.out.address, numel as u64, tiles as u64, tensor.seed]);
            tiles += numel.div_ceil(TILE);
        }
        if tiles == 0 {
            return Ok(None);
        }
        let vectors = tensors.iter().flat_map(|tensor| &tensor.experts).map(|view| view.address);
        Ok(Some(Self {
            pieces: uploaded(target, &table(pieces))?,
            piece_count: tensors.len() as u32,
            vectors: uploaded(target, &table(vectors))?,
            blocks: grid(OPERATION, tiles)?,
            suffix: format!("{}_{most}", suffix(OPERATION, dtype)?),
        }))
    }

    /// Launches `join_<name>_…` with its own arguments after those that all share.
    fn launch<T: Target<Memory = M>>(&self, target: &T, name: &str, own: &[Argument]) -> Result<()> {
        let mut arguments = vec![
            Argument::U64(self.pieces.address()),
            Argument::U32(self.piece_count),
            Argument::U64(self.vectors.address()),
        ];
        arguments.extend(own);
        let kernel = format!("{OPERATION}_{name}_{}", self.suffix);
        let launch = Launch {
            kernel: &kernel,
            grid: [self.blocks, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
            cooperative: false,
            arguments: &arguments,
        };
        // SAFETY: the tables were made of operands that were checked and are borrowed until the caller returns; memory is
        // freed in the order of the target's work.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)
        }
    }
}

fn check_tensor(tensor: &JoinTensor<'_>, dtype: Dtype, experts: usize) -> Result<()> {
    let numel = tensor.out.numel;
    check(OPERATION, "out", (tensor.out.address, tensor.out.dtype, numel), dtype, numel)?;
    require(tensor.experts.len() == experts, OPERATION, || {
        format!("{} task vectors for {experts} weights", tensor.experts.len())
    })?;
    for vector in tensor.experts.iter().chain(&tensor.base) {
        check(OPERATION, "base or task vector", (vector.address, vector.dtype, vector.numel), dtype, numel)?;
    }
    Ok(())
}

/// The bytes of the kernels' struct `Rule`.
fn rule(weights: &[f32], lambda: f32, join: Join, per_piece: bool, below: &[u64]) -> Vec<u8> {
    let (mode, zero_sum, divisor) = match join {
        Join::Sum { divisor } => (0, 0.0, divisor),
        Join::Consensus { zero_sum, mean: false } => (1, zero_sum, 1.0),
        Join::Consensus { zero_sum, mean: true } => (2, zero_sum, 1.0),
    };
    let mut bytes = Vec::new();
    for word in [weights.len() as u32, mode, u32::from(per_piece)] {
        bytes.extend(word.to_le_bytes());
    }
    let places = MOST_EXPERTS[2];
    let padded = weights.iter().copied().chain(std::iter::repeat(0.0)).take(places);
    for value in [zero_sum, divisor, lambda].into_iter().chain(padded) {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(table(below.iter().copied().chain(std::iter::repeat(ALL)).take(places)));
    bytes
}
