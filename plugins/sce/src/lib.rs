//! SCE-Merging (FuseChat, arXiv 2408.07990): select the entries in which the experts differ most, calculate a coefficient
//! for each expert, erase entries of the minority sign.

use skillweld_plugin_sdk::trim::{self, AMONG_EQUALS, Largest, Quest};
use skillweld_plugin_sdk::{
    Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, keep_between, laws, vectorize,
};

export_methods!(merge: [Sce]);

/// For each tensor:
///
/// 1. *Select.* Of the elements whose variance over the experts is not zero ⌊select_topk · n⌋ are kept, those of largest
///    variance; `select_topk` 1 keeps all. Of equal variances as many are kept as there is room for, chosen at random
///    by their place.
/// 2. *Calculate.* η_k = mean(τ_k²) / Σ_j mean(τ_j²) over what is kept.
/// 3. *Erase.* Each element takes the sign of the plain sum Σ τ_k, + where that is zero, and becomes
///    Σ η_k τ_k / Σ η_k over the experts of that sign.
///
/// mergekit takes equal coefficients where Σ_j mean(τ_j²) is below 1e-6, and divides by no less than that: so fine-tunes
/// whose weights moved by less than about 1e-3 all weigh the same. `epsilon` is that bound; 0 takes the coefficients as
/// the paper defines them.
pub struct Sce;

impl MergeMethod for Sce {
    fn spec() -> Spec {
        Spec::new("sce", "select by variance, weigh by energy, erase minority signs")
            .citation("Wan et al., FuseChat: Knowledge Fusion of Chat Models, 2024, arXiv 2408.07990")
            .task_vectors()
            .param(
                Param::number("select_topk")
                    .default(1.0)
                    .range(0.0..=1.0)
                    .describe("share of the elements kept, those in which the experts differ most"),
            )
            .param(
                Param::number("epsilon").default(1e-6).at_least(0.0).describe(
                    "below this sum of mean squares coefficients are equal; also the smallest divisor. 0: never, as in the paper",
                ),
            )
            .param(
                Param::number("weight")
                    .default(1.0)
                    .per_expert()
                    .without_effect()
                    .describe("coefficients follow from the task vectors"),
            )
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::SIGN_AGREEMENT)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        let squares = params.experts();
        if !selects(params) {
            return Ok(Plan::per_tensor([squares]));
        }
        let sums: Vec<usize> = trim::sums_len(1).into_iter().chain([squares]).collect();
        Ok(Plan::per_tensor(sums).sample(0, trim::SAMPLE).scratch_per_element(1))
    }

    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        if selects(block) && pass < trim::PASSES {
            let variances = block.take_scratch();
            spread(variances, &block.all_experts());
            if !quest(block).count(pass, without_zeros(variances), sums) {
                block.settled();
            }
            return Ok(());
        }
        Selected::new(block)?.for_each_tile(|_, len, rows| {
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(TILE)) {
                *sum += sum_of_squares(&row[..len]);
            }
        });
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let (coefficients, epsilon) = (coefficients(block), block.number("epsilon") as f32);
        Selected::new(block)?.for_each_tile(|start, len, rows| {
            erase(&mut out[start..start + len], rows, &coefficients, epsilon);
        });
        Ok(())
    }
}

/// Elements worked on at a time: N rows of this many f32 stay in the first cache.
const TILE: usize = 512;

/// Whether any element is dropped.
fn selects(params: &Params<'_>) -> bool {
    params.number("select_topk") < 1.0
}

/// The largest variances.
fn quest<'a>(block: &'a Block<'_>) -> Quest<'a, impl Fn(f64) -> f64 + use<>> {
    let share = block.number("select_topk");
    Quest { totals: block.totals(), index: 0, of: 1, share, rank: move |count: f64| (share * count).floor() }
}

/// The experts' η.
fn coefficients(block: &Block<'_>) -> Vec<f32> {
    let experts = block.experts();
    let squares = block.totals().split_at_checked(block.totals().len().wrapping_sub(experts));
    let squares = squares.map_or(&[][..], |(_, squares)| squares);
    let total: f64 = squares.iter().sum();
    if total == 0.0 || total / (block.numel() as f64) < block.number("epsilon") {
        return vec![1.0 / experts as f32; experts];
    }
    squares.iter().map(|square| (square / total) as f32).collect()
}

/// The experts' values in the elements that are kept, and zero elsewhere.
struct Selected<'a> {
    block: &'a Block<'a>,
    /// `None`: all elements are kept.
    variances: Option<Largest>,
}

