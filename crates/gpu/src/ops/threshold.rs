use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check, grid, suffix, table, uploaded};
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target, View};

const OPERATION: &str = "threshold";
/// As in `kernels/src/threshold.cu`.
const THREADS: u32 = 256;
const SAMPLE_BINS: usize = 1 << 13;
const SAMPLE_GROUPS: usize = 4096;
const COUNTS: usize = (2 << 9) + 1;
const CHUNK: usize = 1 << 17;
/// Of a struct `Search` in `kernels/include/searches.cuh`, and where in it the answer stands.
const SEARCH_BYTES: usize = 72;
const SAMPLED_AT: usize = 16;
const MAGNITUDE_AT: usize = 48;
/// Groups of eight entries that a search samples: one of so many, but within these limits.
const SAMPLED_ONE_OF: usize = 32;
const LEAST_SAMPLED: usize = 1 << 13;
const MOST_SAMPLED: usize = 1 << 17;
/// Passes that find every threshold: a guess, and from the interval of all magnitudes down to one.
const PASSES: usize = 5;
/// The same where magnitudes have 13 zero bits at least.
const PASSES_16_BITS: usize = 3;

/// One tensor's task vectors.
#[derive(Debug, Clone)]
pub struct TaskVectors<'a> {
    /// Θ₀ where the experts are weights: BF16, F16 or F32. `None`: they are task vectors.
    pub base: Option<View<'a>>,
    /// τ_k or Θ_k, all of one dtype and length.
    pub experts: Vec<View<'a>>,
}

/// Over what a threshold is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimScope {
    /// Each tensor keeps its own ⌊density · n⌋ largest entries, at least one; of those that equal the smallest kept, as many
    /// as there is room for, chosen at random by their place.
    Tensor,
    /// All tensors together keep ⌊density · n⌋ + 1, and all that equal the smallest of these.
    Global,
}

/// What an expert keeps of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The smallest magnitude kept; −1: everything is kept; NaN: nothing.
    pub magnitude: f32,
    /// Of the entries of that magnitude those are kept whose random number is below this; `None`: all.
    pub equal_below: Option<u32>,
    /// How it was found.
    pub course: SearchCourse,
}

/// How a search for a threshold went: nothing where none was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchCourse {
    /// Entries in the sample.
    pub sampled: u64,
    /// How often all entries were counted.
    pub passes: u32,
    /// How often that was without a guess to go by, or after one that missed.
    pub unguided: u32,
}

/// The thresholds of every expert, in the target's memory.
#[derive(Debug)]
pub struct ExactThresholds<M> {
    pub(super) searches: M,
    pub(super) experts: usize,
    pub(super) scope: TrimScope,
    /// Whether random numbers may decide between entries that equal a threshold.
    pub(super) random: bool,
    count: usize,
}

impl<M: Memory> ExactThresholds<M> {
    /// Looks for the magnitudes above which lies the share `densities[k]` of expert k's entries, 0 to 1. Exact: entries are
    /// counted, a sample only says where to look. Returns as soon as the work is asked for.
    ///
    /// Twin: the plugin `ties`, the same thresholds. For finite values.
    ///
    /// # Errors
    /// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; densities that are no shares; whatever
    /// the target refuses.
    pub fn find<T: Target<Memory = M>>(
        target: &T,
        tensors: &[TaskVectors<'_>],
        densities: &[f64],
        scope: TrimScope,
    ) -> Result<Self> {
        let dtype = check_tensors(tensors, densities.len())?;
        for density in densities {
            require((0.0..=1.0).contains(density), OPERATION, || format!("{density} is no density"))?;
        }
        let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.experts[0].numel).collect();
        let scopes = match scope {
            TrimScope::Tensor => lengths.clone(),
            TrimScope::Global => vec![lengths.iter().sum()],
        };
        let searches: Vec<u8> = scopes
            .iter()
            .flat_map(|&numel| densities.iter().flat_map(move |&density| search(density, numel, scope)))
            .collect();
        let this = Self {
            searches: uploaded(target, &searches)?,
            experts: densities.len(),
            scope,
            random: scope == TrimScope::Tensor && densities.iter().any(|density| *density < 1.0),
            count: scopes.len() * densities.len(),
        };
        if densities.iter().any(|density| *density > 0.0 && *density < 1.0) {
            this.search(target, tensors, dtype, &scopes)?;
        }
        Ok(this)
    }

