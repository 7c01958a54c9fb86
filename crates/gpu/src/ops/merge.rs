use skillweld_tensor::Dtype;

use super::pieces::{check, grid, suffix, table, uploaded};
use super::threshold::{ExactThresholds, TaskVectors, TrimScope};
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "merge";
/// As in `kernels/src/merge.cu`.
const THREADS: u32 = 256;
const TILE: usize = 8 * 8 * THREADS as usize;
const SUBTRACT: u32 = 1;
const ADD: u32 = 2;
const MEAN: u32 = 4;
/// Experts whose elements stay in registers.
const FEW_EXPERTS: usize = 4;

/// One tensor of a [`merge`].
#[derive(Debug)]
pub struct MergeTensor<'a> {
    /// The experts: BF16, F16 or F32.
    pub vectors: TaskVectors<'a>,
    /// Θ₀, added to what comes out; without it a task vector comes out, or what is joined of weights.
    pub base: Option<View<'a>>,
    /// Of the tensor's random numbers; only [`Thin::Drop`] draws.
    pub seed: u64,
    /// The result, of the experts' dtype and length.
    pub out: ViewMut<'a>,
}

/// What is kept of each expert before it is weighed.
#[derive(Debug)]
pub enum Thin<'a, M> {
    /// Everything.
    Nothing,
    /// Entries above their expert's threshold, found for the same tensors (TIES); only for a consensus.
    Trim(&'a ExactThresholds<M>),
    /// Elements whose random number is below the expert's density · 2³² (DARE, arXiv 2311.03099), the plugins' numbers:
    /// Philox of the tensor's seed, expert k in stream k.
    Drop {
        /// One an expert, 0 to 1.
        densities: &'a [f64],
    },
}

/// How weighed vectors v_k = w_k · x_k become one.
#[derive(Debug)]
pub enum MergeRule<'a, M> {
    /// Σ v_k / divisor: linear merging and task arithmetic.
    Sum {
        /// 1, or Σ w_k.
        divisor: f32,
    },
    /// Σ of the v_k that have the sign of Σ v_k (TIES-Merging, arXiv 2306.01708).
    Consensus {
        /// Sign taken where the sum is zero.
        zero_sum: ZeroSum<'a, M>,
        /// Divide by the sum of the weights of those that agree.
        mean: bool,
    },
    /// Of the v_k that have the sign of Σ v_k the largest in magnitude, of all entries (EMR, arXiv 2405.17461: weights of 1).
    Largest,
}

/// The sign that a consensus takes where the sum is zero.
#[derive(Debug)]
pub enum ZeroSum<'a, M> {
    /// 1, −1, or 0 for none.
    Sign(i8),
    /// That of most elements.
    Majority(&'a MergeVotes<M>),
}

/// How the experts of every tensor are joined.
#[derive(Debug)]
pub struct Merging<'a, M> {
    /// w_k, one an expert.
    pub weights: &'a [f32],
    /// What is kept of them.
    pub thinning: Thin<'a, M>,
    /// How they become one.
    pub join: MergeRule<'a, M>,
    /// λ: factor of the result.
    pub lambda: f32,
}

