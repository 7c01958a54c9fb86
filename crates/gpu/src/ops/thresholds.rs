use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, check, suffix, table, uploaded};
use crate::error::require;
use crate::{Argument, Launch, Memory, Result, Target, View};

const OPERATION: &str = "thresholds";
/// As in `kernels/src/thresholds.cu`.
const THREADS: u32 = 256;
const ROUNDS: usize = 4;
const CHUNK: usize = THREADS as usize * ROUNDS * EIGHT;
const BINS: usize = 8192;
/// Bytes of its struct `Search`.
const SEARCH_BYTES: usize = 48;
/// Sweeps over everything that find any threshold, wherever the sample's guess lay: of f32 one for the guess, three that
/// narrow 2³¹ magnitudes down to one.
const SWEEPS: usize = 5;
/// One chunk of so many makes the sample.
const SAMPLE: usize = 64;
/// Fewer chunks than this are all looked at for the guess.
const FEW_CHUNKS: usize = 256;

/// Over what thresholds are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdScope {
    /// Each tensor by itself: K = ⌊density · n⌋, but at least 1; of entries that equal the threshold as many as there is
    /// room for, chosen at random by their place.
    Tensor,
    /// All tensors together: K = ⌊density · n⌋ + 1, and all that equal the threshold.
    Global,
}

/// The smallest magnitudes that trimmed experts keep, on the target.
#[derive(Debug)]
pub struct Thresholds<M> {
    pub(super) searches: M,
    pub(super) scope: ThresholdScope,
    pub(super) count: usize,
}

impl<M: Memory> Thresholds<M> {
    /// The K-th largest |τ| of every expert (of every tensor, tensor by tensor), by exact counting; `tensors` holds the
    /// experts' task vectors of each tensor. Where `densities[k]` is 1 or more expert k keeps everything, where it is 0
    /// nothing.
    ///
    /// Twin: the thresholds of the plugin `ties`, the same bits.
    ///
    /// # Errors
    /// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; whatever the target refuses.
    pub fn find<T: Target<Memory = M>>(
        target: &T,
        tensors: &[Vec<View<'_>>],
        densities: &[f64],
        scope: ThresholdScope,
    ) -> Result<Self> {
        let experts = densities.len();
        let dtype = tensors.first().and_then(|vectors| vectors.first()).map_or(Dtype::F32, |view| view.dtype);
        for vectors in tensors {
            require(vectors.len() == experts, OPERATION, || {
                format!("{} task vectors for {experts} densities", vectors.len())
            })?;
            let numel = vectors.first().map_or(0, View::numel);
            for vector in vectors {
                check(OPERATION, "task_vector", (vector.address, vector.dtype, vector.numel), dtype, numel)?;
            }
        }
        let numels: Vec<usize> =
            tensors.iter().map(|vectors| vectors.first().map_or(0, View::numel)).collect();
        let groups = match scope {
            ThresholdScope::Tensor => numels.clone(),
            ThresholdScope::Global => vec![numels.iter().sum()],
        };
        let magnitudes = 1 << (dtype.bits() - 1);
        let searches =
            groups.iter().flat_map(|&n| densities.iter().map(move |&d| search(n, d, scope, magnitudes)));
        let searches: Vec<u8> = searches.flatten().collect();
        let count = searches.len() / SEARCH_BYTES;
        let thresholds = Self { searches: uploaded(target, &searches)?, scope, count };
        if count > 0 && numels.iter().any(|&n| n > 0) {
            thresholds.sweep(target, (tensors, &numels), (dtype, experts), magnitudes)?;
        }
        Ok(thresholds)
    }

    fn sweep<T: Target<Memory = M>>(
        &self,
        target: &T,
        (tensors, numels): (&[Vec<View<'_>>], &[usize]),
        (dtype, experts): (Dtype, usize),
        magnitudes: u32,
    ) -> Result<()> {
        let mut chunks = 0;
        let mut pieces = Vec::new();
        for &numel in numels {
            pieces.extend([numel as u64, chunks as u64]);
            chunks += numel.div_ceil(CHUNK);
        }
        let pieces = uploaded(target, &table(pieces))?;
        let vectors = uploaded(target, &table(tensors.iter().flatten().map(|view| view.address)))?;
        let mut above = target.allocate(self.count * size_of::<u64>())?;
        let mut bins = target.allocate(self.count * BINS * size_of::<u64>())?;
        target.fill(&mut above, 0)?;
        target.fill(&mut bins, 0)?;
        let per_piece = u32::from(self.scope == ThresholdScope::Tensor);
        let kernel = format!("{OPERATION}_count_{}", suffix(OPERATION, dtype)?);
        let shared_bytes = (BINS * size_of::<u32>()) as u32;
        let resident = target.resident_blocks(&kernel, THREADS, shared_bytes)? as usize;
        // Thresholds of single tensors are mostly of small ones, whose sample would be a chunk or none.
        let sample = if chunks < FEW_CHUNKS || per_piece == 1 { 1 } else { SAMPLE };
        for sweep in 0..=SWEEPS {
            let stride = if sweep == 0 { sample } else { 1 };
            let blocks = (resident / experts).clamp(1, chunks.div_ceil(stride));
            let arguments = [
                Argument::U64(pieces.address()),
                Argument::U32(numels.len() as u32),
                Argument::U64(vectors.address()),
                Argument::U32(per_piece),
                Argument::U64(self.searches.address()),
                Argument::U64(above.address()),
                Argument::U64(bins.address()),
                Argument::U32(stride as u32),
                Argument::U64(chunks as u64),
            ];
            let grid = [blocks as u32, experts as u32, 1];
            let count = Launch {
                kernel: &kernel,
                grid,
                threads: THREADS,
                shared_bytes,
                cooperative: false,
                arguments: &arguments,
            };
            let arguments = [
                Argument::U64(self.searches.address()),
                Argument::U64(above.address()),
                Argument::U64(bins.address()),
                Argument::U32(per_piece),
                Argument::U32(magnitudes),
                // A sample of everything needs no margin.
                Argument::U32(u32::from(stride > 1)),
            ];
            let narrow = Launch {
                kernel: "thresholds_narrow",
                grid: [self.count as u32, 1, 1],
                threads: THREADS,
                shared_bytes: THREADS * size_of::<u64>() as u32,
                cooperative: false,
                arguments: &arguments,
            };
            // SAFETY: the tables were made of operands that `find` checked and that are borrowed until it returns; bins
            // and counts are as long as the kernels' constants say; memory is freed in the order of the target's work.
            #[expect(unsafe_code, reason = "checked launches")]
            unsafe {
                target.launch(&count)?;
                target.launch(&narrow)?;
            }
        }
        Ok(())
    }
}

/// The bytes of one `Search` at its start: the whole range of magnitudes.
fn search(numel: usize, density: f64, scope: ThresholdScope, magnitudes: u32) -> Vec<u8> {
    let share = (density * numel as f64).floor();
    let rank = match scope {
        ThresholdScope::Tensor => share.max(1.0),
        ThresholdScope::Global => share + 1.0,
    };
    let (found, key) = match density {
        _ if numel == 0 || density >= 1.0 => (1, 0),
        0.0 => (1, u32::MAX),
        _ => (0, 0),
    };
    let shift = (magnitudes as usize / BINS).ilog2();
    let mut bytes = table([rank as u64, numel as u64]);
    for word in [0, magnitudes, shift, found, key, 0] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend((1u64 << 32).to_le_bytes());
    bytes
}
