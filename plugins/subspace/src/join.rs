//! Joining matrices that are aligned, entry by entry.

use skillweld_plugin_sdk::linalg::ndarray::Array2;
use skillweld_plugin_sdk::{Block, Param, Params, Random, Result, Spec, TILE as RUN, vectorize};

/// The method inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Trim, elect the sign of the weighted sum, add what agrees.
    Ties,
    /// Add.
    TaskArithmetic,
    /// The entry of largest magnitude.
    MagMax,
    /// Drop at random, divide by the density, elect the sign of the weighted sum, add what agrees.
    DareTies,
    /// Drop at random, divide by the density, add.
    DareLinear,
}

/// As recipes name them.
const METHODS: &[&str] = &["ties", "task_arithmetic", "magmax", "dare_ties", "dare_linear"];

/// How an aligned part loses entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinning {
    None,
    Smallest,
    AtRandom,
}

impl Inside {
    fn thinning(self) -> Thinning {
        match self {
            Self::Ties => Thinning::Smallest,
            Self::DareTies | Self::DareLinear => Thinning::AtRandom,
            Self::TaskArithmetic | Self::MagMax => Thinning::None,
        }
    }

    /// The result is a weighted sum of the parts as they are.
    pub(crate) fn is_sum(self) -> bool {
        self == Self::TaskArithmetic
    }
}

/// Adds the parameters of the method inside.
pub(crate) fn params(spec: Spec) -> Spec {
    spec.param(Param::choice("inside", METHODS).default("ties").describe(
        "the method that joins the aligned parts; the published code adds them up: task_arithmetic",
    ))
    .random()
    .param(Param::number("weight").default(1.0).per_expert().describe("factor of the expert's aligned part"))
    .param(
        Param::number("density").default(1.0).range(0.0..=1.0).per_expert().describe(
            "ties: share of the entries kept, the largest ones; dare: chance of each entry to be kept",
        ),
    )
    .param(
        Param::boolean("normalize")
            .default(true)
            .describe("ties, dare_ties: divide by the sum of the weights that took part in the entry"),
    )
}

pub(crate) fn inside(params: &Params<'_>) -> Inside {
    match params.choice("inside") {
        "ties" => Inside::Ties,
        "magmax" => Inside::MagMax,
        "dare_ties" => Inside::DareTies,
        "dare_linear" => Inside::DareLinear,
        _ => Inside::TaskArithmetic,
    }
}

/// Joins aligned matrices of one shape, weighted; as `ties`, `magmax`, `dare_ties` and `dare_linear` do with task vectors.
///
/// Where a sign is elected, entries of all that agree in sign with the weighted sum (zero: +) are added, and with
/// `normalize` divided by the sum of
/// their weights. `ties` keeps the ⌈density · len⌉ largest entries of an expert, and those that equal the last of them; `dare_*`
/// keep each with that chance and divide it by the chance.
pub(crate) fn join(block: &Block<'_>, aligned: &mut [Array2<f32>]) -> Result<Array2<f32>> {
    let inside = inside(block);
    let weights: Vec<f32> = block.expert_numbers("weight").iter().map(|&weight| weight as f32).collect();
    let shape = aligned.first().map_or((0, 0), Array2::dim);
    let mut out = Array2::zeros(shape);
    for (k, (matrix, &weight)) in aligned.iter_mut().zip(&weights).enumerate() {
        let values = matrix.as_slice_mut().ok_or("an aligned part with gaps")?;
        let density = block.expert_number("density", k);
        match inside.thinning() {
            Thinning::None => {}
            Thinning::Smallest => trim(values, density),
            Thinning::AtRandom => drop_at_random(values, density, block.random(k)),
        }
        weigh(values, weight);
    }
    let rows: Vec<&[f32]> = aligned.iter().filter_map(|matrix| matrix.as_slice()).collect();
    let out_values = out.as_slice_mut().ok_or("a result with gaps")?;
    let mut sum = vec![0.0; TILE.min(out_values.len())];
    let mut shares = sum.clone();
    for (tile, out) in out_values.chunks_mut(TILE).enumerate() {
        let (start, len) = (tile * TILE, out.len());
        let rows = rows.iter().map(|row| &row[start..start + len]);
        match inside {
            Inside::TaskArithmetic | Inside::DareLinear => rows.for_each(|row| add(out, row)),
            Inside::MagMax => rows.for_each(|row| keep_larger(out, row)),
            Inside::Ties | Inside::DareTies => {
                let (sum, shares) = (&mut sum[..len], &mut shares[..len]);
                sum.fill(0.0);
                rows.clone().for_each(|row| add(sum, row));
                shares.fill(0.0);
                for (row, &weight) in rows.zip(&weights) {
                    agree(out, shares, sum, row, weight);
                }
                if block.boolean("normalize") {
                    divide(out, shares);
                }
            }
        }
    }
    Ok(out)
}

/// Entries worked on at once, in the cache.
const TILE: usize = 4096;

/// Zeroes what is smaller than the ⌈density · len⌉-th largest magnitude.
fn trim(values: &mut [f32], density: f64) {
    let keep = (density * values.len() as f64).ceil() as usize;
    if keep >= values.len() {
        return;
    }
    if keep == 0 {
        return values.fill(0.0);
    }
    let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    let place = magnitudes.len() - keep;
    let (_, &mut threshold, _) = magnitudes.select_nth_unstable_by(place, f32::total_cmp);
    values.iter_mut().filter(|value| value.abs() < threshold).for_each(|value| *value = 0.0);
}

/// Keeps entry i where its random number is below density · 2³², and divides it by the density.
fn drop_at_random(values: &mut [f32], density: f64, random: Random) {
    if density >= 1.0 {
        return;
    }
    let below = (density * 4_294_967_296.0) as u32;
    let factor = if density > 0.0 { 1.0 / density } else { 0.0 } as f32;
    let mut numbers = [0; RUN];
    for (run, values) in values.chunks_mut(RUN).enumerate() {
        let numbers = &mut numbers[..values.len()];
        random.fill((run * RUN) as u64, numbers);
        keep_below(values, factor, numbers, below);
    }
}

vectorize! {
    fn keep_below(values: &mut [f32], factor: f32, numbers: &[u32], below: u32) {
        for (value, &number) in values.iter_mut().zip(numbers) {
            *value = if number < below { *value * factor } else { 0.0 };
        }
    }

    fn weigh(values: &mut [f32], weight: f32) {
        values.iter_mut().for_each(|value| *value *= weight);
    }

    fn add(out: &mut [f32], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
    }

    fn keep_larger(out: &mut [f32], x: &[f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if x.abs() > out.abs() { x } else { *out };
        }
    }

    /// Adds an entry that is not zero and has the sign of the sum, and its weight.
    fn agree(out: &mut [f32], shares: &mut [f32], sum: &[f32], x: &[f32], weight: f32) {
        for (((out, share), sum), &x) in out.iter_mut().zip(shares).zip(sum).zip(x) {
            let agrees = (x != 0.0) & ((x > 0.0) == (*sum >= 0.0));
            *out += if agrees { x } else { 0.0 };
            *share += if agrees { weight } else { 0.0 };
        }
    }

    fn divide(out: &mut [f32], shares: &[f32]) {
        for (out, &share) in out.iter_mut().zip(shares) {
            *out = if share == 0.0 { *out } else { *out / share };
        }
    }
}
