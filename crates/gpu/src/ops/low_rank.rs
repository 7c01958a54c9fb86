use skillweld_tensor::{BitMask, Dtype};

use super::low_rank_split::{Factor, Splits};
use super::pieces::{check, grid, suffix, table, uploaded};
use crate::error::require;
use crate::{Argument, GpuError, Launch, Memory, Result, Target, View, ViewMut};

const OPERATION: &str = "low_rank";
/// How one of the two kernels cuts a matrix, and what it is launched with; as in `kernels/src/low_rank*.cu`.
#[derive(Debug)]
struct Kernel {
    name: &'static str,
    tile: (usize, usize),
    threads: u32,
    shared_bytes: u32,
}

/// A block a tile, any inner length.
static GENERAL: Kernel =
    Kernel { name: "low_rank", tile: (128, 128), threads: 128, shared_bytes: 3 * 2 * 128 * 128 };
/// As many blocks as run at once, each keeps rows of the left factors: inner lengths of up to [`RESIDENT_STEPS`].
static RESIDENT: Kernel = Kernel {
    name: "low_rank_resident",
    tile: (256, 64),
    threads: 256,
    shared_bytes: 4 * 256 * 128 + 2 * 4 * 64 * 128 + 8 * 8 * 72 * 4,
};
/// Elements of the inner length that kernels take at once, counted anew in every product.
const STEP: usize = 64;
const RESIDENT_STEPS: usize = 4;

/// One expert's part of a [`LowRankMatrix`]: s_k · B_k A_k.
#[derive(Debug, Clone, Copy)]
pub struct LowRankExpert<'a> {
    /// B_k, rows × rank, as PEFT stores `lora_B.weight`: BF16, F16 or F32.
    pub left: View<'a>,
    /// A_k, rank × columns, as PEFT stores `lora_A.weight`: BF16, F16 or F32.
    pub right: View<'a>,
    /// Inner length of the product.
    pub rank: usize,
    /// s_k: alpha / rank, times the expert's weight in a merge.
    pub scale: f32,
}

/// One matrix of a [`LowRank`].
#[derive(Debug)]
pub struct LowRankMatrix<'a> {
    /// Θ₀, rows × columns, of the result's dtype; none for the sum alone, which is τ.
    pub base: Option<View<'a>>,
    /// M: U8, ceil(rows · columns / 8) bytes, element 8j + i in bit i of byte j. Where it is not set the result is Θ₀.
    pub mask: Option<View<'a>>,
    /// What is summed; none is a sum of zero.
    pub experts: Vec<LowRankExpert<'a>>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// rows × columns: BF16, F16 or F32, the same for all matrices.
    pub out: ViewMut<'a>,
}

/// Θ₀ + M ⊙ Σ_k s_k · B_k A_k (task vectors of LoRA experts, arXiv 2106.09685, merged by arXiv 2511.18810) for any number
/// of matrices: one launch, every matrix read and written once, no τ in memory unless it is asked for.
///
/// bf16 factors are multiplied as they are, summed in f32, and the result is rounded once; scales are applied to the f32
/// sums. F16 and F32 factors are split into bf16 parts first: products of parts are left out where they are below 2⁻¹⁴ of
/// |B_k| |A_k| for BF16 results, below 2⁻²² for F16 and F32 ones.
///
/// Twin: `skillweld_tensor`'s low-rank tensors, within the roundings of f32 sums.
#[derive(Debug)]
pub struct LowRank<'a, M> {
    launches: Vec<Tables<M>>,
    splits: Splits<M>,
    matrices: std::marker::PhantomData<&'a mut ()>,
}

/// One launch.
#[derive(Debug)]
struct Tables<M> {
    kernel: &'static Kernel,
    name: String,
    blocks: u32,
    tiles: usize,
    piece_count: u32,
    pieces: M,
    products: M,
}