/// Joins the experts of any number of tensors in one launch: every expert, Θ₀ and the result pass the memory bus once.
/// Computes in f32 in the order of the experts and rounds once.
///
/// Twins: the plugins `linear`, `task_arithmetic`, `ties`, `dare_linear`, `dare_ties` and `emr` (merge), with Θ₀ added; the
/// same bits, for finite values.
///
/// # Errors
/// Operands whose dtypes, lengths or numbers do not fit, or that do not begin on 16 bytes; no expert; another Θ₀ added than
/// was subtracted; thresholds or votes of other tensors or experts; a combination that no method has; whatever the target
/// refuses.
pub fn merge<T: Target>(target: &T, tensors: &[MergeTensor<'_>], how: &Merging<'_, T::Memory>) -> Result<()> {
    let experts = how.weights.len();
    require(experts > 0, OPERATION, || "no expert".to_owned())?;
    let everything;
    let thresholds = match how.thinning {
        Thin::Trim(thresholds) => thresholds,
        _ => {
            everything = ExactThresholds::everything(target, experts)?;
            &everything
        }
    };
    let mut weights = how.weights.to_vec();
    let last = match how.thinning {
        Thin::Drop { densities } => last_numbers(densities, &mut weights)?,
        _ => vec![u32::MAX; experts],
    };
    let last = uploaded(target, &last.iter().flat_map(|last| last.to_le_bytes()).collect::<Vec<u8>>())?;
    let signs;
    let votes = match how.join {
        MergeRule::Consensus { zero_sum: ZeroSum::Majority(votes), .. } => {
            require(votes.count == thresholds.scopes(), OPERATION, || {
                format!("votes of {} scopes for thresholds of {}", votes.count, thresholds.scopes())
            })?;
            &votes.votes
        }
        MergeRule::Consensus { zero_sum: ZeroSum::Sign(sign), .. } => {
            signs = uploaded(target, &i64::from(sign).to_le_bytes().repeat(thresholds.scopes()))?;
            &signs
        }
        MergeRule::Sum { .. } | MergeRule::Largest => {
            signs = uploaded(target, &0i64.to_le_bytes())?;
            &signs
        }
    };
    let mut flags = if matches!(how.join, MergeRule::Consensus { mean: true, .. }) { MEAN } else { 0 };
    if tensors.iter().any(|tensor| tensor.base.is_some()) {
        flags |= ADD;
    }
    let pieces: Vec<Piece<'_>> = tensors
        .iter()
        .map(|tensor| Piece {
            vectors: &tensor.vectors,
            added: tensor.base,
            seed: tensor.seed,
            out: Some(&tensor.out),
        })
        .collect();
    let Some(laid) = Laid::new(target, &pieces, &weights, thresholds)? else { return Ok(()) };
    let divisor = if let MergeRule::Sum { divisor } = how.join { divisor } else { 1.0 };
    laid.launch(target, kernel_name(how)?, thresholds, (&last, votes), (flags, divisor, how.lambda))
}

/// Which sign the sums Σ w_k · x_k of trimmed experts have more often: for each tensor, or for all together, as the
/// thresholds are.
#[derive(Debug)]
pub struct MergeVotes<M> {
    votes: M,
    count: usize,
}

impl<M: Memory> MergeVotes<M> {
    /// Counts in one launch; returns as soon as it is asked for.
    ///
    /// Twin: the majority sign of the plugin `ties`.
    ///
    /// # Errors
    /// As [`merge`].
    pub fn count<T: Target<Memory = M>>(
        target: &T,
        tensors: &[TaskVectors<'_>],
        weights: &[f32],
        thresholds: &ExactThresholds<M>,
    ) -> Result<Self> {
        let count = thresholds.scopes();
        let mut votes = target.allocate(count * size_of::<i64>())?;
        target.fill(&mut votes, 0)?;
        let pieces: Vec<Piece<'_>> =
            tensors.iter().map(|vectors| Piece { vectors, added: None, seed: 0, out: None }).collect();
        if let Some(laid) = Laid::new(target, &pieces, weights, thresholds)? {
            let name = if thresholds.random { "votes_some" } else { "votes" };
            let no_last = uploaded(target, &u32::MAX.to_le_bytes().repeat(weights.len()))?;
            laid.launch(target, name, thresholds, (&no_last, &votes), (0, 1.0, 1.0))?;
        }
        Ok(Self { votes, count })
    }

    /// Waits for them: elements with a positive sum less those with a negative one.
    ///
    /// # Errors
    /// Whatever failed on the target.
    pub fn read<T: Target<Memory = M>>(&self, target: &T) -> Result<Vec<i64>> {
        let mut bytes = vec![0; self.count * size_of::<i64>()];
        target.download(&self.votes, 0, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
    }
}

fn kernel_name<M>(how: &Merging<'_, M>) -> Result<&'static str> {
    match (&how.join, &how.thinning) {
        (MergeRule::Sum { .. }, Thin::Nothing) => Ok("sum"),
        (MergeRule::Sum { .. }, Thin::Drop { .. }) => Ok("sum_drop"),
        (MergeRule::Consensus { .. }, Thin::Trim(thresholds)) if thresholds.random => Ok("consensus_some"),
        (MergeRule::Consensus { .. }, Thin::Nothing | Thin::Trim(_)) => Ok("consensus"),
        (MergeRule::Consensus { .. }, Thin::Drop { .. }) => Ok("consensus_drop"),
        (MergeRule::Largest, Thin::Nothing) => Ok("largest"),
        (MergeRule::Sum { .. }, Thin::Trim(_)) | (MergeRule::Largest, Thin::Trim(_) | Thin::Drop { .. }) => {
            let problem = "no method thins its experts like this and then joins them like that";
            require(false, OPERATION, || problem.to_owned()).map(|()| "")
        }
    }
}

/// The largest number that keeps an element of each expert. One of which nothing is kept weighs nothing instead.
fn last_numbers(densities: &[f64], weights: &mut [f32]) -> Result<Vec<u32>> {
    require(densities.len() == weights.len(), OPERATION, || {
        format!("{} densities for {} weights", densities.len(), weights.len())
    })?;
    let mut last = Vec::new();
    for (density, weight) in densities.iter().zip(weights) {
        require((0.0..=1.0).contains(density), OPERATION, || format!("{density} is no density"))?;
        // The conversion saturates: a density just below 1 keeps all but one number in 2³².
        let below = (*density < 1.0).then_some((density * 4_294_967_296.0) as u32);
        if below == Some(0) {
            *weight = 0.0;
        }
        last.push(below.map_or(u32::MAX, |below| below.saturating_sub(1)));
    }
    Ok(last)
}

/// What a kernel is told of one tensor.
struct Piece<'a> {
    vectors: &'a TaskVectors<'a>,
    added: Option<View<'a>>,
    seed: u64,
    out: Option<&'a ViewMut<'a>>,
}

/// Tables of the tensors, on the target.
struct Laid<M> {
    pieces: M,
    piece_count: u32,
    experts: M,
    weights: M,
    expert_count: u32,
    blocks: u32,
    flags: u32,
    /// End of the kernel's name.
    suffix: String,
}

impl<M: Memory> Laid<M> {
    /// `None` when there is nothing to do.
    fn new<T: Target<Memory = M>>(
        target: &T,
        tensors: &[Piece<'_>],
        weights: &[f32],
        thresholds: &ExactThresholds<M>,
    ) -> Result<Option<Self>> {
        let experts = weights.len();
        let per_tensor = thresholds.scope == TrimScope::Tensor;
        let scopes = thresholds.scopes();
        require(
            thresholds.experts == experts && (!per_tensor || scopes == tensors.len()),
            OPERATION,
            || format!("thresholds of {} experts and {scopes} tensors for others", thresholds.experts),
        )?;
        let Some(first) = tensors.first() else { return Ok(None) };
        let dtype = first.vectors.experts.first().map_or(Dtype::F32, |expert| expert.dtype);
        let subtracts = first.vectors.base.is_some();
        let adds = first.added.is_some();
        let (mut pieces, mut addresses, mut tiles) = (Vec::new(), Vec::new(), 0);
        for (i, tensor) in tensors.iter().enumerate() {
            let numel = check_tensor(tensor, dtype, (experts, subtracts, adds))?;
            if numel == 0 {
                continue;
            }
            let base = tensor.vectors.base.or(tensor.added).map_or(0, |base| base.address);
            let out = tensor.out.map_or(0, |out| out.address);
            let scope = if per_tensor { i } else { 0 };
            pieces.extend([base, out, numel as u64, tiles as u64, scope as u64, tensor.seed]);
            addresses.extend(tensor.vectors.experts.iter().map(|expert| expert.address));
            tiles += numel.div_ceil(TILE);
        }
        if tiles == 0 {
            return Ok(None);
        }
        let weights: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let many = if experts > FEW_EXPERTS { "many" } else { "few" };
        Ok(Some(Self {
            piece_count: (addresses.len() / experts) as u32,
            pieces: uploaded(target, &table(pieces))?,
            experts: uploaded(target, &table(addresses))?,
            weights: uploaded(target, &weights)?,
            expert_count: experts as u32,
            blocks: grid(OPERATION, tiles)?,
            flags: if subtracts { SUBTRACT } else { 0 },
            suffix: format!("{}_{many}", suffix(OPERATION, dtype)?),
        }))
    }

    fn launch<T: Target<Memory = M>>(
        &self,
        target: &T,
        name: &str,
        thresholds: &ExactThresholds<M>,
        (last, votes): (&M, &M),
        (flags, divisor, lambda): (u32, f32, f32),
    ) -> Result<()> {
        let arguments = [
            Argument::U64(self.pieces.address()),
            Argument::U32(self.piece_count),
            Argument::U64(self.experts.address()),
            Argument::U64(self.weights.address()),
            Argument::U64(thresholds.searches.address()),
            Argument::U64(last.address()),
            Argument::U64(votes.address()),
            Argument::U32(self.expert_count),
            Argument::U32(self.flags | flags),
            Argument::F32(divisor),
            Argument::F32(lambda),
        ];
        let kernel = format!("{OPERATION}_{name}_{}", self.suffix);
        let launch = Launch {
            kernel: &kernel,
            grid: [self.blocks, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
            cooperative: false,
            arguments: &arguments,
        };
        // SAFETY: the tables were made of operands that were checked and are borrowed until the caller returns; one number
        // an expert or scope where the kernel reads one; memory is freed in the order of the target's work.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)
        }
    }
}

/// The tensor's length.
fn check_tensor(
    tensor: &Piece<'_>,
    dtype: Dtype,
    (experts, subtracts, adds): (usize, bool, bool),
) -> Result<usize> {
    let TaskVectors { base, experts: vectors } = tensor.vectors;
    require(vectors.len() == experts, OPERATION, || {
        format!("{} experts of a tensor for {experts} weights", vectors.len())
    })?;
    let numel = vectors[0].numel;
    for vector in vectors {
        check(OPERATION, "expert", (vector.address, vector.dtype, vector.numel), dtype, numel)?;
    }
    for base in base.iter().chain(&tensor.added) {
        check(OPERATION, "base", (base.address, base.dtype, base.numel), dtype, numel)?;
    }
    if let Some(out) = tensor.out {
        check(OPERATION, "out", (out.address, out.dtype, out.numel), dtype, numel)?;
    }
    require(base.is_some() == subtracts && tensor.added.is_some() == adds, OPERATION, || {
        "some tensors have a `base` and others none".to_owned()
    })?;
    let same = base.zip(tensor.added).is_none_or(|(one, other)| one.address == other.address);
    require(same, OPERATION, || "the `base` that is added is not the one that is subtracted".to_owned())?;
    Ok(numel)
}