    fn search<T: Target<Memory = M>>(
        &self,
        target: &T,
        tensors: &[TaskVectors<'_>],
        dtype: Dtype,
        scopes: &[usize],
    ) -> Result<()> {
        let (mut sampled, mut counted, mut experts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sample_tiles, mut count_tiles, mut pieces) = (0, 0, 0);
        for (i, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| tensor.experts[0].numel > 0) {
            let numel = tensor.experts[0].numel;
            let scope = if self.scope == TrimScope::Tensor { i } else { 0 };
            let stride = stride(scopes[scope]);
            let base = tensor.base.map_or(0, |base| base.address);
            let piece = |tiles: usize| [base, numel as u64, tiles as u64, scope as u64, stride as u64];
            sampled.extend(piece(sample_tiles));
            counted.extend(piece(count_tiles));
            sample_tiles += numel.div_ceil(SAMPLE_GROUPS * stride * EIGHT);
            count_tiles += numel.div_ceil(CHUNK);
            experts.extend(tensor.experts.iter().map(|expert| expert.address));
            pieces += 1;
        }
        if pieces == 0 {
            return Ok(());
        }
        let (sampled, counted) = (uploaded(target, &table(sampled))?, uploaded(target, &table(counted))?);
        let experts = uploaded(target, &table(experts))?;
        let zeros = |bytes: usize| {
            let mut memory = target.allocate(bytes)?;
            target.fill(&mut memory, 0).map(|()| memory)
        };
        let samples = zeros(self.count * SAMPLE_BINS * size_of::<u32>())?;
        let counts = zeros(self.count * COUNTS * size_of::<u64>())?;
        let suffix = suffix(OPERATION, dtype)?;
        let over_data = |kernel: &str, (pieces_at, tiles): (&M, usize), words: usize, tables: &M| {
            let arguments = [
                Argument::U64(pieces_at.address()),
                Argument::U32(pieces),
                Argument::U64(experts.address()),
                Argument::U32(self.experts as u32),
                Argument::U64(self.searches.address()),
                Argument::U64(tables.address()),
            ];
            let kernel = format!("{OPERATION}_{kernel}_{suffix}");
            launch(target, &kernel, tiles * self.experts, words * size_of::<u32>(), &arguments)
        };
        let over_searches = |kernel: &str, tables: &M| {
            let arguments = [Argument::U64(self.searches.address()), Argument::U64(tables.address())];
            // Sums of every thread's counts, and two places of three words each.
            let shared_bytes = (THREADS as usize + 2 * 3) * size_of::<u64>();
            launch(target, &format!("{OPERATION}_{kernel}"), self.count, shared_bytes, &arguments)
        };
        over_data("sample", (&sampled, sample_tiles), SAMPLE_BINS, &samples)?;
        over_searches("guess", &samples)?;
        let subtracts = tensors.iter().any(|tensor| tensor.base.is_some());
        let passes = if dtype == Dtype::F32 || subtracts { PASSES } else { PASSES_16_BITS };
        for _ in 0..passes {
            over_data("count", (&counted, count_tiles), COUNTS, &counts)?;
            over_searches("narrow", &counts)?;
        }
        Ok(())
    }

    /// Those of experts that keep everything.
    pub(super) fn everything<T: Target<Memory = M>>(target: &T, experts: usize) -> Result<Self> {
        let searches: Vec<u8> = (0..experts).flat_map(|_| search(1.0, 0, TrimScope::Global)).collect();
        let searches = uploaded(target, &searches)?;
        Ok(Self { searches, experts, scope: TrimScope::Global, random: false, count: experts })
    }

    /// How many tensors, or groups of tensors, have thresholds of their own.
    pub(super) fn scopes(&self) -> usize {
        self.count / self.experts
    }

    /// Waits for the thresholds: for every tensor, or for all together, one an expert.
    ///
    /// # Errors
    /// Whatever failed on the target.
    pub fn read<T: Target<Memory = M>>(&self, target: &T) -> Result<Vec<Threshold>> {
        let mut bytes = vec![0; self.count * SEARCH_BYTES];
        target.download(&self.searches, 0, &mut bytes)?;
        let thresholds = bytes.chunks_exact(SEARCH_BYTES).map(|search| {
            let (words, _) = search[MAGNITUDE_AT..].as_chunks::<4>();
            let [magnitude, equal_below, all_equal, passes, unguided] =
                [0, 1, 2, 3, 4].map(|i| u32::from_le_bytes(words[i]));
            let (sampled, _) = search[SAMPLED_AT..].as_chunks::<8>();
            let course = SearchCourse { sampled: u64::from_le_bytes(sampled[0]), passes, unguided };
            let equal_below = (all_equal == 0).then_some(equal_below);
            Threshold { magnitude: f32::from_bits(magnitude), equal_below, course }
        });
        Ok(thresholds.collect())
    }
}

/// The bytes of a `Search` that is about to begin, or that need not.
fn search(density: f64, numel: usize, scope: TrimScope) -> Vec<u8> {
    let global = scope == TrimScope::Global;
    let share = (density * numel as f64).floor();
    let rank = if global { share + 1.0 } else { share.max(1.0) };
    let magnitude: f32 = if density >= 1.0 { -1.0 } else { f32::NAN };
    let sought = density > 0.0 && density < 1.0 && rank <= numel as f64;
    let words = [global.into(), sought.into(), 0, 0, 0, 0, magnitude.to_bits(), 0, 1, 0, 0, 0u32];
    let head = [density.to_le_bytes(), (numel as u64).to_le_bytes(), [0; 8]].into_iter().flatten();
    head.chain(words.into_iter().flat_map(u32::to_le_bytes)).collect()
}

/// One group of so many is sampled. Odd, so that it does not keep step with the rows of a matrix.
fn stride(numel: usize) -> usize {
    let groups = numel.div_ceil(EIGHT);
    (groups / (groups / SAMPLED_ONE_OF).clamp(LEAST_SAMPLED, MOST_SAMPLED)) | 1
}

/// The dtype of all tensors.
fn check_tensors(tensors: &[TaskVectors<'_>], experts: usize) -> Result<Dtype> {
    require(experts > 0, OPERATION, || "no expert".to_owned())?;
    let first = tensors.first().and_then(|tensor| tensor.experts.first());
    let dtype = first.map_or(Dtype::F32, |expert| expert.dtype);
    for TaskVectors { base, experts: vectors } in tensors {
        require(vectors.len() == experts, OPERATION, || {
            format!("{} experts of a tensor for {experts} densities", vectors.len())
        })?;
        let numel = vectors[0].numel;
        for vector in vectors {
            check(OPERATION, "expert", (vector.address, vector.dtype, vector.numel), dtype, numel)?;
        }
        if let Some(base) = base {
            check(OPERATION, "base", (base.address, base.dtype, base.numel), dtype, numel)?;
        }
    }
    Ok(dtype)
}

fn launch<T: Target>(
    target: &T,
    kernel: &str,
    blocks: usize,
    shared_bytes: usize,
    arguments: &[Argument],
) -> Result<()> {
    let launch = Launch {
        kernel,
        grid: [grid(OPERATION, blocks)?, 1, 1],
        threads: THREADS,
        shared_bytes: shared_bytes as u32,
        cooperative: false,
        arguments,
    };
    // SAFETY: tables of as many pieces, experts and searches as the kernels are told, made of operands that were checked
    // and are borrowed until all is asked for; memory is freed in the order of the target's work.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        target.launch(&launch)
    }
}