impl<'a, M: Memory> LowRank<'a, M> {
    /// Checks the operands, lays out the launches, and allocates room for factors that have to be split.
    ///
    /// # Errors
    /// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; scales that are not finite; no memory.
    pub fn new<T: Target<Memory = M>>(target: &T, mut matrices: Vec<LowRankMatrix<'a>>) -> Result<Self> {
        matrices.retain(|matrix| matrix.rows > 0 && matrix.columns > 0);
        let mut splits = Splits::default();
        let mut launches = Vec::new();
        if let Some(dtype) = matrices.first().map(|matrix| matrix.out.dtype) {
            let mut all = Vec::new();
            for matrix in &matrices {
                check_matrix(matrix, dtype)?;
                all.push((matrix, products_of(target, matrix, dtype, &mut splits)?));
            }
            let name =
                |kernel: &Kernel| Ok::<_, GpuError>(format!("{}_{}", kernel.name, suffix(OPERATION, dtype)?));
            let at_once = resident_blocks(target, &name(&RESIDENT)?)?;
            let (resident, general): (Vec<_>, Vec<_>) = all.iter().partition(|(_, products)| {
                let steps: usize = products.iter().map(|product| product.inner.div_ceil(STEP)).sum();
                at_once > 0 && (1..=RESIDENT_STEPS).contains(&steps)
            });
            for (kernel, matrices) in [(&RESIDENT, resident), (&GENERAL, general)] {
                let at_once = if std::ptr::eq(kernel, &RESIDENT) { at_once } else { u32::MAX };
                launches.extend(Tables::new(target, kernel, name(kernel)?, at_once, &matrices)?);
            }
        }
        splits.lay_out(target)?;
        Ok(Self { launches, splits, matrices: std::marker::PhantomData })
    }

    /// Asks for the launches; again, for the same matrices, as often as wanted. Factors are read anew each time.
    ///
    /// # Errors
    /// Whatever the target refuses.
    pub fn run<T: Target<Memory = M>>(&mut self, target: &T) -> Result<()> {
        self.splits.run(target)?;
        self.launches.iter().try_for_each(|tables| tables.run(target))
    }
}

impl<M: Memory> Tables<M> {
    /// The launch for these matrices; none for none.
    fn new<T: Target<Memory = M>>(
        target: &T,
        kernel: &'static Kernel,
        name: String,
        at_once: u32,
        matrices: &[&(&LowRankMatrix<'_>, Vec<Product>)],
    ) -> Result<Option<Self>> {
        let (mut pieces, mut all_products, mut tiles) = (Vec::new(), Vec::new(), 0);
        for (matrix, products) in matrices {
            pieces.extend([
                matrix.base.map_or(0, |base| base.address),
                matrix.mask.map_or(0, |mask| mask.address),
                matrix.out.address,
                tiles as u64,
                pair(matrix.rows, matrix.columns),
                pair(all_products.len() / Product::WORDS, products.len()),
            ]);
            all_products.extend(products.iter().flat_map(Product::words));
            tiles += matrix.rows.div_ceil(kernel.tile.0) * matrix.columns.div_ceil(kernel.tile.1);
        }
        if tiles == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            kernel,
            name,
            blocks: grid(OPERATION, tiles)?.min(at_once),
            tiles,
            piece_count: matrices.len() as u32,
            pieces: uploaded(target, &table(pieces))?,
            products: uploaded(target, &table(all_products))?,
        }))
    }

    fn run<T: Target<Memory = M>>(&self, target: &T) -> Result<()> {
        let arguments = [
            Argument::U64(self.pieces.address()),
            Argument::U32(self.piece_count),
            Argument::U64(self.products.address()),
            Argument::U64(self.tiles as u64),
        ];
        let launch = Launch {
            kernel: &self.name,
            grid: [self.blocks, 1, 1],
            threads: self.kernel.threads,
            shared_bytes: self.kernel.shared_bytes,
            cooperative: false,
            // Where every tile has its block the grid says how many there are.
            arguments: if std::ptr::eq(self.kernel, &raw const GENERAL) {
                &arguments[..3]
            } else {
                &arguments
            },
        };
        // SAFETY: the tables were made in `LowRank::new` from operands that it checked and borrows as long as it lives.
        #[expect(unsafe_code, reason = "a checked launch")]
        unsafe {
            target.launch(&launch)
        }
    }
}

/// One product of bf16 factors, as `struct LowRankProduct` in `kernels/include/low_rank.cuh`.
struct Product {
    left: u64,
    right: u64,
    inner: usize,
    right_pitch: usize,
    ratio: f32,
}

impl Product {
    const WORDS: usize = 4;

    fn words(&self) -> [u64; Self::WORDS] {
        [self.left, self.right, pair(self.inner, self.right_pitch), u64::from(self.ratio.to_bits())]
    }
}