impl<'a> Selected<'a> {
    fn new(block: &'a Block<'a>) -> Result<Self> {
        let variances = if selects(block) { Some(quest(block).find()?.into()) } else { None };
        Ok(Self { block, variances })
    }

    /// Hands over start, length and rows of each tile; a row an expert, [`TILE`] apart.
    fn for_each_tile(&self, mut work: impl FnMut(usize, usize, &[f32])) {
        let experts = self.block.all_experts();
        let mut rows = vec![0.0; experts.len() * TILE];
        let (mut variances, mut numbers) = ([0.0; TILE], [0; TILE]);
        for start in (0..self.block.len()).step_by(TILE) {
            let len = TILE.min(self.block.len() - start);
            let tiles: Vec<&[f32]> = experts.iter().map(|expert| &expert[start..start + len]).collect();
            for (row, tile) in rows.chunks_exact_mut(TILE).zip(&tiles) {
                row[..len].copy_from_slice(tile);
            }
            if let Some(largest) = self.variances {
                spread(&mut variances[..len], &tiles);
                if largest.draws() {
                    AMONG_EQUALS.fill(self.block.offset() + start as u64, &mut numbers[..len]);
                }
                for row in rows.chunks_exact_mut(TILE) {
                    select(&mut row[..len], &variances, &numbers, largest);
                }
            }
            work(start, len, &rows);
        }
    }
}

/// Moves what is not zero to the front.
fn without_zeros(values: &mut [f32]) -> &[f32] {
    let mut bits = vec![0; values.len()];
    let (_, count) = keep_between(values, 1, u32::MAX, &mut bits);
    for (value, &bits) in values.iter_mut().zip(&bits[..count]) {
        *value = f32::from_bits(bits);
    }
    &values[..count]
}

vectorize! {
    /// N² times the variance of the N experts: N Σ d² − (Σ d)², d being the distance from the first. Where all are equal
    /// it is exactly zero; elsewhere at least Σ d², so that the difference loses few bits.
    fn spread(out: &mut [f32], experts: &[&[f32]]) {
        let Some((first, others)) = experts.split_first() else { return out.fill(0.0) };
        let count = experts.len() as f32;
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let (mut sums, mut squares) = ([0f32; TILE], [0f32; TILE]);
            let first = &first[tile * TILE..][..out.len()];
            for other in others {
                for (((sum, square), first), other) in sums.iter_mut().zip(&mut squares).zip(first).zip(&other[tile * TILE..]) {
                    let distance = other - first;
                    *sum += distance;
                    *square += distance * distance;
                }
            }
            for ((out, sum), square) in out.iter_mut().zip(&sums).zip(&squares) {
                *out = count * square - sum * sum;
            }
        }
    }

    fn select(row: &mut [f32], variances: &[f32; TILE], numbers: &[u32; TILE], largest: Largest) {
        for ((value, &variance), &number) in row.iter_mut().zip(variances).zip(numbers) {
            *value = if largest.has(variance, number) { *value } else { 0.0 };
        }
    }

    /// Σ x² in f64, in 16 running sums so that the loop vectorises without reordering.
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0; 16];
        for values in values.chunks(16) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        sums.iter().sum()
    }

    /// Σ η v / max(Σ η, ε) over the rows that have the sign of the plain sum.
    fn erase(out: &mut [f32], rows: &[f32], coefficients: &[f32], epsilon: f32) {
        let (mut signs, mut divisors) = ([0f32; TILE], [0f32; TILE]);
        let (signs, divisors) = (&mut signs[..out.len()], &mut divisors[..out.len()]);
        for row in rows.chunks_exact(TILE) {
            signs.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        signs.iter_mut().for_each(|sum| *sum = if *sum < 0.0 { -1.0 } else { 1.0 });
        out.fill(0.0);
        for (row, &coefficient) in rows.chunks_exact(TILE).zip(coefficients) {
            for (((out, divisor), &sign), &value) in out.iter_mut().zip(&mut *divisors).zip(&*signs).zip(row) {
                let agrees = value * sign > 0.0;
                *out += if agrees { coefficient * value } else { 0.0 };
                *divisor += if agrees { coefficient } else { 0.0 };
            }
        }
        for (out, &divisor) in out.iter_mut().zip(&*divisors) {
            let divisor = if divisor > epsilon { divisor } else { epsilon };
            *out /= if divisor == 0.0 { 1.0 } else { divisor };
        }
    }
}

#[cfg(test)]
mod tests;
