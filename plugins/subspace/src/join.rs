//! Joining matrices that are aligned, entry by entry.

use skillweld_plugin_sdk::linalg::ndarray::Array2;
use skillweld_plugin_sdk::{Param, Params, Result, Spec, vectorize};

/// The method inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Trim, elect the sign of the weighted sum, add what agrees.
    Ties,
    /// Add.
    TaskArithmetic,
    /// The entry of largest magnitude.
    MagMax,
}

/// Adds the parameters of the method inside.
pub(crate) fn params(spec: Spec) -> Spec {
    spec.param(Param::choice("inside", &["ties", "task_arithmetic", "magmax"]).default("ties").describe(
        "the method that joins the aligned parts; the published code adds them up: task_arithmetic",
    ))
    .param(Param::number("weight").default(1.0).per_expert().describe("factor of the expert's aligned part"))
    .param(
        Param::number("density")
            .default(1.0)
            .range(0.0..=1.0)
            .per_expert()
            .describe("ties: share of the entries kept, the largest ones"),
    )
    .param(
        Param::boolean("normalize")
            .default(true)
            .describe("ties: divide by the sum of the weights that took part in the entry"),
    )
}

pub(crate) fn inside(params: &Params<'_>) -> Inside {
    match params.choice("inside") {
        "ties" => Inside::Ties,
        "magmax" => Inside::MagMax,
        _ => Inside::TaskArithmetic,
    }
}

/// Joins aligned matrices of one shape, weighted; as `ties` and `magmax` do with task vectors.
///
/// Entries of all that agree in sign with the weighted sum (zero: +) are added, and with `normalize` divided by the sum of
/// their weights; an expert keeps its ⌈density · len⌉ largest entries, and those that equal the last of them.
pub(crate) fn join(params: &Params<'_>, aligned: &mut [Array2<f32>]) -> Result<Array2<f32>> {
    let weights: Vec<f32> = params.expert_numbers("weight").iter().map(|&weight| weight as f32).collect();
    let shape = aligned.first().map_or((0, 0), Array2::dim);
    let mut out = Array2::zeros(shape);
    for ((matrix, &weight), &density) in
        aligned.iter_mut().zip(&weights).zip(params.expert_numbers("density"))
    {
        let values = matrix.as_slice_mut().ok_or("an aligned part with gaps")?;
        if inside(params) == Inside::Ties {
            trim(values, density);
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
        match inside(params) {
            Inside::TaskArithmetic => rows.for_each(|row| add(out, row)),
            Inside::MagMax => rows.for_each(|row| keep_larger(out, row)),
            Inside::Ties => {
                let (sum, shares) = (&mut sum[..len], &mut shares[..len]);
                sum.fill(0.0);
                rows.clone().for_each(|row| add(sum, row));
                shares.fill(0.0);
                for (row, &weight) in rows.zip(&weights) {
                    agree(out, shares, sum, row, weight);
                }
                if params.boolean("normalize") {
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

vectorize! {
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