/// Two 32-bit fields of a struct; both were checked to fit.
fn pair(low: usize, high: usize) -> u64 {
    low as u64 | (high as u64) << 32
}

/// The products whose sum, scaled as they say, is the matrix's.
fn products_of<T: Target>(
    target: &T,
    matrix: &LowRankMatrix<'_>,
    out: Dtype,
    splits: &mut Splits<T::Memory>,
) -> Result<Vec<Product>> {
    let mut experts: Vec<&LowRankExpert<'_>> =
        matrix.experts.iter().filter(|expert| expert.rank > 0 && expert.scale != 0.0).collect();
    // From the smallest scale to the largest no ratio is above 1, so no sum grows beyond what it becomes.
    experts.sort_by(|a, b| a.scale.abs().total_cmp(&b.scale.abs()));
    let mut products: Vec<Product> = Vec::new();
    for (index, expert) in experts.iter().enumerate() {
        let next = experts.get(index + 1).map_or(1.0, |next| f64::from(next.scale));
        let left = Factor { values: expert.left, rows: matrix.rows, columns: expert.rank };
        let right = Factor { values: expert.right, rows: expert.rank, columns: matrix.columns };
        // Parts p and q are 2^-8p and 2^-8q of the factors; they matter as long as p + q is at most this.
        let deepest = if out == Dtype::BF16 { 1 } else { 2 };
        let as_it_is = left.fits() && right.fits();
        let (left, right) = if as_it_is {
            (vec![left.values.address], vec![right.values.address])
        } else {
            (splits.parts(target, &left, deepest + 1)?, splits.parts(target, &right, deepest + 1)?)
        };
        let padded = |n: usize| if as_it_is { n } else { n.next_multiple_of(8) };
        for depth in (0..=deepest).rev() {
            for (p, &left) in left.iter().enumerate().filter(|(p, _)| *p <= depth) {
                let Some(&right) = right.get(depth - p) else { continue };
                let (inner, right_pitch) = (padded(expert.rank), padded(matrix.columns));
                products.push(Product { left, right, inner, right_pitch, ratio: 1.0 });
            }
        }
        if let Some(last) = products.last_mut() {
            last.ratio = (f64::from(expert.scale) / next) as f32;
        }
    }
    Ok(products)
}

/// Blocks of [`RESIDENT`] that run at once: none where a GPU has less shared memory than one of them takes.
fn resident_blocks<T: Target>(target: &T, name: &str) -> Result<u32> {
    match target.resident_blocks(name, RESIDENT.threads, RESIDENT.shared_bytes) {
        Err(GpuError::Driver { .. }) => Ok(0),
        other => other,
    }
}

fn check_matrix(matrix: &LowRankMatrix<'_>, dtype: Dtype) -> Result<()> {
    let LowRankMatrix { base, mask, experts, rows, columns, out } = matrix;
    let (rows, columns) = (*rows, *columns);
    let most = i32::MAX as usize / 2; // kernels count rows and columns with 32 bits, and go past them by a tile
    require(rows <= most && columns <= most, OPERATION, || format!("{rows} × {columns} is too large"))?;
    let numel = product(rows, columns)?;
    check(OPERATION, "out", (out.address, out.dtype, out.numel), dtype, numel)?;
    if let Some(base) = base {
        check(OPERATION, "base", (base.address, base.dtype, base.numel), dtype, numel)?;
    }
    if let Some(mask) = mask {
        let bytes = BitMask::byte_len(numel);
        check(OPERATION, "mask", (mask.address, mask.dtype, mask.numel), Dtype::U8, bytes)?;
    }
    for LowRankExpert { left, right, rank, scale } in experts {
        let rank = *rank;
        require(rank <= most, OPERATION, || format!("rank {rank} is too large"))?;
        require(scale.is_finite(), OPERATION, || format!("an expert's scale is {scale}"))?;
        for (name, factor, numel) in
            [("left", left, product(rows, rank)?), ("right", right, product(rank, columns)?)]
        {
            suffix(OPERATION, factor.dtype)?;
            check(OPERATION, name, (factor.address, factor.dtype, factor.numel), factor.dtype, numel)?;
        }
    }
    Ok(())
}

fn product(a: usize, b: usize) -> Result<usize> {
    a.checked_mul(b).ok_or_else(|| GpuError::Operands {
        operation: OPERATION,
        problem: format!("{a} × {b} elements are more than a machine can address"),
    })
}
